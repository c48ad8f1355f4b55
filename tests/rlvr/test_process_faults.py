"""Of several processes one falls ill: the launch ends within a minute, says why, and continues as the same run."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from processes import ends_well, launch
from test_grpo_trainer import recipe, weights

from rlvr.budget import SuccessRates
from rlvr.config import GRPORecipe
from rlvr.training.checkpoints import complete_checkpoints

PROGRAM = Path(__file__).with_name("sick_process.py")


@pytest.fixture(scope="module")
def settings(warm_model, problems_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def make(name: str, **grpo) -> GRPORecipe:
        few = {"per_device_train_batch_size": 6, "max_steps": 4, "save_steps": 1, "save_total_limit": 10}
        shaped = {"overlong_buffer": 18}  # lengths differ, so there is something to learn whatever passes
        values = {"judge": {"workers": 1}, "reward": shaped, "grpo": {**few, **grpo}}
        values["curriculum"] = {"measure_rollouts": 3}
        values["budget"] = {"policy": "knapsack", "min_rollouts": 3, "high": 12}
        return recipe(warm_model, problems_file, folder / name, **values)

    return make


@pytest.fixture(scope="module")
def whole(settings) -> Path:
    out = Path(settings("whole").output_dir)
    seen = out.with_name("seen")
    seen.mkdir()
    ends_well(launch(settings("whole"), PROGRAM, RLVR_TEST_SEEN=str(seen)))
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sickness", "named"),
    [
        ("killed", "Signal 9 (SIGKILL)"),
        pytest.param("full disk", "step 3: checkpoint-3 could not be written to", marks=pytest.mark.thorough),
        pytest.param("judge", "the judge failed on", marks=pytest.mark.thorough),
        pytest.param("not a number", "the loss is nan", marks=pytest.mark.thorough),
    ],
)
def test_one_process_that_falls_ill_ends_the_launch_by_name_and_the_run_continues(sickness, named, settings, whole):
    run = settings(sickness.replace(" ", "-"))
    out = Path(run.output_dir)
    with launch(run, PROGRAM, RLVR_TEST_SICKNESS=sickness) as launched:
        while not any(step == 2 for step, _ in complete_checkpoints(out)):
            assert launched.poll() is None, launched.stderr and launched.stderr.read()[-3000:]
            time.sleep(0.05)
        _, errors = launched.communicate(timeout=180)  # a minute, and a crowded machine
    assert launched.returncode != 0 and named in errors, errors[-3000:]
    assert not (out / "final").exists() and max(step for step, _ in complete_checkpoints(out)) == 2
    ends_well(launch(run, PROGRAM))
    for name, tensor in weights(whole / "final").items():
        assert torch.equal(weights(out / "final")[name], tensor), name


@pytest.mark.slow
def test_processes_share_the_measurement_of_pass_rates(whole, problems_file, warm_model, tmp_path):
    measured = json.loads((whole / "pre_grpo.json").read_text())
    assert {len(group) for group in measured.values()} == {3}
    final = json.loads((whole / "final" / "rlvr_state.json").read_text())
    assert set(final["success_rates"]["history"]) == set(measured), "and each of them knows of all"


@pytest.mark.slow
def test_every_process_knows_the_outcomes_of_all_exactly(whole):
    first, second = ((whole.parent / "seen" / f"{rank}.jsonl").read_text() for rank in (0, 1))
    assert first == second
    told = [json.loads(line) for line in first.splitlines()]
    state = SuccessRates()
    for problem, step, outcomes, tokens in told:
        state.record(problem, outcomes, step, tokens)
    final = json.loads((whole / "final" / "rlvr_state.json").read_text())
    assert state.state_dict()["history"] == final["success_rates"]["history"]
    sizes = set()
    for step in (1, 2, 3, 4):
        rows = pq.read_table(whole / "rollouts" / "stage1" / f"step-{step:06d}.parquet").to_pylist()
        for problem in {row["problem_id"] for row in rows}:
            group = [row for row in rows if row["problem_id"] == problem]
            (entry,) = [entry for entry in told if entry[:2] == [problem, step]]
            assert entry[2:] == [[float(r["verdict"] == "AC") for r in group], [r["completion_tokens"] for r in group]]
            sizes.add(len(group))
    assert len(sizes) > 1  # of the knapsack's making, and the same in both


@pytest.mark.slow
def test_what_was_skipped_is_of_all_processes(whole):
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        rows = pq.read_table(whole / "rollouts" / "stage1" / f"step-{line['step']:06d}.parquet").to_pylist()
        still = sum(row["advantage"] == 0 for row in rows)
        assert still > 0 and line["skipped_rollouts"] * len(rows) == pytest.approx(still)


@pytest.mark.slow
def test_a_run_continues_with_another_number_of_processes(settings, whole):
    run = settings("fewer")
    out = Path(run.output_dir)
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("final", "checkpoint-[34]"))
    ends_well(launch(run, PROGRAM, processes=1))
    assert (out / "final" / "model.safetensors").is_file()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4
