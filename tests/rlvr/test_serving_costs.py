"""Costs of rollouts in time, the allocation they buy, and the simulations of the documentation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.budget.solver import solve_allocation
from rlvr.budget.value import value
from rlvr.commands.serve import serve
from rlvr.moe.facts import inspect_model
from rlvr.serving.cost import RolloutCosts, allocate_by_time, rollout_costs
from rlvr.serving.hardware import parse_hardware
from rlvr.serving.roofline import StepModel
from rlvr.serving.simulate import allocation_table, makespan, order_table

RATES = st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6)


@given(RATES, st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_equal_lengths_buy_what_counting_rollouts_buys(rates: list[float], extra: int) -> None:
    costs = RolloutCosts(np.zeros(len(rates)), np.ones(len(rates)), batch=1)
    budget = 2 * len(rates) + extra
    if budget > 16 * len(rates):
        budget = 16 * len(rates)
    ours = allocate_by_time(rates, costs, float(budget), low=2, high=16)
    theirs = solve_allocation(rates, budget, low=2, high=16)
    worth = [sum(float(value(n, p)) for n, p in zip(counts, rates, strict=True)) for counts in (ours, theirs)]
    assert worth[0] == pytest.approx(worth[1], rel=1e-9)


@given(RATES, st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_time_is_kept_to_and_close_to_the_best_there_is(rates: list[float], seed: int) -> None:
    rates = rates[:3]
    rng = np.random.default_rng(seed)
    costs = RolloutCosts(rng.uniform(0, 1, len(rates)), rng.uniform(0.5, 3, len(rates)), batch=1)
    seconds = costs.total([4] * len(rates))
    found = allocate_by_time(rates, costs, seconds, low=2, high=8)
    assert costs.total(found) <= seconds + 1e-9
    worth = lambda counts: sum(float(value(n, p)) for n, p in zip(counts, rates, strict=True))  # noqa: E731
    best = max(
        worth(counts)
        for counts in itertools.product(range(2, 9), repeat=len(rates))
        if costs.total(counts) <= seconds + 1e-9
    )
    largest = max(float(value(3, p) - value(2, p)) for p in rates)
    assert worth(found) >= best - largest - 1e-12


def test_a_fuller_batch_makes_tokens_cheaper_and_a_prompt_is_paid_once() -> None:
    model = StepModel(inspect_model("qwen3-30b-a3b"), parse_hardware("H200"))
    few, many = (rollout_costs(model, [500, 500], [1000, 4000], rollouts=n, room=256) for n in (2, 512))
    assert many.batch > few.batch
    assert (many.each < few.each / 4).all()
    assert few.each[1] == pytest.approx(4 * few.each[0])
    assert many.total([2, 0]) == pytest.approx(many.once[0] + 2 * many.each[0])
    skewed = StepModel(inspect_model("qwen3-30b-a3b"), parse_hardware("8xH200"), tp=1, ep=8, skew=2.0)
    even = StepModel(inspect_model("qwen3-30b-a3b"), parse_hardware("8xH200"), tp=1, ep=8)
    pair = [rollout_costs(m, [500], [1000], rollouts=64, room=64) for m in (skewed, even)]
    assert pair[0].each[0] > pair[1].each[0]


def test_impossible_costs_are_one_line() -> None:
    model = StepModel(inspect_model("qwen3-30b-a3b"), parse_hardware("H200"))
    with pytest.raises(ValueError, match="one of each a problem"):
        rollout_costs(model, [1], [1.0, 2.0], rollouts=1, room=1)
    with pytest.raises(ValueError, match="above the budget"):
        allocate_by_time([0.5], RolloutCosts(np.ones(1), np.ones(1), 1), 2.5)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_a_makespan_lies_between_its_bounds(lengths: list[float], slots: int) -> None:
    found = makespan(lengths, range(len(lengths)), slots)
    assert max(max(lengths), sum(lengths) / slots) - 1e-9 <= found
    assert found <= sum(lengths) / slots + max(lengths) + 1e-9  # Graham's bound for lists


def test_longest_groups_first_come_close_to_the_oracle() -> None:
    table = order_table(seeds=2)
    assert table["oracle"] < 1.02
    assert table["longest group first"] < 1.12
    assert min(table["fifo"], table["random"]) > table["longest group first"] + 0.15


def test_counting_time_gives_more_for_the_same_time() -> None:
    table = allocation_table()
    uniform, count, time = (table[name] for name in ("uniform", "knapsack by count", "knapsack by time"))
    assert uniform.value == uniform.tokens == 1.0
    assert time.tokens <= 1.0
    assert time.value_per_token > max(1.05, count.value_per_token * 0.99)
    text = CliRunner().invoke(serve, ["simulate", "--seeds", "1"], catch_exceptions=False).output
    assert "knapsack by time" in text and "longest group first" in text
