"""The balancing rules alone: their fixed point, the linear programme they solve, and published step counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.moe.balancing import RULES, Rule, bias_step, chosen, recentred, simulate_balancing
from rlvr.moe.statistics import max_violation

COUNTS = st.lists(st.integers(0, 500), min_size=4, max_size=4)


@given(counts=COUNTS, rule=st.sampled_from(RULES), factor=st.integers(1, 50), step=st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_rules_push_towards_balance_whatever_the_scale(counts: list[int], rule: Rule, factor: int, step: int) -> None:
    row = np.array([counts])
    change = bias_step(row, rule, 1e-2, step)
    assert np.allclose(change, bias_step(row * factor, rule, 1e-2, step))
    mean = row.mean()
    assert (change[row > mean] <= 0).all()
    assert (change[row < mean] >= 0).all()
    assert (change[row == mean] == 0).all(), "a balanced expert's bias does not move"
    assert abs(recentred(change).mean()) < 1e-12
    if rule in ("proportional", "inverse") and mean:
        assert abs(change.sum()) < 1e-9, "these rules keep the sum of the biases"


def test_no_load_changes_nothing_and_unknown_rules_are_refused() -> None:
    assert (bias_step(np.zeros((2, 4)), "sign", 1e-2, 1) == 0).all()
    with pytest.raises(ValueError, match="unknown rule 'newton'; one of sign"):
        bias_step(np.ones((1, 4)), "newton", 1e-2, 1)  # type: ignore[arg-type]


@given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_a_constant_on_every_bias_changes_no_choice(seed: int, shift: float) -> None:
    generator = np.random.default_rng(seed)
    scores, bias = generator.random((32, 8)), generator.normal(size=8)
    assert np.array_equal(np.sort(chosen(scores, bias, 2)), np.sort(chosen(scores, bias + shift, 2)))


@given(seed=st.integers(0, 10_000), rate=st.sampled_from([1e-3, 1e-2, 5e-2]))
@settings(max_examples=30, deadline=None)
def test_under_the_sign_rule_tokens_leave_only_experts_that_were_not_lighter(seed: int, rate: float) -> None:
    """Preference rule: a switch goes from an over-loaded expert to one with less than mean load, or to or from a
    balanced one, and only where the scores differ by less than twice the rate."""
    scores = np.random.default_rng(seed).random((64, 8))
    before = chosen(scores, np.zeros(8), 2)
    counts = np.bincount(before.ravel(), minlength=8)
    bias = bias_step(counts[None], "sign", rate, 1)[0]
    after = chosen(scores, bias, 2)
    for token in range(64):
        left = set(before[token]) - set(after[token])
        joined = set(after[token]) - set(before[token])
        for old in left:
            for new in joined:
                assert bias[old] < bias[new], "never from an under-loaded to a more loaded expert"
                assert scores[token, old] - scores[token, new] < 2 * rate + 1e-12


def linear_programme(scores: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    """(optimal value, prices [experts]) of sending every token to k experts at equal load."""
    from scipy.optimize import linprog
    from scipy.sparse import identity, kron, vstack

    tokens, experts = scores.shape
    by_token = kron(identity(tokens), np.ones((1, experts)))
    by_expert = kron(np.ones((1, tokens)), identity(experts))
    bounds = np.concatenate([np.full(tokens, k), np.full(experts, k * tokens / experts)])
    result = linprog(
        -scores.ravel(), A_eq=vstack([by_token, by_expert]).tocsr(), b_eq=bounds, bounds=(0, 1), method="highs"
    )
    assert result.status == 0
    return -result.fun, result.eqlin.marginals[tokens:]


def test_the_inverse_rule_finds_the_linear_programmes_optimum_and_its_prices() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(256, 16)) + generator.normal(size=16) * 0.7
    scores = 1 / (1 + np.exp(-logits))
    optimum, prices = linear_programme(scores, 4)
    start = np.bincount(chosen(scores, np.zeros(16), 4).ravel(), minlength=16)
    assert max_violation(start[None])[0] > 1.0

    def outcome(rule: Rule, rate: float, steps: int) -> tuple[float, float, np.ndarray]:
        bias, _ = simulate_balancing(scores, 4, rule, rate, steps)
        ids = chosen(scores, bias, 4)
        counts = np.bincount(ids.ravel(), minlength=16)
        return np.take_along_axis(scores, ids, 1).sum() / optimum, max_violation(counts[None])[0], bias

    ratio, violation, bias = outcome("inverse", 1.0, 4000)
    assert ratio == pytest.approx(1.0, abs=5e-4)
    assert violation <= 0.02
    assert np.corrcoef(bias, prices)[0, 1] > 0.9995
    for rule, rate, worst in (("sign", 1e-3, 0.15), ("sign", 1e-2, 0.3), ("inverse_sqrt", 1e-2, 0.1)):
        ratio, violation, _ = outcome(rule, rate, 3000)
        assert violation <= worst, rule
        assert ratio == pytest.approx(1.0, abs=2e-2)


def steps_to_balance(rule: Rule, rate: float, most: int) -> int:
    """Steps until a fresh batch's MaxVio is below .2: T = 4096, E = 64, K = 6, sigmoid of N(0,1) + N(0,.7^2)."""
    generator = np.random.default_rng(0)
    offsets = generator.normal(size=64) * 0.7
    bias = np.zeros(64)
    for step in range(1, most + 1):
        scores = 1 / (1 + np.exp(-(generator.normal(size=(4096, 64)) + offsets)))
        counts = np.bincount(chosen(scores, bias, 6).ravel(), minlength=64)
        if step == 1:
            assert max_violation(counts[None])[0] > 2.5
        if max_violation(counts[None])[0] < 0.2:
            return step
        bias = recentred(bias + bias_step(counts[None], rule, rate, step)[0])
    return most + 1


@pytest.mark.parametrize(
    ("rule", "rate", "published"),
    [("sign", 1e-3, 153), ("sign", 1e-2, 31), ("proportional", 1e-2, 20), ("inverse_sqrt", 1e-2, 72)],
)
def test_steps_to_balance_match_the_reference(rule: Rule, rate: float, published: int) -> None:
    assert published * 0.5 < steps_to_balance(rule, rate, 3 * published) < published * 1.6
