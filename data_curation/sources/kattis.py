"""Problems from packages of the Kattis format (DOMjudge and ICPC archives use it too)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_curation.kattis import Package, PackageError, find_packages, read_package
from data_curation.kattis.submissions import PackageSubmission
from data_curation.kattis.testdata import Test as PackageTest
from data_curation.schema import Problem, Solution, Subtask, Test
from data_curation.sources.rows import RejectedRows, RowError, convert

_DEFAULT_CPU_S = 5.0  # where neither problem.yaml nor .timelimit says; the format would measure, which reading does not
_VERDICTS: dict[str, Literal["accepted", "wrong_answer", "time_limit_exceeded", "run_time_error", "rejected"]] = {
    "accepted": "accepted",
    "slow_accepted": "accepted",
    "wrong_answer": "wrong_answer",
    "time_limit_exceeded": "time_limit_exceeded",
    "run_time_error": "run_time_error",
    "runtime_error": "run_time_error",
    "rejected": "rejected",
    "partially_accepted": "rejected",
    "brute_force": "rejected",
}
_STATEMENTS = ("statement", "problem_statement")
_TYPES = (".md", ".tex")


def read_kattis(place: Path, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of the package at `place`, or of all packages below it. A package that cannot become a problem
    raises RowError, or goes to `rejected` where one is given."""
    packages = ((None, folder) for folder in find_packages(place))
    yield from convert(packages, lambda folder, _: _problem(folder), place, rejected)


def _problem(folder: Path) -> Problem:
    try:
        package = read_package(folder)
    except PackageError as error:
        raise RowError(error.file, None, error.what) from None
    secret = [test for test in package.tests if not test.sample]
    checkers = {package.checker(test) for test in secret or package.tests}
    if len(checkers) > 1:
        raise RowError(folder, None, "groups of tests are checked in different ways, which a problem cannot say")
    checker = checkers.pop()
    tests = [test for test in package.tests if package.checker(test) == checker]  # samples may be checked otherwise
    metadata = package.metadata
    interactor = package.interactor(tests[0])
    return Problem(
        id=package.name,
        title=metadata.name,
        statement=_statement(package),
        tests=[_test(test) for test in tests],
        cpu_s=metadata.time_limit_s or _DEFAULT_CPU_S,
        memory_mb=metadata.memory_mb,
        checker="tokens" if interactor else checker,
        interactor=interactor,
        subtasks=_subtasks(package),
        solutions=[_solution(each) for each in package.submissions if not each.problem and _known(each)],
        tags=list(metadata.keywords),
        source=metadata.source or "kattis",
        license=metadata.license,
    )


def _test(test: PackageTest) -> Test:
    given, answer = test.texts()
    return Test(input=given, output=answer, sample=test.sample, group=test.group)


def _subtasks(package: Package) -> list[Subtask]:
    """Groups of secret tests that are worth points; those that hold other such groups do not count beside them."""
    if not package.metadata.scoring:
        return []
    held = {test.group for test in package.tests}
    worth = [(group.name, group.points) for group in package.groups if group.points and group.name in held]
    return [Subtask(name=name, points=points) for name, points in worth if points is not None]


def _known(submission: PackageSubmission) -> bool:
    return submission.category in _VERDICTS


def _solution(submission: PackageSubmission) -> Solution:
    verdict = _VERDICTS[submission.category]
    return Solution(code=submission.code, language=submission.language, verdict=verdict, note=submission.name)


def _statement(package: Package) -> str:
    text = ""
    for path in _statement_files(package.folder):
        raw = path.read_text(encoding="utf-8", errors="replace")
        text = plain_text(raw) if path.suffix == ".tex" else raw.strip()
        break
    if not text:
        raise RowError(package.folder, None, "no statement in LaTeX or Markdown (statement/problem.en.tex or .md)")
    return text + _samples(package)


def _statement_files(folder: Path) -> list[Path]:
    """Statements in order of preference: English, then any language; Markdown, then LaTeX."""
    found = [
        path
        for place in _STATEMENTS
        for path in sorted((folder / place).glob("problem*"))
        if path.suffix in _TYPES and path.is_file()
    ]
    return sorted(
        found, key=lambda path: (".en." not in path.name and path.stem != "problem", _TYPES.index(path.suffix))
    )


def _samples(package: Package) -> str:
    """Sample tests as the statement shows them; the format keeps them out of the statement's file."""
    if package.metadata.interactive:
        return ""
    parts = []
    for number, test in enumerate((test for test in package.tests if test.sample), start=1):
        given, answer = test.texts()
        parts.append(f"\n\nSample Input {number}\n{given.rstrip()}\n\nSample Output {number}\n{answer.rstrip()}")
    return "".join(parts)


_REPLACED = (
    (r"(?<!\\)%.*", ""),
    (r"\\problemname\{(?:[^{}]|\{[^{}]*\})*\}", ""),
    (r"\\(?:illustration|includegraphics|label|vspace|hspace|input)\*?(?:\[[^\]]*\])?(?:\{[^{}]*\})+", ""),
    (r"\\(?:remainingsamples|nextsample|centering|noindent|newpage|small|large|Large|tt|bf|it|em)\b", ""),
    (r"\\(?:sub)*section\*?\{([^{}]*)\}", r"\n\n\1\n"),
    (r"\\begin\{(Input|Output|Interaction)\}", r"\n\n\1\n"),
    (r"\\item\b[ \t]*", "- "),
    (r"\\(?:begin|end)\{[^{}]*\}(?:\[[^\]]*\]|\{[^{}]*\})*", ""),
    (r"\\(?:textbf|textit|emph|texttt|underline|text|mbox|mathrm|verb\|)\s*\{([^{}]*)\}", r"\1"),
    (r"\\(?:href|url)\{([^{}]*)\}(?:\{([^{}]*)\})?", r"\1"),
    (r"\\(?:leq?)\b", "<="),
    (r"\\(?:geq?)\b", ">="),
    (r"\\(?:neq?)\b", "!="),
    (r"\\(?:ldots|dots|cdots)\b", "..."),
    (r"\\(?:cdot|times)\b", "*"),
    (r"``|''", '"'),
    (r"---?", "-"),
    (r"\\\\", "\n"),
    (r"(?<!\\)~", " "),
    (r"\\([%$&_#{}])", r"\1"),
    (r"\\[,;:! ]", " "),
)


def plain_text(latex: str) -> str:
    """A LaTeX statement as readable text: headings and lists kept, formulas left between their dollar signs."""
    text = latex
    for pattern, replacement in _REPLACED:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
