"""What the judge says of a run and of a program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Verdict of a test or a program, in the contest judges' usual abbreviations."""

    AC = "AC"  # accepted
    WA = "WA"  # wrong answer
    PE = "PE"  # presentation error (only checkers that tell it apart)
    TLE = "TLE"  # CPU time limit exceeded
    ILE = "ILE"  # idleness limit: wall limit reached with little CPU used
    MLE = "MLE"  # memory limit exceeded
    OLE = "OLE"  # output limit exceeded
    RE = "RE"  # runtime error: signal or non-zero exit
    CE = "CE"  # compile error
    NO_CODE = "NO_CODE"  # no program found in the completion
    SKIPPED = "SKIPPED"  # not run: an earlier test had decided
    IE = "IE"  # the judge's own failure: no reward, never 0, never 1

    @property
    def is_infrastructure(self) -> bool:
        return self is Verdict.IE


@dataclass(frozen=True, slots=True)
class CaseResult:
    """Result of one test: verdict, CPU seconds, wall seconds, peak memory in MiB, and one line saying why."""

    verdict: Verdict
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mb: float = 0.0
    message: str = ""
    output: str | None = None  # first bytes of what the program printed, only when asked for (`keep_output`)
    points: float | None = None  # given by a checker that grades in points


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdict of a program: `verdict` is AC if every test is, IE if the judge failed on any test that mattered,
    otherwise that of the first failing test."""

    verdict: Verdict
    cases: tuple[CaseResult, ...] = ()
    protection: str = ""  # "namespaced", "confined" or "limited": how the program was held
    message: str = ""

    @property
    def accepted(self) -> bool:
        return self.verdict is Verdict.AC

    @property
    def passed(self) -> int:
        """Number of tests with verdict AC."""
        return sum(case.verdict is Verdict.AC for case in self.cases)
