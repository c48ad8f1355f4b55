import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.budget import effective_gradient_ratio, effective_prompt_ratio, solve_allocation, value
from rlvr.budget.solver import take_largest

CASE_A = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99]


def total_value(allocation: list[int], rates: list[float]) -> float:
    return float(np.sum(value(allocation, rates)))


def optimum_by_dynamic_programme(rates: list[float], budget: int, low: int, high: int) -> float:
    best = np.full(budget + 1, -np.inf)
    best[0] = 0.0
    for p in rates:
        following = np.full(budget + 1, -np.inf)
        for n in range(low, min(high, budget) + 1):
            following[n:] = np.maximum(following[n:], best[: budget + 1 - n] + float(value(n, p)))
        best = following
    return float(best[budget])


@st.composite
def instances(draw: st.DrawFn, problems: int, top: int) -> tuple[list[float], int, int, int]:
    grid = st.sampled_from([0.0, 1 / 8, 1 / 4, 1 / 3, 0.5, 0.75, 7 / 8, 1.0])  # provokes ties
    rates = draw(st.lists(st.one_of(st.floats(0, 1), grid), min_size=1, max_size=problems))
    low = draw(st.integers(1, 4))
    high = draw(st.integers(low, top))
    budget = draw(st.integers(low * len(rates), high * len(rates)))
    return rates, budget, low, high


@given(instances(problems=4, top=6))
def test_no_allocation_at_all_is_better(instance: tuple[list[float], int, int, int]) -> None:
    rates, budget, low, high = instance
    best = max(
        total_value(list(candidate), rates)
        for candidate in itertools.product(range(low, high + 1), repeat=len(rates))
        if sum(candidate) == budget
    )
    assert total_value(solve_allocation(rates, budget, low, high), rates) == pytest.approx(best, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(instances(problems=12, top=40))
def test_equals_the_dynamic_programme(instance: tuple[list[float], int, int, int]) -> None:
    rates, budget, low, high = instance
    allocation = solve_allocation(rates, budget, low, high)
    assert total_value(allocation, rates) == pytest.approx(
        optimum_by_dynamic_programme(rates, budget, low, high), abs=1e-12
    )


@given(instances(problems=40, top=200))
def test_the_sum_is_the_budget_and_the_bounds_hold(instance: tuple[list[float], int, int, int]) -> None:
    rates, budget, low, high = instance
    allocation = solve_allocation(rates, budget, low, high)
    assert sum(allocation) == budget
    assert all(low <= n <= high and type(n) is int for n in allocation)
    assert allocation == solve_allocation(rates, budget, low, high)


@given(instances(problems=20, top=60))
def test_equal_rates_differ_by_one_rollout_at_most_the_first_ones_ahead(
    instance: tuple[list[float], int, int, int],
) -> None:
    rates, budget, low, high = instance
    allocation = solve_allocation(rates, budget, low, high)
    for rate in set(rates):
        group = [n for n, p in zip(allocation, rates, strict=True) if p == rate]
        assert group == sorted(group, reverse=True) and group[0] - group[-1] <= 1


def test_case_a_mixed_difficulties_under_a_tight_budget() -> None:
    allocation = solve_allocation(CASE_A, 96)
    assert allocation == [2, 2, 15, 20, 15, 11, 7, 9, 9, 2, 2, 2]
    uniform = [8] * 12
    assert total_value(allocation, CASE_A) == pytest.approx(0.57696, abs=1e-5)
    assert total_value(uniform, CASE_A) == pytest.approx(0.52594, abs=1e-5)
    assert effective_gradient_ratio(allocation, CASE_A) == pytest.approx(0.780, abs=5e-4)
    assert effective_gradient_ratio(uniform, CASE_A) == pytest.approx(0.555, abs=5e-4)
    assert effective_prompt_ratio(allocation, CASE_A) == pytest.approx(0.544, abs=5e-4)
    assert effective_prompt_ratio(uniform, CASE_A) == pytest.approx(0.555, abs=5e-4)


def test_case_b_every_eighth() -> None:
    assert solve_allocation([k / 8 for k in range(9)], 72) == [2, 18, 13, 9, 7, 8, 9, 4, 2]


def test_nothing_worth_a_rollout_is_divided_evenly() -> None:
    assert solve_allocation([0.0, 1.0, 0.0, 1.0, 0.0], 22) == [5, 5, 4, 4, 4]


def test_a_full_budget_fills_every_cap_and_an_empty_one_leaves_the_floor() -> None:
    assert solve_allocation([0.0, 0.3, 1.0], 30, low=2, high=10) == [10, 10, 10]
    assert solve_allocation([0.0, 0.3, 1.0], 6, low=2, high=10) == [2, 2, 2]


def test_worthless_problems_take_only_what_the_caps_of_the_others_leave() -> None:
    assert solve_allocation([0.5, 0.0, 0.5], 25, low=2, high=10) == [10, 5, 10]


def test_a_large_step_is_solved_exactly() -> None:
    rng = random.Random(0)
    rates = [rng.betavariate(0.6, 0.6) for _ in range(1024)]
    allocation = solve_allocation(rates, 8192)
    assert sum(allocation) == 8192
    # optimal: no rollout can move to a problem where it would gain more
    n = np.array(allocation)
    gain_next = np.where(n < 128, value(n + 1, rates) - value(n, rates), 0)
    loss_last = np.where(n > 2, value(n, rates) - value(n - 1, rates), np.inf)
    assert gain_next.max() <= loss_last.min() + 1e-15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(success_rates=[], budget=8), "no problems"),
        (dict(success_rates=[0.5, 0.5], budget=3), r"below low \* problems = 2 \* 2 = 4"),
        (dict(success_rates=[0.5, 0.5], budget=257), r"above high \* problems = 128 \* 2 = 256"),
        (dict(success_rates=[0.5, 1.5], budget=8), r"1\.5 of problem 1 is not in \[0, 1\]"),
        (dict(success_rates=[float("nan")], budget=8), r"nan of problem 0 is not in \[0, 1\]"),
        (dict(success_rates=[0.5], budget=8, low=0), "low=0"),
        (dict(success_rates=[0.5], budget=8, low=9, high=8), "high=8 is below low=9"),
    ],
)
def test_impossible_requests_say_what_is_wrong(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_allocation(**arguments)


def test_ties_go_to_the_upper_row_then_to_the_left() -> None:
    gains = np.array([[3.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    assert take_largest(gains, 3).tolist() == [1, 1, 1]
    assert take_largest(gains, 4).tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="room for 6"):
        take_largest(gains, 7)
