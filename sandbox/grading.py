"""From the facts of runs to a judgement: comparison, early stop, verdict of the whole program."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from sandbox.cases import TestCase
from sandbox.checkers import Checker, text, user
from sandbox.execution.job import Facts, Interactor, RunInput
from sandbox.verdicts import CaseResult, Judgement, Verdict

_KEPT_OUTPUT = 64 << 10
_HELD_OUTPUT = 256 << 20
_SKIPPED = CaseResult(Verdict.SKIPPED)
_LIMIT_BROKEN = frozenset((Verdict.TLE, Verdict.ILE, Verdict.MLE, Verdict.OLE, Verdict.IE))


@dataclass(frozen=True, slots=True)
class Stop:
    """When to leave tests out: after `failures` failing tests (None: never); `by_group`: the rest of a failed group."""

    failures: int | None
    by_group: bool = False

    @classmethod
    def parse(cls, rule: str) -> Stop:
        """ValueError for an unknown rule."""
        if rule == "first_failure":
            return cls(1)
        if rule in ("never", "group"):
            return cls(None, rule == "group")
        name, _, number = rule.partition("=")
        if name == "max_failures" and number.isdecimal() and int(number) > 0:
            return cls(int(number))
        raise ValueError(f"unknown stop rule {rule!r}: known are first_failure, group, never, max_failures=K")


@dataclass(frozen=True, slots=True)
class Form:
    """How a problem hands over input and takes output: files instead of the standard streams, or a conversation.

    `in_place`: the value of a call is what has become of its first argument.
    """

    input_file: str = ""
    output_file: str = ""
    referee: user.Referee | None = None  # the interactor's protocol
    in_place: bool = False

    def run_input(self, test: TestCase, interactor: Interactor | None) -> RunInput:
        """What of a test enters the box. Its output does only as an interactor's file."""
        data = test.input.encode("utf-8", "surrogateescape")
        if interactor is not None:
            answer = test.output.encode("utf-8", "surrogateescape")
            return RunInput(files=(("input", data), ("answer", answer)), interactor=interactor)
        call = None if test.call is None else test.call.encode("utf-8", "surrogateescape")
        if call is not None and self.in_place:
            call = b"((" + call + b"), args[0])[1]"
        files = ((self.input_file, data),) if self.input_file else ()
        return RunInput(b"" if files else data, call, files, collect=self.output_file)

    def output(self, test: TestCase, facts: Facts) -> bytes:
        """What the run is judged by."""
        return facts.stdout if test.call is None and not self.output_file else facts.value


class Inputs(Sequence[RunInput]):
    """What the runs on `tests` are given, made when asked for: thousands of programs may wait with the same tests."""

    def __init__(self, form: Form, tests: Sequence[TestCase], interactor: Interactor | None = None) -> None:
        self._form, self._tests, self._interactor = form, tests, interactor

    def __len__(self) -> int:
        return len(self._tests)

    @overload
    def __getitem__(self, index: int) -> RunInput: ...
    @overload
    def __getitem__(self, index: slice) -> list[RunInput]: ...
    def __getitem__(self, index: int | slice) -> RunInput | list[RunInput]:
        if isinstance(index, slice):
            return [self._form.run_input(test, self._interactor) for test in self._tests[index]]
        return self._form.run_input(self._tests[index], self._interactor)


@dataclass(eq=False, slots=True)
class Grading:
    """One program on its tests. Fed by the pool's thread, ends with `deliver(judgement)`, once."""

    tests: Sequence[TestCase]
    checker: Checker
    form: Form
    stop: Stop
    keep_output: bool
    protection: str
    deliver: Callable[[Judgement], None]
    # starts the problem's own checker on questions; its runs come back by the two callbacks, as a program's do
    ask: Callable[[list[RunInput], Callable[[int, Facts], int], Callable[[str | None, str | None], None]], None]
    presentation_errors: bool = False  # else they are wrong answers
    results: list[CaseResult] = field(default_factory=list)
    _to_check: list[int] = field(default_factory=list)
    _questions: list[RunInput] = field(default_factory=list)
    _held: int = 0
    _failures: int = 0
    _failed_groups: set[str] = field(default_factory=set)

    def on_facts(self, index: int, facts: Facts) -> int:
        """Grades test `index`; returns how many tests to move on by, 0 to stop."""
        test = self.tests[index]
        if self.form.referee is not None:
            result = self._grade_conversation(self.form.referee, facts)
        elif self.checker.referee is not None and facts.verdict is Verdict.AC:
            return self._check_later(index, facts, self.checker.referee)
        else:
            result = self._grade(test, facts)
        self.results.append(result)
        if result.verdict is Verdict.IE:
            return 0
        if result.verdict is not Verdict.AC:
            self._failures += 1
            self._failed_groups.add(test.group)
            if self._failures == self.stop.failures:
                return 0
        following = index + 1
        while following < len(self.tests) and self._is_left_out(self.tests[following]):
            self.results.append(_SKIPPED)
            following += 1
        return following - index

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

    def _is_left_out(self, test: TestCase) -> bool:
        return self.stop.by_group and bool(test.group) and test.group in self._failed_groups

    def _check_later(self, index: int, facts: Facts, referee: user.Referee) -> int:
        """Keeps an output for the checker, which runs when the program is through."""
        test = self.tests[index]
        output = self.form.output(test, facts)
        self._held += len(output)
        if self._held > _HELD_OUTPUT:
            self.results.append(CaseResult(Verdict.IE, message="more output than can be kept for the checker"))
            return 0
        self._to_check.append(index)
        self._questions.append(referee.question(test, output))
        self.results.append(self._result(test, facts, Verdict.AC, ""))
        return 1

    def _on_answer(self, number: int, facts: Facts) -> int:
        """Takes the checker's answer: accepted, refused, or a failure that is never the program's."""
        assert self.checker.referee is not None
        index = self._to_check[number]
        opinion = self.checker.referee.opinion(facts)
        result = self.results[index]
        self.results[index] = replace(
            result,
            verdict=self._folded(opinion.verdict),
            message=opinion.message or result.message,
            points=opinion.points,
        )
        return int(opinion.verdict is Verdict.AC or (opinion.verdict is not Verdict.IE and self.stop.failures != 1))

    def _on_answers_done(self, error: str | None, compile_error: str | None) -> None:
        failure = error or compile_error
        if failure is not None:
            self.results[0] = CaseResult(Verdict.IE, message=f"the checker failed: {failure}")
        self._failures = 0
        self._failed_groups.clear()
        for position, case in enumerate(self.results):  # as if the program had been stopped in time
            test = self.tests[position]
            if self._is_left_out(test):
                self.results[position] = _SKIPPED
                continue
            if case.verdict not in (Verdict.AC, Verdict.SKIPPED):
                self._failures += 1
                self._failed_groups.add(test.group)
            if case.verdict is Verdict.IE or self._failures == self.stop.failures:
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
                    verdict, message = self._refusal(test, facts), difference
        return self._result(test, facts, verdict, message)

    def _refusal(self, test: TestCase, facts: Facts) -> Verdict:
        """PE where the tokens are right and only their arrangement is not."""
        if not self.presentation_errors or test.call is not None:
            return Verdict.WA
        expected = test.output.encode("utf-8", "surrogateescape")
        return Verdict.WA if text.tokens(self.form.output(test, facts), expected) else Verdict.PE

    def _folded(self, verdict: Verdict) -> Verdict:
        return Verdict.WA if verdict is Verdict.PE and not self.presentation_errors else verdict

    def _grade_conversation(self, referee: user.Referee, facts: Facts) -> CaseResult:
        """The interactor decides, unless the program broke a limit or crashed before the interactor was through."""
        verdict, message, points = facts.verdict, facts.message, None
        if verdict not in _LIMIT_BROKEN:
            said = json.loads(facts.value)
            failure = said["reason"] or (f"signal {said['signal']}" if said["signal"] else "")
            opinion = referee.meaning(said["code"], failure, said["stderr"])
            decided = said["first"] == "interactor" and opinion.verdict is not Verdict.AC
            if verdict is not Verdict.RE or decided:
                verdict, points = self._folded(opinion.verdict), opinion.points
                message = opinion.message.replace("checker", "interactor")
        found = CaseResult(verdict, facts.cpu_s, facts.wall_s, facts.memory_mb, message)
        return replace(found, points=points) if points is not None else found

    def _result(self, test: TestCase, facts: Facts, verdict: Verdict, message: str) -> CaseResult:
        output = None
        if self.keep_output:
            output = (self.form.output(test, facts) if self.form.output_file else facts.stdout)[:_KEPT_OUTPUT].decode(
                "utf-8", "replace"
            )
        return CaseResult(verdict, facts.cpu_s, facts.wall_s, facts.memory_mb, message, output)

    def _compare(self, test: TestCase, facts: Facts) -> str | None:
        expected = test.output.encode("utf-8", "surrogateescape")
        compare = self.checker.compare if test.call is None else self.checker.compare_values
        return compare(self.form.output(test, facts), expected)

    def _judgement(self) -> Judgement:
        cases = self.results[: len(self.tests)]
        cases += [_SKIPPED] * (len(self.tests) - len(cases))
        verdicts = [case.verdict for case in cases]
        deciding = next((case for case in cases if case.verdict not in (Verdict.AC, Verdict.SKIPPED)), None)
        if Verdict.IE in verdicts:
            deciding = cases[verdicts.index(Verdict.IE)]
        if deciding is None:
            if Verdict.SKIPPED in verdicts:  # nothing decided, yet not all ran: our failure, not the program's
                return Judgement(Verdict.IE, tuple(cases), self.protection, "the tests were not all run")
            return Judgement(Verdict.AC, tuple(cases), self.protection)
        number = cases.index(deciding) + 1
        message = f"test {number}: {deciding.message}" if deciding.message else f"test {number}"
        return Judgement(deciding.verdict, tuple(cases), self.protection, message)
