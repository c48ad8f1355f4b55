"""Running many programs for a stage: one retry after a failure of the judge itself, then an error, never a verdict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import sandbox
from data_curation.schema import Problem, Solution, Test
from data_curation.stages.result import Workplace, parts_of

WINDOW_PROGRAMS, WINDOW_BYTES = 1000, 64 << 20
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
PART_PROGRAMS = 16  # programs in one call on another machine


class JudgeFailure(RuntimeError):
    """The sandbox could not run some programs even at the second try; curation cannot tell what they are worth."""


@dataclass(frozen=True)
class Run:
    """What became of a program on some tests: verdict, tests passed and given, CPU seconds of the slowest test, and
    the line that tells why it crashed or did not compile."""

    verdict: str
    passed: int
    tests: int
    slowest_s: float = 0.0
    message: str = ""

    @classmethod
    def of(cls, judgement: sandbox.Judgement, tests: int) -> Run:
        slowest = max((case.cpu_s for case in judgement.cases), default=0.0)
        failed = next((case.message for case in judgement.cases if case.verdict is judgement.verdict), "")
        crashed = judgement.verdict in (sandbox.Verdict.RE, sandbox.Verdict.CE)
        # addresses differ between runs, and records do not
        message = _ADDRESS.sub("0x...", failed or judgement.message)[:200] if crashed else ""
        return cls(str(judgement.verdict), judgement.passed, tests, round(slowest, 4), message)


def submission(problem: Problem, solution: Solution, tests: Sequence[Test] | None = None) -> sandbox.Submission:
    """The solution to be run on the problem's tests (or on `tests`) under the problem's limits and checker."""
    return problem.submission(solution.code, solution.language, tests)


def judge_all(
    submissions: Sequence[sandbox.Submission], work: Workplace, what: str
) -> Iterator[tuple[int, sandbox.Judgement]]:
    """(index, judgement) of every submission as they finish, stopping each at its first failing test."""
    failed: list[int] = []
    for index, judgement in work.track(_judged(submissions, work), len(submissions), what, "program"):
        if judgement.verdict.is_infrastructure:
            failed.append(index)
        else:
            yield index, judgement
    message = ""
    still_failing = 0
    for position, judgement in _judged([submissions[index] for index in failed], work):
        if judgement.verdict.is_infrastructure:
            still_failing, message = still_failing + 1, judgement.message
        else:
            yield failed[position], judgement
    if still_failing:
        raise JudgeFailure(
            f"{what}: the sandbox failed on {still_failing} of {len(submissions)} programs ({message}); "
            "run the same command again to continue, or `rlvr doctor` to see what this machine lacks"
        )


def _judged(submissions: Sequence[sandbox.Submission], work: Workplace) -> Iterator[tuple[int, sandbox.Judgement]]:
    """`sandbox.as_completed` in windows, so that large inputs are not all copied for the workers at once."""
    if work.machines is not None:
        yield from enumerate(chain.from_iterable(work.map(_judged_part, parts_of(submissions, PART_PROGRAMS))))
        return
    start = 0
    while start < len(submissions):
        end, size = start, 0
        while end < len(submissions) and end - start < WINDOW_PROGRAMS and size < WINDOW_BYTES:
            size += sum(len(test.input) for test in submissions[end].tests)
            end += 1
        for index, judgement in sandbox.as_completed(submissions[start:end], stop="first_failure"):
            yield start + index, judgement
        start = end


def _judged_part(submissions: Sequence[sandbox.Submission]) -> list[sandbox.Judgement]:
    return sandbox.judge_batch(submissions, stop="first_failure")


def runnable_languages() -> frozenset[str]:
    """The languages whose toolchain this machine has."""
    return frozenset(name for name, remedy in sandbox.languages.available().items() if remedy is None)
