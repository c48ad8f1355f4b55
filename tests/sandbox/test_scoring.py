"""Scores follow from verdicts; the judge's own failure has none."""

from __future__ import annotations

import pytest

from sandbox import CaseResult, Judgement, TestCase, Verdict
from sandbox.scoring import all_pass, fraction, weighted


def judgement(*verdicts: str) -> Judgement:
    cases = tuple(CaseResult(Verdict(verdict)) for verdict in verdicts)
    first = next((case.verdict for case in cases if case.verdict is not Verdict.AC), Verdict.AC)
    return Judgement(Verdict.IE if "IE" in verdicts else first, cases)


def test_all_pass_is_all_or_nothing() -> None:
    assert all_pass(judgement("AC", "AC")) == 1.0
    assert all_pass(judgement("AC", "WA")) == 0.0
    assert all_pass(judgement("AC", "IE")) is None


def test_fraction_counts_skipped_tests_as_not_passed() -> None:
    assert fraction(judgement("AC", "WA", "SKIPPED", "AC")) == 0.5
    assert fraction(judgement("IE", "AC")) is None
    assert fraction(Judgement(Verdict.CE)) == 0.0


def test_weighted_uses_the_tests_weights() -> None:
    tests = [TestCase(weight=1.0), TestCase(weight=3.0)]
    assert weighted(judgement("WA", "AC"), tests) == 0.75
    assert weighted(judgement("IE", "AC"), tests) is None
    with pytest.raises(ValueError, match="1 results for 2 tests"):
        weighted(judgement("AC"), tests)
    with pytest.raises(ValueError, match="more than 0"):
        weighted(judgement("AC"), [TestCase(weight=0.0)])
