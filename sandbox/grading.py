"""From the facts of runs to a judgement: comparison, early stop, verdict of the whole program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sandbox.cases import TestCase
from sandbox.checkers import Checker, user
from sandbox.execution.job import Facts, RunInput
from sandbox.verdicts import CaseResult, Judgement, Verdict

_KEPT_OUTPUT = 64 << 10
_HELD_OUTPUT = 256 << 20
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
    allowed: int | None  # failing tests after which judging stops
    keep_output: bool
    protection: str
    deliver: Callable[[Judgement], None]
    # starts the problem's own checker on questions; its runs come back by the two callbacks, as a program's do
    ask: Callable[[list[RunInput], Callable[[int, Facts], bool], Callable[[str | None, str | None], None]], None]
    results: list[CaseResult] = field(default_factory=list)
    _to_check: list[int] = field(default_factory=list)
    _questions: list[RunInput] = field(default_factory=list)
    _held: int = 0
    _failures: int = 0

    def on_facts(self, index: int, facts: Facts) -> bool:
        """Grades test `index`; returns whether to run the next."""
        if self.checker.program is not None and facts.verdict is Verdict.AC:
            return self._check_later(index, facts)
        result = self._grade(self.tests[index], facts)
        self.results.append(result)
        if result.verdict is Verdict.IE:
            return False
        self._failures += result.verdict is not Verdict.AC
        return self._failures != self.allowed

    def on_done(self, error: str | None, compile_error: str | None) -> None:
        if compile_error is not None:
            self.deliver(self.refused(Verdict.CE, compile_error))
            return
        if error is not None:
            self.results.append(CaseResult(Verdict.IE, message=error))
        elif self._questions:
            questions, self._questions = self._questions, []
            self.ask(questions, self._on_answer, self._on_answers_done)
            return
        self.deliver(self._judgement())

    def _check_later(self, index: int, facts: Facts) -> bool:
        """Keeps an output for the checker, which runs when the program is through."""
        output = facts.stdout if self.tests[index].call is None else facts.value
        self._held += len(output)
        if self._held > _HELD_OUTPUT:
            self.results.append(CaseResult(Verdict.IE, message="more output than can be kept for the checker"))
            return False
        test = self.tests[index]
        self._to_check.append(index)
        self._questions.append(RunInput(user.question(test.input, test.output, output)))
        self.results.append(self._result(facts, Verdict.AC, ""))
        return True

    def _on_answer(self, number: int, facts: Facts) -> bool:
        """Takes the checker's answer: accepted, refused, or a failure that is never the program's."""
        index = self._to_check[number]
        if facts.verdict is Verdict.AC:
            return True
        verdict, message = Verdict.IE, f"the checker failed: {facts.message}"
        if facts.exit_code == user.REJECT:
            verdict, message = Verdict.WA, "refused by the problem's checker"
        self.results[index] = replace(self.results[index], verdict=verdict, message=message)
        return verdict is Verdict.WA and self.allowed != 1

    def _on_answers_done(self, error: str | None, compile_error: str | None) -> None:
        failure = error or compile_error
        if failure is not None:
            self.results[0] = CaseResult(Verdict.IE, message=f"the checker failed: {failure}")
        failures = 0
        for position, case in enumerate(self.results):  # end where the program would have been stopped
            failures += case.verdict is not Verdict.AC
            if case.verdict is Verdict.IE or failures == self.allowed:
                del self.results[position + 1 :]
                break
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
        return self._result(facts, verdict, message)

    def _result(self, facts: Facts, verdict: Verdict, message: str) -> CaseResult:
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
