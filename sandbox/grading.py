"""From the facts of runs to a judgement: comparison, early stop, verdict of the whole program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sandbox.cases import TestCase
from sandbox.checkers import Checker
from sandbox.execution.job import Facts, RunInput
from sandbox.verdicts import CaseResult, Judgement, Verdict

_KEPT_OUTPUT = 64 << 10
_SKIPPED = CaseResult(Verdict.SKIPPED)


def allowed_failures(stop: str) -> int | None:
    """Failing tests after which judging stops; None for never. ValueError for an unknown rule."""
    if stop == "first_failure":
        return 1
    if stop == "never":
        return None
    name, _, number = stop.partition("=")
    if name == "max_failures" and number.isdecimal() and int(number) > 0:
        return int(number)
    raise ValueError(f"unknown stop rule {stop!r}: known are first_failure, never, max_failures=K")


def run_input(test: TestCase) -> RunInput:
    """What of a test enters the box: never its output."""
    data = test.input.encode("utf-8", "surrogateescape")
    return RunInput(data, None if test.call is None else test.call.encode("utf-8", "surrogateescape"))


@dataclass(eq=False, slots=True)
class Grading:
    """One program on its tests. Fed by the pool's thread, ends with `deliver(judgement)`, once."""

    tests: Sequence[TestCase]
    checker: Checker
    failures_left: int | None
    keep_output: bool
    protection: str
    deliver: Callable[[Judgement], None]
    results: list[CaseResult] = field(default_factory=list)

    def on_facts(self, index: int, facts: Facts) -> bool:
        """Grades test `index`; returns whether to run the next."""
        result = self._grade(self.tests[index], facts)
        self.results.append(result)
        if result.verdict is Verdict.IE:
            return False
        if result.verdict is not Verdict.AC and self.failures_left is not None:
            self.failures_left -= 1
            return self.failures_left > 0
        return True

    def on_done(self, error: str | None, compile_error: str | None) -> None:
        if compile_error is not None:
            self.deliver(self.refused(Verdict.CE, compile_error))
            return
        if error is not None:
            self.results.append(CaseResult(Verdict.IE, message=error))
        self.deliver(self._judgement())

    def refused(self, verdict: Verdict, message: str) -> Judgement:
        """The judgement of a program that was never run."""
        cases = (CaseResult(Verdict.SKIPPED),) * len(self.tests)
        return Judgement(verdict, cases, self.protection, message)

    def _grade(self, test: TestCase, facts: Facts) -> CaseResult:
        verdict, message = facts.verdict, facts.message
        if verdict is Verdict.AC:
            try:
                difference = self._compare(test, facts)
            except Exception as error:  # the comparison is ours: its failure is never the program's
                verdict, message = Verdict.IE, f"the checker failed: {type(error).__name__}: {error}"
            else:
                if difference is not None:
                    verdict, message = Verdict.WA, difference
        output = facts.stdout[:_KEPT_OUTPUT].decode("utf-8", "replace") if self.keep_output else None
        return CaseResult(verdict, facts.cpu_s, facts.wall_s, facts.memory_mb, message, output)

    def _compare(self, test: TestCase, facts: Facts) -> str | None:
        expected = test.output.encode("utf-8", "surrogateescape")
        if test.call is None:
            return self.checker.compare(facts.stdout, expected)
        return self.checker.compare_values(facts.value, expected)

    def _judgement(self) -> Judgement:
        cases = self.results[: len(self.tests)]
        cases += [_SKIPPED] * (len(self.tests) - len(cases))
        verdicts = [case.verdict for case in cases]
        deciding = next((case for case in cases if case.verdict is not Verdict.AC), None)
        if Verdict.IE in verdicts:
            deciding = cases[verdicts.index(Verdict.IE)]
        if deciding is None:
            return Judgement(Verdict.AC, tuple(cases), self.protection)
        number = cases.index(deciding) + 1
        message = f"test {number}: {deciding.message}" if deciding.message else f"test {number}"
        verdict = deciding.verdict
        if verdict is Verdict.SKIPPED:  # nothing decided, yet not all ran: our failure, not the program's
            verdict, message = Verdict.IE, "the tests were not all run"
        return Judgement(verdict, tuple(cases), self.protection, message)
