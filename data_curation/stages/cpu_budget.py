"""Running the programs of one problem within a budget of CPU seconds, so that no slow problem holds up the others."""

from __future__ import annotations

from collections.abc import Sequence

import sandbox
from data_curation.schema import Problem, Solution, Test
from data_curation.stages.judging import JudgeFailure, submission
from sandbox import CaseResult, Verdict


class BudgetSpent(Exception):
    """The programs took more CPU seconds than the problem may have."""


class CpuBudget:
    """CPU seconds that are left for a problem's programs; a run that spends the last of them raises BudgetSpent.

    What one call of the sandbox may cost at worst stays below what is left, but for a single program on a single test.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def run(
        self,
        problem: Problem,
        programs: Sequence[Solution],
        tests: Sequence[Test],
        *,
        every_test: bool = False,
        keep_output: bool = False,
    ) -> list[list[CaseResult]]:
        """For each program its results test by test, up to the first failure unless `every_test`."""
        found: list[list[CaseResult]] = [[] for _ in programs]
        running = list(range(len(programs)))
        start = 0
        while running and start < len(tests):
            some = tests[start : start + self._affordable(problem.cpu_s)]
            place = 0
            while place < len(running):
                group = running[place : place + self._affordable(problem.cpu_s * len(some))]
                judgements = sandbox.judge_batch(
                    [submission(problem, programs[number], some) for number in group],
                    stop="never" if every_test else "first_failure",
                    keep_output=keep_output,
                )
                for number, judgement in zip(group, judgements, strict=True):
                    found[number] += _cases(judgement, len(some))
                self._spend(judgements)
                place += len(group)
            start += len(some)
            running = [number for number in running if every_test or passes(found[number])]
        return found

    def _affordable(self, seconds: float) -> int:
        """How many runs of `seconds` at worst are within what is left; at least one."""
        return max(1, int(self.left / seconds))

    def _spend(self, judgements: Sequence[sandbox.Judgement]) -> None:
        for case in (case for judgement in judgements for case in judgement.cases):
            self.left -= case.wall_s if case.verdict is Verdict.ILE else case.cpu_s
        if self.left <= 0:
            raise BudgetSpent


def passes(cases: Sequence[CaseResult]) -> bool:
    """Whether every result so far is right."""
    return all(case.verdict is Verdict.AC for case in cases)


def _cases(judgement: sandbox.Judgement, tests: int) -> list[CaseResult]:
    """The results, one a test that was run; a program that does not compile has that result on every test."""
    if judgement.verdict.is_infrastructure:
        message = f"strengthen: the sandbox failed ({judgement.message}); run the same command again to continue"
        raise JudgeFailure(message)
    return list(judgement.cases) or [CaseResult(judgement.verdict, message=judgement.message)] * tests
