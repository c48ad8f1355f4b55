import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.budget import (
    effective_gradient_ratio,
    effective_prompt_ratio,
    exact_rollouts_for_confidence,
    expected_first_mixed,
    info_gain,
    p_nonzero,
    rollouts_for_confidence,
    value,
)
from rlvr.budget.value import expected_marginal_gains, marginal_gains

# p, E[first mixed], rollouts for 90 % by the formula, exactly, P(mixed) at N = 8, 16, 64, 128, information gain
TABLE = [
    (0.001, 1000.001, 2301.4, 2302, 0.0080, 0.0159, 0.0620, 0.1202, 0.00100),
    (0.01, 100.010, 229.1, 230, 0.0773, 0.1485, 0.4744, 0.7237, 0.00980),
    (0.02, 50.020, 114.0, 114, 0.1492, 0.2762, 0.7255, 0.9247, 0.01921),
    (0.05, 20.053, 44.9, 45, 0.3366, 0.5599, 0.9625, 0.9986, 0.04512),
    (0.1, 10.111, 21.9, 22, 0.5695, 0.8147, 0.9988, 1.0, 0.08100),
    (0.2, 5.250, 10.3, 11, 0.8322, 0.9719, 1.0, 1.0, 0.12800),
    (1 / 3, 3.500, 5.7, 6, 0.9608, 0.9985, 1.0, 1.0, 0.14815),
    (0.5, 3.000, 3.3, 5, 0.9922, 1.0, 1.0, 1.0, 0.12500),
    (0.9, 10.111, 21.9, 22, 0.5695, 0.8147, 0.9988, 1.0, 0.00900),
    (0.99, 100.010, 229.1, 230, 0.0773, 0.1485, 0.4744, 0.7237, 0.00010),
]
rates = st.floats(0.0, 1.0)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"p={row[0]:.3f}")
def test_table_of_values(row: tuple[float, ...]) -> None:
    p, first, formula, exact, p8, p16, p64, p128, gain = row
    assert expected_first_mixed(p) == pytest.approx(first, abs=1e-3)
    assert rollouts_for_confidence(p) == pytest.approx(formula, abs=0.06)
    assert exact_rollouts_for_confidence(p) == exact
    assert p_nonzero([8, 16, 64, 128], p) == pytest.approx([p8, p16, p64, p128], abs=6e-5)
    assert info_gain(p) == pytest.approx(gain, abs=6e-6)


@pytest.mark.parametrize(
    ("rollouts", "expected"),
    [(8, (0.077, 0.149, 0.337)), (64, (0.474, 0.726, 0.963)), (80, (0.553, 0.801, 0.984))],
)
def test_why_hard_problems_need_many_rollouts(rollouts: int, expected: tuple[float, ...]) -> None:
    assert p_nonzero(rollouts, [0.01, 0.02, 0.05]) == pytest.approx(expected, abs=6e-4)


def test_information_gain_is_largest_at_one_third() -> None:
    grid = np.linspace(0, 1, 3001)
    assert grid[int(np.argmax(info_gain(grid)))] == pytest.approx(1 / 3, abs=1e-3)
    assert info_gain(1 / 3) == pytest.approx(4 / 27)


@given(n=st.integers(0, 1))
def test_a_group_below_two_is_never_mixed(n: int) -> None:
    assert p_nonzero(n, 0.5) == 0.0


@given(n=st.integers(0, 300), p=st.sampled_from([0.0, 1.0]))
def test_hopeless_and_solved_problems_have_no_value(n: int, p: float) -> None:
    assert value(n, p) == 0.0
    assert math.isinf(expected_first_mixed(p)) and math.isinf(rollouts_for_confidence(p))


@given(n=st.integers(2, 200), p=rates)
def test_probability_of_a_mixed_group_matches_its_definition(n: int, p: float) -> None:
    assert p_nonzero(n, p) == pytest.approx(1 - p**n - (1 - p) ** n, abs=1e-12)
    assert 0.0 <= p_nonzero(n, p) <= 1.0
    assert p_nonzero(n, p) == pytest.approx(float(p_nonzero(n, 1 - p)), abs=1e-12)


def test_probability_keeps_its_digits_for_very_small_rates() -> None:
    assert p_nonzero(2, 1e-12) == pytest.approx(2e-12, rel=1e-9)


@given(p=st.floats(0.002, 0.998), confidence=st.floats(0.05, 0.99))
def test_exact_rollouts_are_the_fewest_that_reach_the_confidence(p: float, confidence: float) -> None:
    n = exact_rollouts_for_confidence(p, confidence)
    assert p_nonzero(n, p) >= confidence
    assert n == 2 or p_nonzero(n - 1, p) < confidence


@given(p=st.lists(rates, min_size=1, max_size=5), low=st.integers(1, 6), levels=st.integers(0, 40))
def test_marginal_gains_are_differences_of_the_value_and_fall(p: list[float], low: int, levels: int) -> None:
    gains = marginal_gains(p, low, levels)
    assert gains.shape == (levels, len(p))
    n = np.arange(low, low + levels)[:, None]
    assert gains == pytest.approx(value(n + 1, p) - value(n, p), abs=1e-12)
    assert (np.diff(gains, axis=0) <= 0).all() and (gains >= 0).all()


@given(a=st.floats(0.3, 20), b=st.floats(0.3, 20), low=st.integers(1, 5), levels=st.integers(1, 60))
def test_expected_gains_match_an_integral_over_the_posterior(a: float, b: float, low: int, levels: int) -> None:
    # p = sin^2(t) removes the end-point singularities of a Beta density with parameters below 1
    nodes, weights = np.polynomial.legendre.leggauss(400)
    t = (nodes + 1) * math.pi / 4
    p = np.sin(t) ** 2
    density = weights * np.sin(t) ** (2 * a - 1) * np.cos(t) ** (2 * b - 1)
    density /= density.sum()
    expected = marginal_gains(p, low, levels) @ density
    gains = expected_marginal_gains([a], [b], low, levels)[:, 0]
    assert gains == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert (np.diff(gains) <= 0).all()


def test_effective_ratios_weight_by_rollout_and_by_problem() -> None:
    assert effective_gradient_ratio([2, 8], [0.0, 0.5]) == pytest.approx(0.8 * 0.9921875)
    assert effective_prompt_ratio([2, 8], [0.0, 0.5]) == pytest.approx(0.5 * 0.9921875)
    with pytest.raises(ValueError, match="no rollouts"):
        effective_gradient_ratio([], [])
    with pytest.raises(ValueError, match="no problems"):
        effective_prompt_ratio([], [])


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, float("nan")])
def test_a_confidence_outside_the_open_interval_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        rollouts_for_confidence(0.5, confidence)


def test_exact_rollouts_do_not_exist_without_uncertainty() -> None:
    with pytest.raises(ValueError, match="impossible"):
        exact_rollouts_for_confidence(0.0)
