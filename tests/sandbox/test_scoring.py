"""Scores follow from verdicts; the judge's own failure has none; stopping early never changes one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandbox
from sandbox import CaseResult, Judgement, TestCase, Verdict, scoring
from sandbox.scoring import Subtask, all_pass, fraction, subtasks, weighted


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
    assert weighted(Judgement(Verdict.CE), tests) == 0.0
    with pytest.raises(ValueError, match="1 results for 2 tests"):
        weighted(judgement("AC"), tests)
    with pytest.raises(ValueError, match="more than 0"):
        weighted(judgement("AC"), [TestCase(weight=0.0)])


GROUPED = [TestCase(group=group) for group in ("", "easy", "easy", "hard", "hard")]
WORTH = [Subtask("easy", 30), Subtask("hard", 70)]


@pytest.mark.parametrize(
    ("verdicts", "earned"),
    [
        ("AC AC AC AC AC", 1.0), ("WA AC AC AC AC", 1.0), ("AC AC AC AC TLE", 0.3), ("AC AC WA AC AC", 0.7),
        ("AC WA SKIPPED AC AC", 0.7), ("AC WA SKIPPED RE SKIPPED", 0.0),
    ],
)  # fmt: skip
def test_a_subtask_earns_its_points_when_all_its_tests_pass(verdicts: str, earned: float) -> None:
    assert subtasks(judgement(*verdicts.split()), GROUPED, WORTH) == pytest.approx(earned)


def test_subtasks_of_other_policies_earn_parts() -> None:
    tests = [TestCase(group="a"), TestCase(group="a")]
    cases = (CaseResult(Verdict.WA, points=0.5), CaseResult(Verdict.AC, points=3.0))
    partial = Judgement(Verdict.WA, cases)
    assert [subtasks(partial, tests, [Subtask("a", 10, policy)]) for policy in ("all", "min", "sum")] == [0, 0.5, 0.75]


def test_subtasks_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="'hard' has no tests"):
        subtasks(judgement("AC"), [TestCase(group="easy")], WORTH)
    with pytest.raises(ValueError, match="sum to 0"):
        subtasks(judgement("AC"), [TestCase(group="easy")], [Subtask("easy", 0)])
    with pytest.raises(ValueError, match="unknown policy 'most'"):
        subtasks(judgement("AC"), [TestCase(group="easy")], [Subtask("easy", 1, "most")])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'vibes': known are all_pass, fraction, weighted, subtasks"):
        scoring.score("vibes", judgement("AC"))
    with pytest.raises(ValueError, match="known are all_pass"):
        scoring.stop_of("vibes")


@pytest.mark.parametrize("rule", scoring.RULES)
def test_no_rule_scores_a_failure_of_the_judge(rule: str) -> None:
    for verdicts in ("AC AC AC AC IE", "WA IE SKIPPED SKIPPED SKIPPED"):
        assert scoring.score(rule, judgement(*verdicts.split()), GROUPED, WORTH) is None


@given(st.lists(st.sampled_from(["AC", "WA", "TLE"]), min_size=5, max_size=5), st.sampled_from(scoring.RULES))
def test_stopping_early_never_changes_a_score(verdicts: list[str], rule: str) -> None:
    from sandbox.grading import Stop

    whole = [CaseResult(Verdict(verdict)) for verdict in verdicts]
    stop = Stop.parse(scoring.stop_of(rule, WORTH))
    failed: set[str] = set()
    failures = 0
    cut = []
    for test, case in zip(GROUPED, whole, strict=True):
        left_out = failures == stop.failures or (stop.by_group and test.group and test.group in failed)
        cut.append(CaseResult(Verdict.SKIPPED) if left_out else case)
        if not left_out and case.verdict is not Verdict.AC:
            failures += 1
            failed.add(test.group)

    def of(cases: list[CaseResult]) -> float | None:
        return scoring.score(rule, judgement(*(case.verdict for case in cases)), GROUPED, WORTH)

    assert of(cut) == of(whole)


def test_a_programs_score_with_and_without_early_stops_is_the_same(judge: sandbox.Judge) -> None:
    tests = [TestCase(str(n), str(n), group=test.group, weight=n) for n, test in enumerate(GROUPED, 1)]
    code = "n = int(input())\nprint(n if n != 2 else 0)"
    for rule in scoring.RULES:
        stop = scoring.stop_of(rule, WORTH)
        scores = {scoring.score(rule, judge.judge(code, tests, stop=how), tests, WORTH) for how in (stop, "never")}
        assert len(scores) == 1 and None not in scores, rule
    stopped = judge.judge(code, tests, stop=scoring.stop_of("subtasks", WORTH))
    assert " ".join(case.verdict for case in stopped.cases) == "AC WA SKIPPED AC AC"
