"""APPS and TACO: solutions and tests as JSON in text; TACO adds limits, topics as Python literals, spaced names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_curation.schema import Problem
from data_curation.sources.calls import PREAMBLE
from data_curation.sources.decoding import Unreadable, decoded, optional, strings, text
from data_curation.sources.testcases import checker_for, paired_tests, solutions_of, starter_for
from data_curation.sources.units import day, megabytes, seconds

COLUMNS = frozenset({"question", "solutions", "input_output", "starter_code", "url"})
TACO_COLUMNS = COLUMNS | {"raw_tags", "skill_types", "Expected Auxiliary Space"}
_UNLABELLED = "unknown_difficulty"


def apps_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of an APPS row. `solutions` and `input_output` may be empty text; then there are none."""
    name = row.get("problem_id", row.get("id"))
    return _problem(row, f"apps/{number if name is None else name}", "apps", "MIT")


def taco_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of a TACO row, with its limits, platform, topics and skills."""
    problem = _problem(row, f"taco/{number}", "taco", "")
    expected = [(key, optional(row.get(f"Expected {key.title()}"))) for key in ("auxiliary space", "time complexity")]
    return problem.model_copy(
        update={
            "title": optional(row.get("name")),
            "cpu_s": seconds(row.get("time_limit")) or problem.cpu_s,
            "memory_mb": megabytes(row.get("memory_limit")) or problem.memory_mb,
            "date": day(row.get("date")),
            "tags": [
                *problem.tags,
                *strings(row.get("tags"), "tags"),
                *(f"skill:{skill}" for skill in strings(row.get("skill_types"), "skill_types")),
                *([f"platform:{row['source']}"] if optional(row.get("source")) else []),
                *(f"expected {key}:{value}" for key, value in expected if value),
                *(["pictures"] if optional(row.get("picture_num")) not in ("", "0") else []),
            ],
        }
    )


def _problem(row: Mapping[str, Any], name: str, source: str, licence: str) -> Problem:
    solutions = solutions_of(row.get("solutions"), "solutions")
    pairs = decoded(row.get("input_output"), "input_output")
    if pairs is None:
        raise Unreadable("no tests: `input_output` is empty")
    function = optional(pairs.get("fn_name")) if isinstance(pairs, Mapping) else ""
    starter = starter_for(function, optional(row.get("starter_code")), solutions)
    tests = paired_tests(pairs, "input_output", starter)
    if not tests:
        raise Unreadable("no tests: `input_output` has no inputs")
    statement = text(row, "question")
    difficulty = optional(row.get("difficulty")).casefold()
    return Problem(
        id=name,
        statement=statement,
        starter_code=starter,
        preamble=PREAMBLE if function else "",
        tests=tests,
        checker=checker_for(tests, statement),
        solutions=solutions,
        difficulty="" if difficulty == _UNLABELLED else difficulty,
        source=source,
        license=licence,
        url=optional(row.get("url")),
    )
