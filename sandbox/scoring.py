"""From a judgement to a score in [0, 1]. None where the judge failed: no reward, neither 0 nor 1.

A group of rollouts is scored alike only when each meets the same tests: a rule's `stop` leaves out tests where, and
only where, they cannot change the score any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sandbox.cases import TestCase
from sandbox.verdicts import CaseResult, Judgement, Verdict

RULES = ("all_pass", "fraction", "weighted", "subtasks")


class SubtaskLike(Protocol):
    """A group of tests and what it is worth."""

    @property
    def name(self) -> str: ...
    @property
    def points(self) -> float: ...
    @property
    def policy(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Subtask:
    """The tests whose `group` is `name` are worth `points`: all of them only when every test passes ("all"), the share
    that the worst test earns ("min"), or the share that the tests earn on average ("sum")."""

    name: str
    points: float = 1.0
    policy: Literal["all", "min", "sum"] = "all"


def all_pass(judgement: Judgement) -> float | None:
    """1.0 when every test passes, else 0.0; None for the judge's own failure."""
    if judgement.verdict is Verdict.IE:
        return None
    return 1.0 if judgement.accepted else 0.0


def fraction(judgement: Judgement) -> float | None:
    """Share of tests passed. Judge with stop="never": skipped tests count as not passed."""
    if judgement.verdict is Verdict.IE:
        return None
    return judgement.passed / len(judgement.cases) if judgement.cases else 0.0


def weighted(judgement: Judgement, tests: Sequence[TestCase]) -> float | None:
    """Passed share of the tests' total weight. ValueError when `tests` are not those judged or weigh nothing."""
    total = sum(test.weight for test in tests)
    if not total > 0:
        raise ValueError(f"the tests' weights sum to {total:g}: they must sum to more than 0")
    if judgement.verdict is Verdict.IE:
        return None
    passed = [test.weight for test, case in _paired(judgement, tests) if case.verdict is Verdict.AC]
    return sum(passed) / total


def subtasks(judgement: Judgement, tests: Sequence[TestCase], worth: Iterable[SubtaskLike]) -> float | None:
    """Earned share of the points of the subtasks `worth`; tests of no subtask (samples, say) earn nothing.

    A test earns 1 when it passes, or what a checker that grades in points gave it, held to [0, 1]. ValueError for a
    subtask without tests, an unknown policy, or points that do not sum to more than 0.
    """
    worth = list(worth)
    total = sum(subtask.points for subtask in worth)
    if not total > 0 or any(subtask.points < 0 for subtask in worth):
        raise ValueError(f"the subtasks' points sum to {total:g}: they must be positive")
    empty = [subtask.name for subtask in worth if not any(test.group == subtask.name for test in tests)]
    if empty:
        raise ValueError(f"subtask {empty[0]!r} has no tests")
    if judgement.verdict is Verdict.IE:
        return None
    shares: dict[str, list[float]] = {}
    for test, case in _paired(judgement, tests):
        shares.setdefault(test.group, []).append(_share(case))
    return sum(subtask.points * _earned(subtask.policy, shares.get(subtask.name, [0.0])) for subtask in worth) / total


def stop_of(rule: str, worth: Iterable[SubtaskLike] = ()) -> str:
    """The stop rule by which early stopping cannot change the score of `rule`. ValueError for an unknown one."""
    if rule not in RULES:
        raise ValueError(f"unknown scoring rule {rule!r}: known are {', '.join(RULES)}")
    if rule == "all_pass":
        return "first_failure"
    # after a failure in a group only "all" is settled: the next test may yet earn less, or more
    return "group" if rule == "subtasks" and all(subtask.policy == "all" for subtask in worth) else "never"


def score(
    rule: str, judgement: Judgement, tests: Sequence[TestCase] = (), worth: Iterable[SubtaskLike] = ()
) -> float | None:
    """The score by the rule of that name; `weighted` and `subtasks` need the tests that were judged."""
    if rule == "all_pass":
        return all_pass(judgement)
    if rule == "fraction":
        return fraction(judgement)
    if rule == "weighted":
        return weighted(judgement, tests)
    if rule == "subtasks":
        return subtasks(judgement, tests, worth)
    raise ValueError(f"unknown scoring rule {rule!r}: known are {', '.join(RULES)}")


def _paired(judgement: Judgement, tests: Sequence[TestCase]) -> Iterable[tuple[TestCase, CaseResult]]:
    """Each test with its result; none where the program never ran."""
    if not judgement.cases:
        return ()
    if len(judgement.cases) != len(tests):
        raise ValueError(f"{len(judgement.cases)} results for {len(tests)} tests: give the tests that were judged")
    return zip(tests, judgement.cases, strict=True)


def _share(case: CaseResult) -> float:
    if case.points is not None:
        return min(1.0, max(0.0, case.points))
    return float(case.verdict is Verdict.AC)


def _earned(policy: str, shares: Sequence[float]) -> float:
    if policy == "all":
        return float(min(shares) >= 1.0)
    if policy == "min":
        return min(shares)
    if policy == "sum":
        return sum(shares) / len(shares)
    raise ValueError(f"unknown policy {policy!r} of a subtask: known are all, min, sum")
