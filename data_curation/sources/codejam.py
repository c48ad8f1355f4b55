"""Problems of Google's Code Jam and Kick Start archive: tests in which many cases share a file, limits as text."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from data_curation.schema import NEEDS_CHECKER, Problem
from data_curation.sources.decoding import Unreadable, objects, optional, strings, text
from data_curation.sources.testcases import checker_for, distinct, solutions_of, stdin_test
from data_curation.sources.units import megabytes, seconds

COLUMNS = frozenset({"statement", "tests", "limits_text", "checker", "contest"})
# labels of buttons beside the samples
_CONTROLS = re.compile(r"^[ \t]*(?:save_alt|content_copy|Copied!|Download the Starter Code!)[ \t]*\n", re.MULTILINE)
_TOLERANCE = re.compile(r"float(?:_absolute|_relative)?_tolerance\s+([0-9.eE+-]+)")


def codejam_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of one row. Rows whose checker is their own and not at hand are tagged, not guessed at."""
    tests = distinct(
        stdin_test(case.get("input"), case.get("output"), sample=bool(case.get("sample")))
        for case in objects(row.get("tests"), "tests")
    )
    if not tests:
        raise Unreadable("no tests: `tests` is empty")
    checker = row.get("checker")
    if not isinstance(checker, Mapping) or checker.get("kind") not in ("tokens", "custom"):
        raise Unreadable("`checker` has no kind; expected tokens or custom")
    limits = strings(row.get("limits_text"), "limits_text")
    year = row.get("year")
    return Problem(
        id=text(row, "id"),
        title=optional(row.get("title")),
        statement=_CONTROLS.sub("", text(row, "statement")),
        tests=tests,
        cpu_s=next((found for line in limits if "time" in line.casefold() and (found := seconds(_said(line)))), 2.0),
        memory_mb=next(
            (found for line in limits if "memory" in line.casefold() and (found := megabytes(_said(line)))), 256
        ),
        checker=_checker(optional(checker.get("flags")), checker_for(tests)),
        solutions=solutions_of(row.get("solutions"), "solutions") if row.get("solutions") else [],
        tags=[
            f"contest:{optional(row.get('contest'))}",
            *([NEEDS_CHECKER] if checker["kind"] == "custom" else []),
            *(["tests left out"] if row.get("n_tests_dropped_over_cap") else []),
        ],
        date=datetime.date(year, 1, 1) if isinstance(year, int) else None,
        source="google-codejam",
        license=optional(row.get("license")),
        url=f"https://github.com/{row['source_repo']}/tree/main/{row['source_path']}" if row.get("source_repo") else "",
    )


def _said(line: str) -> str:
    """What follows the colon of "Time limit (for each test set): 10 seconds."; "" if that holds no number."""
    said = line.partition(":")[2].strip().rstrip(".")
    return said if any(map(str.isdigit, said)) else ""


def _checker(flags: str, by_outputs: str) -> str:
    """The archive gives every token comparison a tolerance; it is used where outputs hold decimal fractions.

    With a tolerance, integers would match near misses.
    """
    tolerance = _TOLERANCE.search(flags)
    return f"floats:{tolerance[1]}" if tolerance and by_outputs.startswith("floats") else by_outputs
