"""Budgets planned without a model: the simulator's figures, the refill rule, and what `rlvr plan` says of a history."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.budget import DynamicSampling, Knapsack, SuccessRates, Uniform
from rlvr.budget.histories import read_history
from rlvr.budget.simulate import population, simulate
from rlvr.cli import cli

# papers' distributions: expected effective gradient ratio of uniform groups of 8, of the optimum for the true rates, of
# a knapsack whose rates were measured with 8 rollouts, with its fallback and without, of uniform groups of 16
EXPECTED = {
    "beta:0.5,3": (0.491, 0.763, 0.666, 0.746, 0.614),
    "uniform": (0.777, 0.867, 0.862, 0.862, 0.881),
    "beta:0.6,0.6": (0.659, 0.831, 0.812, 0.818, 0.774),
    "late": (0.314, 0.804, 0.443, 0.810, 0.356),
    "late-rare": (0.298, 0.777, 0.477, 0.768, 0.354),
}
COLUMNS = (
    (["--policy", "uniform"], 8),
    (["--policy", "true-rates"], 8),
    (["--policy", "knapsack-window"], 8),
    (["--policy", "knapsack-window", "--no-fallback"], 8),
    (["--policy", "uniform"], 16),
)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_simulator_reproduces_the_expected_ratios(name):
    pool = ["--population", name, "--problems", "256", "--problems-per-step", "256"]
    # the first visit is uniform whatever the policy: the second is the one to look at
    steps = ["--steps", "2", "--speed", "0", "--seeds", "12"]
    ratios = []
    for options, rollouts in COLUMNS:
        done = CliRunner().invoke(cli, ["plan", "simulate", *pool, *steps, "--rollouts", str(rollouts), *options])
        assert done.exit_code == 0, done.output
        ratios.append(float(done.output.splitlines()[-1].split()[-3]))
    assert ratios == pytest.approx(EXPECTED[name], abs=0.03)


def test_learning_uses_the_signal_up_and_the_knapsack_keeps_more_of_it():
    runs = {}
    for name, policy in (("uniform", Uniform()), ("knapsack", Knapsack(estimator="beta", fallback=False))):
        pool = population("beta:0.5,3", 256, np.random.default_rng(0))
        runs[name] = simulate(pool, policy, steps=20, problems_per_step=128, mean_rollouts=8, speed=0.5)
        assert runs[name][-1].pass_rate > pool.mean() + 0.05
        assert runs[name][-1].rollouts == 20 * 128 * 8
    late = {name: np.mean([s.effective_gradient_ratio for s in run[10:]]) for name, run in runs.items()}
    assert late["knapsack"] > late["uniform"] * 1.2


def test_dynamic_sampling_pays_for_its_signal_with_rollouts():
    pool = population("late", 512, np.random.default_rng(1))
    found = simulate(pool, DynamicSampling(max_rounds=4), steps=4, problems_per_step=64, mean_rollouts=8)
    assert all(step.effective_gradient_ratio > 0.9 for step in found)
    assert found[-1].rollouts > 1.5 * 4 * 64 * 8


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=40), st.integers(2, 9))
def test_kept_groups_fill_the_budget_with_signal_first(mixed, size):
    counts = [size] * len(mixed)
    kept = DynamicSampling.keep(mixed, counts, 4 * size)
    assert kept == sorted(set(kept)) and sum(counts[i] for i in kept) == 4 * size
    assert sum(mixed[i] for i in kept) == min(4, sum(mixed))


def test_groups_that_do_not_add_up_are_named():
    with pytest.raises(ValueError, match=r"groups of \[3\] do not add up to 7"):
        DynamicSampling.keep([True, False, True], [3, 3, 3], 7)


@pytest.mark.parametrize("name", ["beta:1", "beta:0,1", "beta:inf,1", "normal"])
def test_an_unknown_population_is_named(name):
    with pytest.raises(ValueError, match="population"):
        population(name, 4, np.random.default_rng(0))


def test_long_answers_get_fewer_rollouts_when_tokens_are_what_counts():
    store = SuccessRates(half_life=None)
    for key, tokens in (("short", 100), ("long", 900)):
        store.record(key, [0, 1] * 8, 1, [tokens] * 16)
    assert Knapsack(fallback=False).allocate(["short", "long"], store, 32) == [16, 16]
    short, long = Knapsack(fallback=False, cost="tokens").allocate(["short", "long"], store, 32)
    by_count = Knapsack(fallback=False)
    beside = Knapsack(fallback=False, cost="tokens").beside_count(["short", "long"], store, [short, long])
    assert beside == {"moved_by_cost": (short - by_count.allocate(["short", "long"], store, 32)[0]) / 32}
    assert beside["moved_by_cost"] > 0 and by_count.beside_count(["short", "long"], store, [short, long]) == {}
    assert short > long and short + long == 32
    copy = SuccessRates()
    copy.load_state_dict(json.loads(json.dumps(store.state_dict())))
    assert copy.mean_tokens("long") == 900 and copy.export()[0]["mean_tokens"] == 100


def test_a_state_saved_before_lengths_were_kept_still_loads():
    store = SuccessRates()
    store.load_state_dict({"format": 1, "history": {"a": [[3, "0110"]]}, "priors": {}})
    assert store.rollouts("a") == 4 and store.mean_tokens("a") is None


def test_plan_budget_shows_what_a_history_would_get(tmp_path):
    file = tmp_path / "rates.jsonl"
    rates = [0.0, 0.05, 0.25, 0.5, 0.75, 1.0]
    file.write_text("".join(json.dumps({"problem_id": f"p{r}", "rate": r, "rollouts": 400}) + "\n" for r in rates))
    done = CliRunner().invoke(cli, ["plan", "budget", str(file), "--json", "--no-fallback"])
    rows = json.loads(done.output)
    assert [row["uniform"] for row in rows] == [8] * 6
    assert sum(row["knapsack-window"] for row in rows) == sum(row["knapsack-beta"] for row in rows) == 48
    assert rows[0]["knapsack-window"] == rows[-1]["knapsack-window"] == 2
    shown = CliRunner().invoke(cli, ["plan", "budget", str(file)])
    assert "6 problems, 48 rollouts a step" in shown.output and "p0.05" in shown.output


CASES = {  # papers' worked cases: rates, rollouts in all, what the knapsack gives
    "a": ([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99], [2, 2, 15, 20, 15, 11, 7, 9, 9, 2, 2, 2]),
    "d": ([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1, 1, 1, 1, 0, 0], [24, 24, 14, 8, 10, 4, 2, 2, 2, 2, 2, 2]),
}


@pytest.mark.parametrize("name", CASES)
def test_rates_of_a_users_file_are_taken_at_their_word(tmp_path, name):
    rates, expected = CASES[name]
    file = tmp_path / "rates.jsonl"
    file.write_text("".join(json.dumps({"problem_id": f"p{i}", "rate": r}) + "\n" for i, r in enumerate(rates)))
    done = CliRunner().invoke(cli, ["plan", "budget", str(file), "--json", "--policy", "knapsack-window"])
    rows = json.loads(done.output)
    assert [row["window_rate"] for row in rows] == rates
    assert [row["knapsack-window"] for row in rows] == expected
    done = CliRunner().invoke(cli, ["plan", "simulate", "--population", str(file), "--steps", "1", "--speed", "0"])
    assert done.exit_code == 0 and float(done.output.split()[-1]) == pytest.approx(sum(rates) / len(rates), abs=5e-4)


def test_a_history_is_read_from_runs_measurements_and_exports(tmp_path):
    store = SuccessRates()
    store.record("a", [0, 1, 1], 4)
    for folder, step in (("checkpoint-9", 3), ("checkpoint-10", 4)):
        (tmp_path / folder).mkdir()
        store.record("b", [0], step)
        (tmp_path / folder / "rlvr_state.json").write_text(json.dumps({"success_rates": store.state_dict()}))
    assert read_history(tmp_path).rollouts("b") == 2  # the newest checkpoint, by number
    (tmp_path / "pre_grpo.json").write_text(json.dumps({"a": [0, 1, None]}))
    assert read_history(tmp_path / "pre_grpo.json").rollouts("a") == 2
    out = tmp_path / "rates.parquet"
    assert CliRunner().invoke(cli, ["plan", "rates", str(tmp_path), "--out", str(out)]).exit_code == 0
    assert pq.read_table(out).column("problem_id").to_pylist() == ["a", "b"]
    rows = tmp_path / "rates.jsonl"
    assert CliRunner().invoke(cli, ["plan", "rates", str(tmp_path), "--out", str(rows)]).exit_code == 0
    for exported in (out, rows):  # what was exported can be read again, to the last outcome and its step
        assert read_history(exported).state_dict()["history"] == store.state_dict()["history"]
    rows.write_text(rows.read_text().replace('"011"', '"01x"'))
    with pytest.raises(ValueError, match=r"rates\.jsonl: line 1: history: not as `rlvr plan rates` writes it"):
        read_history(rows)
    measured = tmp_path / "difficulty.parquet"
    pq.write_table(pa.Table.from_pylist([{"id": "c", "passed": 1, "samples": 4, "rate": 0.25}]), measured)
    assert read_history(measured).groups("c")[0].passed == "1000"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"problem_id": "a", "rate": 0.5}\n{"rate": 1}', "line 2: not a JSON object with problem_id"),
        ("x.jsonl", '{"problem_id": "a", "rate": 1.5}', r"line 1: rate 1.5 is not in \[0, 1\]"),
        ("x.jsonl", '{"problem_id": "a", "rate": "x"}', "line 1: rate 'x' is not in"),
        ("x.jsonl", '{"problem_id": "a", "rate": NaN}', "line 1: rate nan is not in"),
        ("x.jsonl", '{"problem_id": "a", "rate": 0.05, "rollouts": 8}', "line 1: rate 0.05 is not a share of 8"),
        ("x.jsonl", '{"problem_id": "a", "rate": 0.5, "rollouts": 0}', "line 1: `rollouts` is a whole number from 1"),
        ("x.jsonl", '{"problem_id": "a", "rate": 0.5}\n' * 2, "line 2: problem 'a' stands there twice"),
        ("x.jsonl", '{"problem_id": "a", "outcomes": "01"}', "line 1: `outcomes` is a list"),
        ("x.jsonl", '{"problem_id": "a", "outcomes": [0, 0.3]}', "line 1: .*reward 0.3 of problem 'a'"),
        ("x.jsonl", '{"problem_id": "a", "successes": 3, "rollouts": 2}', "line 1: `successes` is a whole number"),
        ("x.jsonl", '{"problem_id": "a"}', "line 1: neither `outcomes` nor `rate`"),
        ("x.jsonl", "", "holds no problem"),
        ("x.json", "[1]", "neither the state of a GRPO run nor outcomes by problem"),
        ("x.json", '{"step": 5, "stage": "sft"}', "neither the state of a GRPO run"),
        ("x.json", "{", "not JSON"),
        ("x.parquet", "no", "not a parquet file"),
        ("run/stage2/rollouts/stage2/x", "", "run: holds neither .* name one of its stages: stage2"),
    ],
)
def test_a_history_that_cannot_be_read_is_one_line_with_file_and_row(tmp_path, name, text, message):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read_history(tmp_path / name.split("/")[0])
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_plan_simulate_prints_a_line_for_each_policy():
    done = CliRunner().invoke(
        cli, ["plan", "simulate", "--problems", "64", "--problems-per-step", "32", "--steps", "4", "--seeds", "1"]
    )
    assert done.exit_code == 0, done.output
    with pytest.raises(ValueError, match="speed nan"):
        simulate([0.5], Uniform(), steps=1, problems_per_step=1, mean_rollouts=2, speed=float("nan"))
    assert [line.split()[0] for line in done.output.splitlines()[2:]] == [
        "uniform", "knapsack-window", "knapsack-beta", "dynamic",
    ]  # fmt: skip
