"""LiveCodeBench, code generation: rows of test.jsonl, test2.jsonl ... with public and (packed) private tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_curation.schema import Problem, Test
from data_curation.sources.calls import PREAMBLE
from data_curation.sources.decoding import Unreadable, decoded, objects, optional, packed_json, text
from data_curation.sources.testcases import argument_list, called_tests, checker_for, distinct, stdin_test
from data_curation.sources.units import day
from sandbox import languages

COLUMNS = frozenset({"question_content", "public_test_cases", "private_test_cases", "metadata"})
LATEST = 6
PYTHON_SECONDS = 6.0  # per test in the published evaluation; a problem's limit is that of C++
_RELEASE = re.compile(r"release_(?:v([1-9])|latest)|v([1-9])(?:_v([1-9]))?")


def livecodebench_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of one row. Functional tests become calls of `metadata.func_name`, one JSON argument a line."""
    metadata = decoded(row.get("metadata"), "metadata") or {}
    if not isinstance(metadata, Mapping):
        raise Unreadable(f"`metadata`: expected an object, got {type(metadata).__name__}")
    starter = optional(row.get("starter_code"))
    name = optional(metadata.get("func_name"))
    tests: list[Test] = []
    for column in ("public_test_cases", "private_test_cases"):
        cases = objects(packed_json(row.get(column), column), column)
        tests += [_test(case, column, name, starter, column == "public_test_cases") for case in cases]
    tests = distinct(tests)
    if not tests:
        raise Unreadable("no tests: `public_test_cases` and `private_test_cases` are empty")
    platform = optional(row.get("platform"))
    statement = text(row, "question_content")
    return Problem(
        id=f"livecodebench/{optional(row.get('question_id')) or number}",
        title=optional(row.get("question_title")),
        statement=statement,
        starter_code=starter,
        preamble=PREAMBLE,  # the published evaluation puts such imports before every program
        tests=tests,
        cpu_s=PYTHON_SECONDS / languages.find("python").factor,
        memory_mb=1024,
        checker=checker_for(tests, statement),
        difficulty=optional(row.get("difficulty")),
        tags=[f"{key}:{value}" for key, value in (("platform", platform), ("contest", row.get("contest_id"))) if value],
        date=day(row.get("contest_date"), "contest_date"),
        source="livecodebench",
        url="https://huggingface.co/datasets/livecodebench/code_generation_lite",
    )


def release_files(names: Sequence[str], part: str) -> list[str]:
    """The files of a release: "release_v5" is everything up to test5.jsonl, "v5" that file alone, "v2_v4" a range.

    "test5.jsonl" names a file; "" and "release_latest" mean all. ValueError for anything else.
    """
    files = {found: name for name in names if (found := _file_number(name)) is not None}
    match = _RELEASE.fullmatch(part or "release_latest")
    if match is None:
        chosen = [name for name in names if name.rpartition("/")[2].partition(".")[0] == part.partition(".")[0]]
        if not chosen:
            raise ValueError(f"{part!r} is no release of LiveCodeBench; known are release_v1 to release_v6, v5, v1_v3")
        return chosen
    upto, first, last = (int(group) if group else 0 for group in match.groups())
    low, high = (first, last or first) if first else (1, upto or max(files, default=LATEST))
    missing = [n for n in range(low, high + 1) if n not in files]
    if missing and (part or "release_latest") != "release_latest":
        absent = ", ".join("test.jsonl" if n == 1 else f"test{n}.jsonl" for n in missing)
        raise ValueError(f"LiveCodeBench {part}: {absent} is not there")
    return [files[n] for n in range(low, high + 1) if n in files]


def _file_number(name: str) -> int | None:
    match = re.fullmatch(r"test([2-9]?)\.jsonl(?:\.gz)?", name.rpartition("/")[2])
    return int(match[1] or 1) if match else None


def _test(case: Mapping[str, Any], column: str, name: str, starter: str, sample: bool) -> Test:
    kind = case.get("testtype")
    if "input" not in case or "output" not in case or kind not in ("stdin", "functional"):
        raise Unreadable(f"`{column}`: a test needs `input`, `output` and `testtype` (stdin or functional)")
    if kind == "stdin":
        return stdin_test(case["input"], case["output"], sample=sample)
    if not name:
        raise Unreadable("functional tests, but `metadata` has no func_name")
    (test,) = called_tests(name, [argument_list(str(case["input"]))], [decoded(case["output"], column)], starter)
    return test.model_copy(update={"sample": sample})
