"""Expert placement: bounds, properties, and the constraint solver as the oracle for small instances."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.commands.moe import moe
from rlvr.config import RecipeError
from rlvr.moe.placement import Placement, linear_placement, placement_of, plan_placement
from rlvr.moe.statistics import ExpertLoad

LOADS = st.lists(st.integers(0, 1000), min_size=8, max_size=8)


@given(load=LOADS, ranks=st.sampled_from([1, 2, 4, 8]), spare=st.integers(0, 2), nodes=st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_every_expert_is_placed_slots_are_equal_and_it_is_never_worse_than_in_order(
    load: list[int], ranks: int, spare: int, nodes: int
) -> None:
    if ranks % nodes:
        nodes = 1
    row = np.array([load])
    plan = plan_placement(row, ranks, redundant=spare * ranks, nodes=nodes)
    assert plan.slots.shape == (1, ranks, 8 // ranks + spare)
    assert (plan.replicas >= 1).all()
    assert plan.replicas.sum() == 8 + spare * ranks
    assert plan.skew(row)[0] <= linear_placement(1, 8, ranks, spare * ranks).skew(row)[0] + 1e-9
    assert plan.rank_loads(row).sum() == pytest.approx(sum(load))


def best_by_solver(load: list[int], ranks: int) -> int:
    """The least possible load of the busiest rank, without replicas."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    at = [[model.new_bool_var(f"{e}@{r}") for r in range(ranks)] for e in range(len(load))]
    top = model.new_int_var(0, sum(load), "top")
    for row in at:
        model.add_exactly_one(row)
    for rank in range(ranks):
        model.add(sum(row[rank] for row in at) == len(load) // ranks)
        model.add(sum(weight * row[rank] for weight, row in zip(load, at, strict=True)) <= top)
    model.minimize(top)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == cp_model.OPTIMAL
    return int(solver.objective_value)


def test_close_to_the_solvers_optimum_on_small_instances() -> None:
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(12):
        load = generator.integers(0, 1000, 8).tolist()
        for ranks in (2, 4):
            found = plan_placement(np.array([load]), ranks).rank_loads(np.array([load])).max()
            best = best_by_solver(load, ranks)
            assert found >= best - 1e-9
            ratios.append(found / best)
    assert np.mean(ratios) < 1.02
    assert max(ratios) < 1.10


def test_an_expert_above_a_ranks_fair_share_needs_replicas() -> None:
    load = np.array([[800, 100, 100, 100, 100, 100, 100, 100.0]])
    without, with_replicas = plan_placement(load, 4), plan_placement(load, 4, redundant=4)
    assert without.skew(load)[0] > 2.0
    assert with_replicas.skew(load)[0] < 1.15
    assert with_replicas.replicas[0, 0] >= 3


def test_the_simulated_table_of_the_documentation() -> None:
    generator = np.random.default_rng(0)

    def mean_skew(exponent: float, ranks: int, redundant: int) -> tuple[float, float]:
        load = generator.permuted(np.tile(np.arange(1, 129) ** -exponent, (8, 1)), axis=1)
        plan = plan_placement(load, ranks, redundant=redundant)
        return linear_placement(8, 128, ranks).skew(load).mean(), plan.skew(load).mean()

    linear, planned = mean_skew(0.6, 8, 0)
    assert 1.3 < linear < 1.6
    assert planned < 1.09
    assert mean_skew(0.6, 16, 0)[1] == pytest.approx(1.43, abs=0.03)
    assert mean_skew(0.6, 16, 16)[1] < 1.01
    assert mean_skew(1.0, 16, 0)[1] == pytest.approx(3.11, abs=0.15)
    assert mean_skew(1.0, 16, 16)[1] < 1.05


def test_small_gains_move_nothing() -> None:
    load = np.array([[10, 11, 10, 9, 10, 10, 9, 11.0]])
    current = plan_placement(load, 4)
    later = load + np.array([[0, 0, 0.05, 0, 0, 0, 0, 0]])
    kept = plan_placement(later, 4, current=current)
    assert np.array_equal(kept.slots, current.slots)
    assert current.moved(kept) == 0
    shifted = np.array([[100, 90, 80, 70, 1, 1, 1, 1.0]])
    changed = plan_placement(shifted, 4, current=linear_placement(1, 8, 4))
    assert changed.moved(linear_placement(1, 8, 4)) > 0
    assert changed.skew(shifted)[0] < linear_placement(1, 8, 4).skew(shifted)[0]


@given(load=LOADS, seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_renaming_experts_does_not_change_the_quality(load: list[int], seed: int) -> None:
    row = np.array([load], dtype=float) + np.random.default_rng(7).random(8) * 1e-3  # no ties
    order = np.random.default_rng(seed).permutation(8)
    plain = plan_placement(row, 4, redundant=4)
    renamed = plan_placement(row[:, order], 4, redundant=4)
    if not np.array_equal(plain.slots, linear_placement(1, 8, 4, 4).slots):
        assert renamed.skew(row[:, order])[0] <= linear_placement(1, 8, 4, 4).skew(row[:, order])[0] + 1e-9
    assert renamed.replicas[0].max() == plain.replicas[0].max() or plain.skew(row)[0] < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 16}, "8 experts cannot fill 16 ranks"),
        ({"ranks": 3}, "8 [+] 0 experts do not divide over 3 ranks; 1 redundant ones would"),
        ({"ranks": 4, "nodes": 3}, "3 nodes do not divide 4 ranks"),
        ({"ranks": 4, "redundant": -1}, "at least"),
        ({"ranks": 4, "current": Placement(np.zeros((2, 4, 2), dtype=int), 8)}, "current placement has shape"),
    ],
)
def test_impossible_placements_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_placement(np.ones((1, 8)), **options)


def test_bad_loads_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        plan_placement(np.ones(8), 4)
    with pytest.raises(ValueError, match="finite"):
        plan_placement(np.array([[1, np.nan]]), 2)


def test_the_command_prints_before_and_after_and_writes_a_map(tmp_path: Path) -> None:
    load = ExpertLoad((1, 2), 8)
    load.add(np.array([[500, 400, 10, 10, 10, 10, 10, 10], [9, 9, 9, 9, 9, 9, 300, 300]]))
    source, out = tmp_path / "load.json", tmp_path / "map.json"
    source.write_text(json.dumps(load.as_dict()))
    arguments = ["place", str(source), "--ranks", "4", "--out", str(out)]
    output = CliRunner().invoke(moe, arguments, catch_exceptions=False).output
    assert "in order" in output
    assert "planned" in output
    written = json.loads(out.read_text())
    assert [sorted(row) for row in written] == [list(range(8))] * 2
    again = placement_of(written, 8, 4)
    assert again.skew(load.counts["all"]).max() < linear_placement(2, 8, 4).skew(load.counts["all"]).max()
    kept = CliRunner().invoke(moe, [*arguments, "--current", str(out)], catch_exceptions=False).output
    assert "0 expert copies move" in kept
    for below in (out / "x", out / "x" / "y"):
        refused = CliRunner().invoke(moe, [*arguments[:-1], str(below)])
        assert isinstance(refused.exception, RecipeError) and not refused.output
        assert str(refused.exception) == f"--out: {out} is a file; name a folder"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "not an expert load"),
        ('{"layers": [0], "experts": 2}', "'counts' is missing"),
        ('{"layers": [0], "experts": 2, "counts": [[1, 2]]}', "counts: a list, expected one matrix a kind"),
        ('{"layers": [0], "experts": 4, "counts": {"all": [[1, 2]]}}', "they are another model's"),
        ('{"layers": [0], "experts": 2, "counts": {"all": [[1, -2]]}}', "below 0"),
    ],
)
def test_a_bad_load_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "load.json").write_text(content)
    result = CliRunner().invoke(moe, ["place", str(tmp_path / "load.json"), "--ranks", "2"])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)


def test_a_file_that_is_not_there_is_named_with_what_was_expected(tmp_path: Path) -> None:
    missing, load = str(tmp_path / "none.json"), tmp_path / "load.json"
    load.write_text('{"layers": [0], "experts": 2, "counts": {"all": [[1, 2]]}}')
    for arguments, expected in (
        ([missing, "--ranks", "2"], "no such file; expected the expert_load.json of a run"),
        ([str(tmp_path), "--ranks", "2"], "no such file; expected the expert_load.json of a run"),
        ([str(load), "--ranks", "2", "--current", missing], "no such file; expected a map that --out wrote"),
        ([str(load), "--ranks", "2", "--out", str(tmp_path)], "a folder; expected the name of a file"),
    ):
        error = CliRunner().invoke(moe, ["place", *arguments]).exception
        assert isinstance(error, FileNotFoundError | FileExistsError) and str(error).endswith(expected), error


def test_a_bad_map_is_one_line() -> None:
    with pytest.raises(ValueError, match="differ in length, 1 and 4"):
        placement_of([[0, 1, 2, 3], [1]], 4, 2)
    with pytest.raises(ValueError, match="does not hold every expert"):
        placement_of([[0, 0, 1, 1]], 3, 2)
    with pytest.raises(ValueError, match="expected one list"):
        placement_of({"0": [1]}, 2, 2)
