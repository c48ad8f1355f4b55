"""Running many programs for a stage: one retry after a failure of the judge itself, then an error, never a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sandbox
from data_curation.schema import Problem, Solution, Test
from data_curation.stages.result import Workplace


class JudgeFailure(RuntimeError):
    """The sandbox could not run some programs even at the second try; curation cannot tell what they are worth."""


def submission(problem: Problem, solution: Solution, tests: Sequence[Test] | None = None) -> sandbox.Submission:
    """The solution to be run on the problem's tests (or on `tests`) under the problem's limits and checker."""
    return sandbox.Submission(
        code=solution.code,
        tests=[test.case() for test in (problem.tests if tests is None else tests)],
        language=solution.language,
        limits=problem.limits,
        checker=problem.checker,
    )


def judge_all(
    submissions: Sequence[sandbox.Submission], work: Workplace, what: str
) -> Iterator[tuple[int, sandbox.Judgement]]:
    """(index, judgement) of every submission as they finish, stopping each at its first failing test."""
    failed: list[int] = []
    finished = sandbox.as_completed(submissions, stop="first_failure")
    for index, judgement in work.track(finished, len(submissions), what, "program"):
        if judgement.verdict.is_infrastructure:
            failed.append(index)
        else:
            yield index, judgement
    message = ""
    still_failing = 0
    for position, judgement in sandbox.as_completed([submissions[i] for i in failed], stop="first_failure"):
        if judgement.verdict.is_infrastructure:
            still_failing, message = still_failing + 1, judgement.message
        else:
            yield failed[position], judgement
    if still_failing:
        raise JudgeFailure(
            f"{what}: the sandbox failed on {still_failing} of {len(submissions)} programs ({message}); "
            "run the same command again to continue, or `rlvr doctor` to see what this machine lacks"
        )


def runnable_languages() -> frozenset[str]:
    """The languages whose toolchain this machine has."""
    return frozenset(name for name, remedy in sandbox.languages.available().items() if remedy is None)
