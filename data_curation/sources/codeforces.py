"""open-r1's Codeforces set: problems with official tests and generated checkers, tests apart, labelled submissions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_curation.schema import Problem, Solution, Test
from data_curation.sources.decoding import Unreadable, objects, optional, strings, text
from data_curation.sources.places import Place, find_place, part_of
from data_curation.sources.tables import rows_of
from data_curation.sources.testcases import checker_for, distinct, mark_samples, stdin_test
from data_curation.sources.units import day, megabytes, number, seconds
from sandbox.checkers import user

COLUMNS = frozenset({"contest_id", "index", "official_tests", "official_tests_complete", "generated_checker"})
SUBMISSION_COLUMNS = frozenset({"submission_id", "problem_id", "programmingLanguage", "verdict", "source"})

# A generated checker is called with three paths and prints a score from 0 to 1. It is run as an output validator, which
# finds two of them, is given the output, and says 42 or 43. A checker that fails on an output (of a form it does not
# expect) has not accepted it: so says the published harness.
_CHECKER = """\
import contextlib, io, os, sys
given, expected, feedback = sys.argv[1:4]
output = os.path.join(feedback, "output.txt")
with open(output, "wb") as file:
    file.write(sys.stdin.buffer.read())
sys.argv = ["checker.py", given, expected, output]
printed = io.StringIO()
try:
    with contextlib.redirect_stdout(printed):
        exec(compile({source!r}, "checker.py", "exec"), {{"__name__": "__main__"}})
except SystemExit:
    pass
except MemoryError:
    raise
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(43)
words = printed.getvalue().split()
sys.exit(42 if words and words[-1] in ("1", "1.0", "True") else 43)
"""
_GENERATED = "generated_tests"
_TESTS = re.compile(r"(?:^|/)test_cases_\d+\.parquet$")


def problem_files(names: list[str], part: str) -> list[str]:
    """The files of a part that hold problems: those of the generated tests do not."""
    return [name for name in part_of(names, part) if _GENERATED not in name.split("/") and not _TESTS.search(name)]


def bind(place: Place, options: Mapping[str, str]) -> Callable[[Mapping[str, Any], int], Problem]:
    """A reader that adds the generated tests of `generated_tests/test_cases_0001.parquet`, one file a contest.

    They are looked for in the data set itself, or in the folder that the option `tests` names. At most `generated`
    of them are taken per problem (default 64, "0" for none). The option `submissions` names labelled programs, of
    which each problem gets some.
    """
    where = find_place(options["tests"]) if "tests" in options else place
    most = options.get("generated", "64")
    if not most.isdecimal():
        raise ValueError(f"option `generated` must be a number of tests, got {most!r}")
    programs = read_submissions(options["submissions"], _ids(place)) if "submissions" in options else {}
    there = {Path(name).name: name for name in where.names() if _TESTS.search(name)}

    @lru_cache(maxsize=4)  # rows of one contest mostly follow each other
    def contest(number: str) -> dict[str, list[Test]]:
        name = there.get(f"test_cases_{number.zfill(4)}.parquet")
        return {} if name is None else _generated(where.file(name), int(most))

    def read(row: Mapping[str, Any], row_number: int) -> Problem:
        problem = codeforces_problem(row, row_number, with_tests=not row.get("generated_tests"))
        if int(row.get("generated_tests") or 0) and int(most):
            extra = contest(optional(row.get("contest_id"))).get(optional(row.get("id")), [])
            tests = distinct([*problem.tests, *extra])
            missing = {"generated tests are missing"} if not extra else set()
            tags = [tag for tag in problem.tags if tag != "generated tests not read"]
            problem = problem.model_copy(update={"tests": tests, "tags": [*tags, *missing]})
        if problem.id.removeprefix("codeforces/") in programs:
            problem = problem.model_copy(update={"solutions": programs[problem.id.removeprefix("codeforces/")]})
        if not problem.tests:
            raise Unreadable(f"no tests: none official, and none generated under {_GENERATED}/")
        return problem

    return read


def _ids(place: Place) -> set[str]:
    """The ids of all problems of a data set, read without their tests where the file's kind allows it."""
    found: set[str] = set()
    for name in problem_files(place.names(), ""):
        path = place.file(name)
        if path.suffix == ".parquet":
            found.update(map(str, pq.read_table(path, columns=["id"])["id"].to_pylist()))
        else:
            found.update(str(row["id"]) for _, row in rows_of(path) if isinstance(row, Mapping) and row.get("id"))
    return found


def _generated(path: Path, most: int) -> dict[str, list[Test]]:
    """The first `most` tests of every problem in a file of generated tests, in the order of their numbers."""
    found: dict[str, list[tuple[int, Test]]] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64):
            for place, row in enumerate(batch.to_pylist()):
                tests = found.setdefault(str(row["problem_id"]), [])
                tests.append((int(row.get("test_i", place) or 0), stdin_test(row["input"], row["output"])))
    return {name: [test for _, test in sorted(tests, key=lambda item: item[0])[:most]] for name, tests in found.items()}


def codeforces_problem(row: Mapping[str, Any], row_number: int, *, with_tests: bool = True) -> Problem:
    """The problem of one row with its official tests. `official_tests_complete` false: the long ones are not there."""
    name = optional(row.get("id")) or f"{row['contest_id']}/{row['index']}"
    examples = objects(row.get("examples"), "examples")
    tests = distinct(
        stdin_test(case["input"], case["output"])
        for case in (*objects(row.get("official_tests"), "official_tests"), *examples)
    )
    if with_tests and not tests:
        raise Unreadable("no tests: `official_tests` is empty")
    statement = codeforces_statement(row, examples)
    checker = optional(row.get("generated_checker"))
    if checker:
        _check_python(checker)
    interactive = bool(optional(row.get("interaction_format")))
    by_file = optional(row.get("input_mode")) == "file"
    return Problem(
        id=f"codeforces/{name}",
        title=optional(row.get("title")),
        statement=statement,
        tests=mark_samples(tests, (case["input"] for case in examples)),
        cpu_s=seconds(row.get("time_limit")) or 2.0,
        memory_mb=megabytes(row.get("memory_limit")) or 256,
        checker=user.spec("kattis", _CHECKER.format(source=checker), "python")
        if checker
        else checker_for(tests, statement),
        input_file="input.txt" if by_file else "",
        output_file="output.txt" if by_file else "",
        rating=number(row.get("rating")),
        tags=[
            *strings(row.get("tags"), "tags"),
            f"contest:{optional(row.get('contest_id'))}",
            *(f"same as:{alias}" for alias in strings(row.get("aliases"), "aliases")),
            *([] if row.get("official_tests_complete") else ["official tests incomplete"]),
            *(["generated tests not read"] if row.get("generated_tests") else []),
            *(["interactive"] if interactive else []),
        ],
        date=day(row.get("contest_start") or row.get("contest_start_year"), "contest_start"),
        source="codeforces",
        license="CC-BY-4.0",
        url=f"https://codeforces.com/problemset/problem/{name}",
    )


def _check_python(code: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "checker.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise Unreadable(f"`generated_checker` is no Python: {error}") from None


def codeforces_statement(row: Mapping[str, Any], examples: list[dict[str, Any]]) -> str:
    """The parts of a statement put together in the order of the site."""
    parts = [text(row, "description")]
    for column, heading in (
        ("input_format", "Input"),
        ("output_format", "Output"),
        ("interaction_format", "Interaction"),
    ):
        part = optional(row.get(column)).strip()
        if part:
            parts.append(f"## {heading}\n\n{part}")
    for number_of, example in enumerate(examples, start=1):
        given, expected = str(example["input"]).strip("\n"), str(example["output"]).strip("\n")
        parts.append(f"## Example {number_of}\n\nInput:\n```\n{given}\n```\n\nOutput:\n```\n{expected}\n```")
    note = optional(row.get("note")).strip()
    return "\n\n".join([*parts, *([f"## Note\n\n{note}"] if note else [])])


_VERDICTS = {
    "OK": "accepted",
    "WRONG_ANSWER": "wrong_answer",
    "TIME_LIMIT_EXCEEDED": "time_limit_exceeded",
    "RUNTIME_ERROR": "run_time_error",
}
_SUBMITTED = (
    ("python", r"python 3|pypy 3"),
    ("cpp", r"c\+\+|gnu c11"),
    ("java", r"^java"),
    ("rust", r"rust"),
    ("go", r"^go"),
)


def read_submissions(where: str, problems: set[str], most: int = 8) -> dict[str, list[Solution]]:
    """Labelled programs of open-r1/codeforces-submissions for the named problems ("1/A"), up to `most` of each
    verdict.

    Verdicts that say nothing of the tests (compilation error, skipped, challenged) are passed over.
    """
    found: dict[str, list[Solution]] = {}
    place = find_place(where)
    for name in place.names():
        if not name.endswith((".parquet", ".jsonl", ".jsonl.gz", ".arrow")):
            continue
        for solution, problem in _submissions(place.file(name), problems):
            kept = found.setdefault(problem, [])
            if sum(other.verdict == solution.verdict for other in kept) < most and solution not in kept:
                kept.append(solution)
    return found


def _submissions(path: Path, problems: set[str]) -> Iterator[tuple[Solution, str]]:
    for _, row in rows_of(path):
        if not isinstance(row, Mapping) or row.get("problem_id") not in problems:
            continue
        language = optional(row.get("programmingLanguage")).casefold()
        name = next((known for known, pattern in _SUBMITTED if re.search(pattern, language)), None)
        verdict = _VERDICTS.get(optional(row.get("verdict")))
        code = optional(row.get("source"))
        if name and verdict and code.strip():
            note = f"submission {row.get('submission_id')}"
            yield Solution(code=code, language=name, verdict=verdict, note=note), str(row["problem_id"])  # type: ignore[arg-type]
