"""CodeContests (structs of lists, numbered languages and platforms) and CodeContests+ (checkers, validators)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_curation.schema import Problem, Solution, Test
from data_curation.sources.decoding import Unreadable, objects, optional, strings, text
from data_curation.sources.testcases import checker_for, distinct, stdin_test
from data_curation.sources.units import megabytes, number, seconds
from sandbox.checkers import user

COLUMNS = frozenset({"name", "description", "public_tests", "private_tests", "generated_tests", "solutions"})
PLUS_COLUMNS = frozenset({"description", "checker", "validator", "generator"})
ACCEPTED, REJECTED = 16, 32  # programs kept of each kind: some rows hold thousands

_PLATFORMS = {1: "codechef", 2: "codeforces", 3: "hackerearth", 4: "codejam", 5: "atcoder", 6: "atcoder", 7: "aizu"}
_LANGUAGES = {0: "", 1: "python2", 2: "cpp", 3: "python", 4: "java"}
_DIFFICULTIES = {1: "easy", 2: "medium", 3: "hard", 4: "harder", 5: "hardest"}  # 0 unknown, 6 external, from 7 A, B ...
_NAMES = {"py3": "python", "python3": "python", "py2": "python2", "c++": "cpp"}
# what the checkers that come with testlib say of themselves, and the same comparison of ours
_STANDARD = (
    (re.compile(r"compare (?:two )?(?:sequences? of |ordered sequences of signed int64 )?(?:tokens|words)"), "tokens"),
    (
        re.compile(r"compare ordered sequences of signed int|compare two signed (?:int|huge)|single or multiple"),
        "tokens",
    ),
    (re.compile(r"compare files as sequence of lines|compare two? files? as sequences? of (?:lines|tokens)"), "tokens"),
    (re.compile(r"YES or NO|yes/no|case[- ]insensitive"), "yes_no"),
)
_DOUBLES = re.compile(r"compare two (?:sequences of )?doubles")
_TOLERANCE = re.compile(r"EPS\s*=\s*(1[eE]-[0-9]+|0?\.0*1)\b")


def code_contests_problem(row: Mapping[str, Any], row_number: int) -> Problem:
    """The problem of a CodeContests row: public tests are samples, then private, then generated ones."""
    tests: list[Test] = []
    for column in ("public_tests", "private_tests", "generated_tests"):
        for case in objects(row.get(column), column):
            tests.append(stdin_test(case["input"], case["output"], sample=column == "public_tests"))
    tests = distinct(tests)
    if not tests:
        raise Unreadable("no tests: public, private and generated ones are all empty")
    statement, platform = text(row, "description"), _PLATFORMS.get(row.get("source") or 0, "")
    contest, index = int(row.get("cf_contest_id") or 0), optional(row.get("cf_index"))
    difficulty = int(row.get("difficulty") or 0)
    return Problem(
        id=f"code_contests/{text(row, 'name')}",
        title=text(row, "name"),
        statement=statement,
        tests=tests,
        cpu_s=seconds(row.get("time_limit")) or 2.0,
        memory_mb=megabytes(row.get("memory_limit_bytes"), "memory_limit_bytes", unit="bytes") or 256,
        checker=checker_for(tests, statement),
        input_file=optional(row.get("input_file")),
        output_file=optional(row.get("output_file")),
        solutions=[
            *_solutions(row, "solutions", "accepted", ACCEPTED),
            *_solutions(row, "incorrect_solutions", "rejected", REJECTED),
        ],
        rating=number(row.get("cf_rating")),
        difficulty=_DIFFICULTIES.get(difficulty, chr(ord("a") + difficulty - 7) if 7 <= difficulty <= 28 else ""),
        tags=[
            *([f"platform:{platform}"] if platform else []),
            *strings(row.get("cf_tags"), "cf_tags"),
            *(["translated"] if row.get("is_description_translated") else []),
        ],
        source="code_contests",
        license="CC-BY-4.0",
        url=f"https://codeforces.com/problemset/problem/{contest}/{index}" if contest and index else "",
    )


def code_contests_plus_problem(row: Mapping[str, Any], row_number: int) -> Problem:
    """The problem of a CodeContests+ row; a checker in testlib's C++ that only compares tokens becomes one of ours.

    The rates that the set's authors measured are kept as tags. Their generators and validators are C++ for testlib and
    are not run.
    """
    name = optional(row.get("id")) or optional(row.get("name")) or str(row_number)
    tests = [
        stdin_test(case["input"], case["output"], sample=column == "public_tests")
        for column in ("public_tests", "private_tests", "test_cases", "generated_tests")
        for case in objects(row.get(column), column)
    ]
    tests = distinct(tests)
    if not tests:
        raise Unreadable("no tests: this is the part without them; read one of ccplus_1x to ccplus_5x")
    statement = text(row, "description")
    limit = row.get("time_limit")
    if isinstance(limit, int | float) and limit >= 100:  # this set counts in milliseconds
        limit = limit / 1000
    return Problem(
        id=f"code_contests_plus/{name}",
        title=optional(row.get("title") or row.get("name")),
        statement=statement,
        tests=tests,
        cpu_s=seconds(limit) or 2.0,
        memory_mb=megabytes(row.get("memory_limit"))
        or megabytes(row.get("memory_limit_bytes"), "memory_limit_bytes", unit="bytes")
        or 256,
        checker=testlib_checker(optional(row.get("checker"))) or checker_for(tests, statement),
        solutions=[
            *_solutions(row, "correct_submissions", "accepted", ACCEPTED),
            *_solutions(row, "solutions", "accepted", ACCEPTED),
            *_solutions(row, "incorrect_submissions", "rejected", REJECTED),
            *_solutions(row, "incorrect_solutions", "rejected", REJECTED),
        ],
        rating=number(row.get("cf_rating")),
        tags=[
            *([f"platform:{optional(row.get('source')).casefold()}"] if isinstance(row.get("source"), str) else []),
            *(f"{key}:{row[key]:.3f}" for key in _RATES if isinstance(row.get(key), int | float)),
        ],
        source="code_contests_plus",
        license="CC-BY-4.0",
    )


_RATES = ("true_positive_rate", "true_negative_rate")


def testlib_checker(source: str) -> str:
    """Our name for a testlib checker in C++ that only compares tokens, lines or numbers; else "testlib:SOURCE"."""
    if not source.strip():
        return ""
    if _DOUBLES.search(source):
        tolerance = _TOLERANCE.search(source)
        return f"floats:{tolerance[1] if tolerance else '1e-6'}"
    for pattern, name in _STANDARD:
        if pattern.search(source):
            return name
    return user.spec("testlib", source)


def _solutions(row: Mapping[str, Any], column: str, verdict: str, most: int) -> list[Solution]:
    """Up to `most` different programs of a column, those in languages we may run first."""
    found: dict[str, Solution] = {}
    for item in objects(row.get(column), column):
        code = optional(item.get("solution", item.get("code")))
        if code.strip():
            language = _language(item.get("language"))
            found.setdefault(code, Solution(code=code, language=language, verdict=verdict))  # type: ignore[arg-type]
    return _chosen(found.values(), most)


def _chosen(solutions: Iterable[Solution], most: int) -> list[Solution]:
    usable = [solution for solution in solutions if solution.language not in ("", "python2")]
    by_language: dict[str, list[Solution]] = {}
    for solution in usable:
        by_language.setdefault(solution.language, []).append(solution)
    chosen: list[Solution] = []
    while len(chosen) < most and any(by_language.values()):  # a mix of languages, each in the set's order
        for language in sorted(by_language):
            if by_language[language] and len(chosen) < most:
                chosen.append(by_language[language].pop(0))
    return chosen


def _language(value: Any) -> str:
    if isinstance(value, int):
        return _LANGUAGES.get(value, "")
    name = optional(value).casefold()
    return _NAMES.get(name, name)
