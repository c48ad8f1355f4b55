"""Costs of rollouts in time, the allocation they buy, and the simulations of the documentation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.budget import Knapsack, SuccessRates
from rlvr.budget.solver import solve_allocation
from rlvr.budget.value import value
from rlvr.commands.serve import serve
from rlvr.config import BudgetSection
from rlvr.moe.facts import inspect_model
from rlvr.serving.cost import RolloutCosts, allocate_by_time, planned_costs, rollout_costs
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
    assert 4 * few.each[0] < few.each[1] < 4.2 * few.each[0]  # four times the tokens, each over a longer cache
    assert many.total([2, 0]) == pytest.approx(many.once[0] + 2 * many.each[0])
    skewed = StepModel(inspect_model("qwen3-30b-a3b"), parse_hardware("8xH200"), tp=1, ep=8, skew=2.0)
    even = StepModel(inspect_model("qwen3-30b-a3b"), parse_hardware("8xH200"), tp=1, ep=8)
    pair = [rollout_costs(m, [500], [1000], rollouts=64, room=64) for m in (skewed, even)]
    assert pair[0].each[0] > pair[1].each[0]


LENGTHS = {"short": 500, "middle": 2000, "long": 8000}


def visited(lengths: dict[str, int]) -> SuccessRates:
    store = SuccessRates(half_life=None)
    for key, tokens in lengths.items():
        store.record(key, [0, 1] * 8, 1, [tokens] * 16)
    return store


@pytest.mark.parametrize(("model", "hardware"), [("qwen3-30b-a3b", "8xH200"), ("qwen2.5-32b", "8xH100")])
@pytest.mark.parametrize("estimator", ["window", "beta"])
def test_the_knapsack_saves_predicted_seconds_beside_counting(model: str, hardware: str, estimator: str) -> None:
    keys, store = list(LENGTHS), visited(LENGTHS)
    time = planned_costs(
        inspect_model(model), parse_hardware(hardware), dict.fromkeys(keys, 500), completion=16_000, rollouts=512
    )
    policy = Knapsack(estimator=estimator, cost="time", time=time, high=48)  # type: ignore[arg-type]
    counts = policy.allocate(keys, store, 60)
    assert sum(counts) == 60 and counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert policy.allocate(keys, store, 60) == counts  # no clock in it
    found = policy.beside_count(keys, store, counts)
    assert set(found) == {"moved_by_cost", "planned_s", "planned_s_by_count", "planned_batch", "value_kept"}
    assert 0 < found["planned_s"] < found["planned_s_by_count"]
    assert 0 < found["value_kept"] < 1 and 0 < found["moved_by_cost"] < 1
    assert found["value_kept"] > found["planned_s"] / found["planned_s_by_count"]  # more value a second
    by_hand = time.costs(keys, list(LENGTHS.values()), 60)
    assert found["planned_s"] == pytest.approx(by_hand.total(counts) / time.replicas)


def test_a_long_prompt_makes_rollouts_dearer_and_unseen_lengths_move_nothing() -> None:
    time = planned_costs(
        inspect_model("qwen3-30b-a3b"), parse_hardware("8xH200"), {"a": 100, "b": 30_000}, completion=2000, rollouts=512
    )
    policy = Knapsack(fallback=False, cost="time", time=time)
    first, second = policy.allocate(["a", "b"], visited({"a": 1000, "b": 1000}), 60)
    assert first > second
    blank = SuccessRates()
    assert policy.allocate(["a", "b"], blank, 60) == [30, 30]
    assert policy.beside_count(["a", "b"], blank, [30, 30]) == {"moved_by_cost": 0.0}
    with pytest.raises(ValueError, match="needs a model of the time"):
        Knapsack(cost="time")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"cost": "time"}, "budget.cost time needs budget.hardware"),
        ({"cost": "time", "hardware": "8xH900"}, "budget.hardware: hardware '8xH900'.*known devices"),
        ({"cost": "seconds"}, "'rollouts', 'tokens' or 'time'"),
        ({"cost": "time", "hardware": "H100", "skew": 0.5}, "greater than or equal to 1"),
    ],
)
def test_a_budget_of_time_without_hardware_is_refused(budget: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BudgetSection.model_validate(budget)


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
