"""Curated problems in the layouts of other trainers: TRL (prompt and columns), verl and SkyRL (parquet)."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_curation.config import OutputOptions
from data_curation.prompts import chat_prompt
from data_curation.schema import Problem, Test
from data_curation.sources.published import WITHHELD
from data_curation.storage import save_table

FORMATS = ("trl", "verl", "skyrl")
OWN = "rlvr"  # the data source of rows that only our reward functions can judge
# data sources for which verl's own reward runs code on inputs and outputs
VERL_SOURCES = ("apps", "codecontests", "codeforces", "taco")
_COMPARED = ("tokens", "lines", "exact", "floats")  # checkers that other harnesses have a counterpart of
_CALL = re.compile(
    r"(?:\(Solution\(\)\.(\w+) if 'Solution' in globals\(\) else \1\)|Solution\(\)\.(\w+)|(\w+))\(\*args\)"
)
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))
_EXTRA = pa.struct(
    [
        ("split", pa.string()),
        ("index", pa.int64()),
        ("problem_id", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("difficulty", pa.string()),
        ("rating", pa.float64()),
        ("checker", pa.large_string()),
        ("cpu_s", pa.float64()),
        ("memory_mb", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)
_TRUTH = [("ground_truth", pa.large_string())]
SCHEMAS = {
    "trl": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("problem_id", pa.string()),
            ("problem", pa.large_string()),
            ("source", pa.string()),
            ("difficulty", pa.string()),
        ]
    ),
    "verl": pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", _MESSAGES),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), *_TRUTH])),
            ("extra_info", _EXTRA),
        ]
    ),
    "skyrl": pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", _MESSAGES),
            ("env_class", pa.string()),
            ("reward_spec", pa.struct([("method", pa.string()), *_TRUTH])),
            ("extra_info", _EXTRA),
        ]
    ),
}


class NotPlain(ValueError):
    """Tests that another harness would judge wrongly; the message says what they need."""


@dataclass
class Export:
    """What was written: rows, and (problem id, reason) of every problem left out."""

    path: Path
    rows: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        reasons: dict[str, int] = {}
        for _, reason in self.left_out:
            reasons[reason] = reasons.get(reason, 0) + 1
        parts = [f"{count} left out: {reason}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
        return "\n".join([f"{self.path}: {self.rows} rows", *parts])


def write_export(
    layout: str,
    problems: Iterable[Problem],
    path: Path,
    options: OutputOptions,
    *,
    split: str = "train",
    own_reward: bool = False,
) -> Export:
    """Writes the problems in a trainer's layout to a parquet file.

    With `own_reward` the ground truth of verl and SkyRL rows is the whole problem, for `rlvr.rewards.external`;
    without it, what those trainers' own rewards read, and problems they would judge wrongly are left out and counted.
    """
    export = Export(path)
    save_table(_rows(layout, problems, options, export, split, own_reward), SCHEMAS[layout], path)
    return export


def export_rows(
    layout: str,
    problems: Iterable[Problem],
    path: Path,
    options: OutputOptions,
    *,
    split: str = "train",
    own_reward: bool = False,
) -> Export:
    """What `write_export` would write and leave out, with nothing written."""
    export = Export(path)
    for _ in _rows(layout, problems, options, export, split, own_reward):
        pass
    return export


def _rows(
    layout: str, problems: Iterable[Problem], options: OutputOptions, export: Export, split: str, own_reward: bool
) -> Iterator[dict[str, Any]]:
    make = {"trl": _trl_row, "verl": _verl_row, "skyrl": _skyrl_row}[layout]
    for problem in problems:
        try:
            row = make(problem, options, split, export.rows, own_reward)
        except NotPlain as reason:
            export.left_out.append((problem.id, str(reason)))
        else:
            export.rows += 1
            yield row


def problem_json(problem: Problem) -> str:
    """The problem as JSON without its solutions, for columns that a reward function reads."""
    return problem.model_dump_json(exclude=set(WITHHELD), exclude_defaults=True)


def plain_tests(problem: Problem) -> tuple[str, list[tuple[Any, Any]]]:
    """(function name or "", pairs): texts of standard input and output, or argument lists and expected values.

    Raises NotPlain for problems whose tests or comparison need our judge.
    """
    if problem.interactor:
        raise NotPlain("it is interactive")
    if problem.input_file or problem.output_file:
        raise NotPlain("its programs read and write files")
    if problem.checker.partition(":")[0] not in _COMPARED:
        raise NotPlain(f"its checker is {problem.checker.partition(':')[0]}")
    if not problem.tests:
        raise NotPlain("it has no tests")
    if all(test.call is None for test in problem.tests):
        return "", [(test.input, test.output) for test in problem.tests]
    if not _imports_only(problem.preamble):
        raise NotPlain("its programs need definitions that are given")
    calls = [_plain_call(test) for test in problem.tests]
    names = {name for name, _, _ in calls}
    if len(names) > 1:
        raise NotPlain("its tests call more than one function")
    return names.pop(), [(arguments, value) for _, arguments, value in calls]


def _plain_call(test: Test) -> tuple[str, list[Any], Any]:
    match = _CALL.fullmatch(test.call or "")
    if match is None or not test.input:
        raise NotPlain("its calls are more than a function on JSON arguments")
    try:
        arguments, value = json.loads(test.input), json.loads(test.output)
    except ValueError:  # integers beyond the digit limit
        raise NotPlain("its integers are too long for other readers") from None
    if _tagged(value):
        raise NotPlain("its values are sets or have keys that are no text")
    return match[1] or match[2] or match[3], arguments, value


def _tagged(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.keys() & {"__set__", "__dict__", "__int__"}) or any(map(_tagged, value.values()))
    return isinstance(value, list) and any(map(_tagged, value))


def _imports_only(preamble: str) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom | ast.Assign) for node in ast.parse(preamble).body)


def _trl_row(problem: Problem, options: OutputOptions, split: str, index: int, own: bool) -> dict[str, Any]:
    return {
        "prompt": _prompt(problem, options),
        "problem_id": problem.id,
        "problem": problem_json(problem),
        "source": problem.source,
        "difficulty": problem.difficulty,
    }


def _verl_row(problem: Problem, options: OutputOptions, split: str, index: int, own: bool) -> dict[str, Any]:
    if own:
        source, truth = OWN, problem_json(problem)
    else:
        name, pairs = plain_tests(problem)
        source = next((known for known in VERL_SOURCES if known == problem.source.replace("_", "")), VERL_SOURCES[1])
        truth = json.dumps(
            {
                "inputs": [_lines(given) if name else given for given, _ in pairs],
                "outputs": [json.dumps(expected) if name else expected for _, expected in pairs],
                **({"fn_name": name} if name else {}),
            }
        )
    return {
        "data_source": source,
        "prompt": _prompt(problem, options),
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": _extra(problem, split, index),
    }


def _skyrl_row(problem: Problem, options: OutputOptions, split: str, index: int, own: bool) -> dict[str, Any]:
    if own:
        truth = problem_json(problem)
    else:
        name, pairs = plain_tests(problem)
        truth = json.dumps(
            [
                {
                    "input": _lines(given) if name else given,
                    "output": json.dumps(expected) if name else expected,
                    "testtype": "functional" if name else "stdin",
                    "metadata": {"func_name": name or None},
                }
                for given, expected in pairs
            ]
        )
    return {
        "data_source": OWN if own else "livecodebench",
        "prompt": _prompt(problem, options),
        "env_class": OWN if own else "lcb",
        "reward_spec": {"method": "rule", "ground_truth": truth},
        "extra_info": _extra(problem, split, index),
    }


def _lines(arguments: list[Any]) -> str:
    return "\n".join(map(json.dumps, arguments))


def _prompt(problem: Problem, options: OutputOptions) -> list[dict[str, str]]:
    return chat_prompt(problem, options.template, options.system, options.language)


def _extra(problem: Problem, split: str, index: int) -> dict[str, Any]:
    values = {name: getattr(problem, name) for name in _EXTRA_FROM_PROBLEM}
    return {"split": split, "index": index, "problem_id": problem.id, **values}


_EXTRA_FROM_PROBLEM = ("source", "license", "difficulty", "rating", "checker", "cpu_s", "memory_mb", "fingerprint")
