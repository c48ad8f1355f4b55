"""Running many programs for a stage: one retry after a failure of the judge itself, then an error, never a verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import sandbox
from data_curation.schema import Problem, Solution, Test
from data_curation.stages.result import Workplace, parts_of
from data_curation.stages.threads import in_threads, waiting_threads

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
    """(index, judgement) of every submission, stopping each at its first failing test."""
    yield from _twice(submissions, what, lambda some: work.track(_judged(some, work), len(some), what, "program"))


def judge_few(submissions: Sequence[sandbox.Submission], what: str) -> Iterator[tuple[int, sandbox.Judgement]]:
    """As `judge_all`, all at once and without a bar: for one of several threads."""
    yield from _twice(submissions, what, lambda some: sandbox.as_completed(some, stop="first_failure"))


def _twice(
    submissions: Sequence[sandbox.Submission],
    what: str,
    judged: Callable[[Sequence[sandbox.Submission]], Iterable[tuple[int, sandbox.Judgement]]],
) -> Iterator[tuple[int, sandbox.Judgement]]:
    failed: list[int] = []
    for index, judgement in judged(submissions):
        if judgement.verdict.is_infrastructure:
            failed.append(index)
        else:
            yield index, judgement
    message = ""
    still_failing = 0
    for position, judgement in judged([submissions[index] for index in failed]) if failed else ():
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
    """(index, judgement) in order; few are with the workers at once, so that large inputs are not all copied."""
    if work.machines is not None:
        yield from enumerate(chain.from_iterable(work.map(_judged_part, parts_of(submissions, PART_PROGRAMS))))
        return
    for index, (_, judgement) in enumerate(in_threads(_judged_one, submissions, waiting_threads())):
        yield index, judgement


def _judged_one(submission: sandbox.Submission) -> sandbox.Judgement:
    return sandbox.judge_batch([submission], stop="first_failure")[0]


def _judged_part(submissions: Sequence[sandbox.Submission]) -> list[sandbox.Judgement]:
    return sandbox.judge_batch(submissions, stop="first_failure")


def runnable_languages() -> frozenset[str]:
    """The languages whose toolchain this machine has."""
    return frozenset(name for name, remedy in sandbox.languages.available().items() if remedy is None)
