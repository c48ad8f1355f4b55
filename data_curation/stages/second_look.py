"""Why an accepted solution fails: a limit too tight, a comparison too strict, or output that changes between runs.

A problem is repaired only where all its accepted solutions pass with the repair and no solution labelled wrong does
that did not before; everything else stays a failure, with the cause where one was seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_curation.schema import NEEDS_CHECKER, Problem, Solution
from data_curation.stages.judging import Run
from sandbox import languages

# tried in this order; the first that fits is the least lenient one
LENIENT = ("floats:1e-9", "floats:1e-6", "case_insensitive", "unordered_lines", "unordered_tokens")
STRICT = frozenset({"tokens", "lines", "exact", "floats"})  # one right answer, up to rounding
_ANSWER = r"(?:answers?|solutions?|outputs?|assignments?|arrangements?|permutations?|configurations?|sequences?)"
_GOOD = r"(?:possible|valid|correct|such|acceptable|optimal)"
# what lets a judge accept several outputs; "if there are several, print the smallest" does not
MANY_ANSWERS = re.compile(
    r"\b(?:print|output|return|display|write|report)(?:ing)?\b[^.\n]{0,30}"
    rf"(?<!\bof )\bany(?: one)? (?:of (?:them|these|those)\b|{_GOOD}\b|{_ANSWER}\b)"
    rf"|\bany (?:{_GOOD} )?{_ANSWER} (?:is|are|will be) accepted"
    rf"|\bone of (?:the )?(?:many|multiple|several)(?: (?:possible|valid|correct))? {_ANSWER}"
    rf"|\b(?:multiple|several|many)(?: {_GOOD})? {_ANSWER},? one of which is (?:displayed|shown)"
    rf"|\bthere are (?:multiple|several|many) (?:valid|correct|possible) {_ANSWER} for\b"
    r"|\b(?:print|output|return|display)\b[^.\n]{0,80}\bin (?:any|arbitrary) order",
    re.IGNORECASE,
)
_ONE_NUMBER = re.compile(r"(?:Case #\d+: *)?[-+]?[\d.]+(?:[eE][-+]?\d+)?")
# what can make a program print different things in two runs
_CHANGING = re.compile(
    r"\b(?:random|shuffle|time|perf_counter|urandom|uuid|thread|threading|asyncio|secrets|id\s*\(|rand|srand|mt19937|"
    r"chrono|clock|getpid|goroutine|go func)\b"
)
UNINITIALISED = frozenset({"c", "cpp"})  # memory that nobody set may hold anything


@dataclass(frozen=True)
class Trial:
    """A changed problem, the runs that decide about it, and what the change is called."""

    problem: Problem
    solutions: tuple[Solution, ...]
    must_pass: frozenset[int]  # positions in `solutions`; the others must not pass
    change: str


@dataclass
class Speed:
    """The slowest accepted run in one language, the limit it had, and the limit estimated from it (seconds of CPU)."""

    language: str
    slowest_s: float
    limit_s: float
    estimated_s: float


def may_change(solution: Solution) -> bool:
    """Whether a program could print different things in two runs: it draws random numbers, reads clocks or is in C."""
    return solution.language in UNINITIALISED or _CHANGING.search(solution.code) is not None


def has_many_answers(problem: Problem) -> bool:
    """Whether the statement or the source lets several outputs be right while the checker accepts one."""
    allows = MANY_ANSWERS.search(problem.statement) is not None
    if NEEDS_CHECKER in problem.tags:
        # one number a line is compared by its tolerance; what the checker knows beyond that is not needed
        allows = allows or not (problem.checker.startswith("floats") and _one_number_a_line(problem))
    return allows and problem.checker.partition(":")[0] in STRICT


def _one_number_a_line(problem: Problem) -> bool:
    lines = (line for test in problem.tests for line in test.output.splitlines() if line.strip())
    return all(_ONE_NUMBER.fullmatch(line.strip()) for line in lines)


def speeds(problem: Problem, runs: Sequence[tuple[Solution, Run]], margin: float) -> list[Speed]:
    """By language, from the accepted solutions that pass; the estimate is `margin` times the slowest run."""
    slowest: dict[str, float] = {}
    for solution, run in runs:
        if solution.verdict == "accepted" and run.verdict == "AC":
            slowest[solution.language] = max(slowest.get(solution.language, 0.0), run.slowest_s)
    return [
        Speed(name, round(s, 3), round(problem.cpu_s * languages.find(name).factor, 3), round(margin * s, 3))
        for name, s in sorted(slowest.items())
    ]


def trials(problem: Problem, runs: Sequence[tuple[Solution, Run]], stretch: float) -> list[Trial]:
    """The changes worth trying for a problem whose accepted solutions fail as `runs` say."""
    failing = {run.verdict for solution, run in runs if solution.verdict == "accepted" and run.verdict != "AC"}
    accepted = [solution for solution, _ in runs if solution.verdict == "accepted"]
    rejected = [s for s, run in runs if s.verdict not in ("accepted", "time_limit_exceeded") and run.verdict != "AC"]
    everyone = (*accepted, *rejected)
    must_pass = frozenset(range(len(accepted)))
    if failing <= {"TLE", "ILE"} and failing:
        slow = problem.model_copy(update={"cpu_s": problem.cpu_s * stretch})
        return [Trial(slow, tuple(accepted), must_pass, "limit")]
    if failing <= {"WA", "PE"} and failing and problem.checker.partition(":")[0] in STRICT:
        return [
            Trial(problem.model_copy(update={"checker": spec}), everyone, must_pass, f"checker {spec}")
            for spec in LENIENT
            if spec != problem.checker
        ]
    return []


def fits(trial: Trial, verdicts: Sequence[Run]) -> bool:
    """Whether exactly the solutions that must pass do."""
    return all((run.verdict == "AC") == (n in trial.must_pass) for n, run in enumerate(verdicts))


def raised_limit(problem: Problem, found: Sequence[Speed]) -> Problem:
    """The problem with its limit doubled as often as it takes to grant every language its estimate.

    Doubling, because the estimates are measurements: the limit should not depend on how busy the machine was.
    """
    needed = max(speed.estimated_s / languages.find(speed.language).factor for speed in found)
    doublings = max(0, math.ceil(math.log2(needed / problem.cpu_s))) if needed > 0 else 0
    return problem.model_copy(update={"cpu_s": problem.cpu_s * 2**doublings})
