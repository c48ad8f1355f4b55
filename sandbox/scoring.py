"""From a judgement to a score in [0, 1]. None where the judge failed: no reward, neither 0 nor 1."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.cases import TestCase
from sandbox.verdicts import Judgement, Verdict


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
    if judgement.verdict is Verdict.IE:
        return None
    if len(judgement.cases) != len(tests):
        raise ValueError(f"{len(judgement.cases)} results for {len(tests)} tests: give the tests that were judged")
    total = sum(test.weight for test in tests)
    if not total > 0:
        raise ValueError(f"the tests' weights sum to {total:g}: they must sum to more than 0")
    passed = sum(test.weight for test, case in zip(tests, judgement.cases, strict=True) if case.verdict is Verdict.AC)
    return passed / total
