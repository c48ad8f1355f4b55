"""Cheap reasons to drop a problem: nothing to judge with, nothing to read, nothing that could run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from data_curation.config import FilterOptions
from data_curation.schema import Problem
from data_curation.stages.result import Dropped, StageResult, Workplace
from sandbox import checkers, languages


def filter_problems(problems: Sequence[Problem], options: FilterOptions, work: Workplace) -> StageResult:
    """Drops problems by the rules of `fault`; solutions in unknown languages are taken out and counted."""
    known = frozenset(languages.names())
    kept, dropped, removed = [], [], 0
    for problem in problems:
        found = fault(problem, options, known)
        if found is not None:
            dropped.append(Dropped(problem.id, *found))
            continue
        solutions = [solution for solution in problem.solutions if solution.language in known]
        removed += len(problem.solutions) - len(solutions)
        kept.append(problem.model_copy(update={"solutions": solutions}))
    return StageResult(kept, dropped, {"solutions in unknown languages removed": removed})


def fault(problem: Problem, options: FilterOptions, known_languages: Collection[str]) -> tuple[str, str] | None:
    """(reason, detail) of the first rule the problem breaks, None if it breaks none."""
    words = len(problem.statement.split())
    count = len(problem.tests) + (len(problem.generator.arguments) if problem.generator else 0)
    if not problem.statement.strip():
        return "statement is empty", ""
    if words < options.minimum_statement_words:
        return "statement too short", f"{words} words, at least {options.minimum_statement_words} needed"
    if count == 0:
        return "no tests", "neither tests nor a generator"
    if count < options.minimum_tests:
        return "too few tests", f"{count}, at least {options.minimum_tests} needed"
    if not set(problem.languages) & set(known_languages):
        return "unknown language", f"{', '.join(problem.languages)}; known: {', '.join(sorted(known_languages))}"
    if (unknown := _unknown_checker(problem.checker)) is not None:
        return "unknown checker", unknown
    if problem.interactor and (unknown := _unknown_interactor(problem.interactor)) is not None:
        return "unknown interactor", unknown
    if options.samples_in_statement and (missing := _sample_not_shown(problem)):
        return "statement is cut short", f"sample test {missing} is not in it"
    if options.require_solution and not any(s.verdict == "accepted" for s in problem.solutions):
        return "no accepted solution", ""
    return None


def _unknown_checker(spec: str) -> str | None:
    try:
        checkers.find(spec)
    except ValueError as error:
        return str(error)
    return None


def _unknown_interactor(spec: str) -> str | None:
    try:
        return None if checkers.user.parse(spec) is not None else spec[:60]
    except ValueError as error:
        return str(error)


def _sample_not_shown(problem: Problem) -> int | None:
    """Number (from 1) of the first sample test whose input the statement does not show; None if all are there."""
    text = " ".join(problem.statement.casefold().split())
    for number, test in enumerate(problem.tests, start=1):
        if test.sample and test.call is None and " ".join(test.input.casefold().split()) not in text:
            return number
    return None
