"""Weights shared out among processes: FSDP2 and DeepSpeed train, save, resume and feed an engine as one does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from policy_server import PolicyServer
from processes import ROOT, ends_well, launch
from test_grpo_trainer import recipe, weights
from test_policy_engines import by_file

from rlvr.config import GRPORecipe
from rlvr.training.checkpoints import complete_checkpoints

ACCELERATE = ROOT / "configs" / "accelerate"


def environment_of(name: str | None) -> dict[str, str]:
    """What `accelerate launch` makes of one of our files, on CPUs and in float32."""
    if name is None:
        return {}
    keys = yaml.safe_load((ACCELERATE / f"{name}.yaml").read_text())
    if keys["distributed_type"] == "FSDP":
        variables = {"ACCELERATE_USE_FSDP": "true"}
        return variables | {key.upper(): str(value).lower() for key, value in keys["fsdp_config"].items()} | {
            key.upper(): keys["fsdp_config"][key] for key in ("fsdp_auto_wrap_policy", "fsdp_state_dict_type")
        }  # fmt: skip
    variables = {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}
    return variables | {
        f"ACCELERATE_DEEPSPEED_{key.upper()}": str(value).lower() for key, value in keys["deepspeed_config"].items()
    }


def train_in_two_processes(run: GRPORecipe, sharding: str | None) -> None:
    """`rlvr train` in two processes under one of configs/accelerate; asserts that it ends well."""
    ends_well(launch(run, Path(__file__).with_name("sharded_cpu.py"), **environment_of(sharding)))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def settings(warm_model, problems_file, tmp_path):
    def make(name: str, **grpo) -> GRPORecipe:
        few = {"per_device_train_batch_size": 3, "max_steps": 3, "save_steps": 1, "save_total_limit": 10}
        # lengths differ, so some groups have something to learn whatever passes
        return recipe(
            warm_model,
            problems_file,
            tmp_path / name,
            judge={"workers": 1},
            reward={"overlong_buffer": 10},
            curriculum={"measure_rollouts": 1},
            grpo={**few, "updates_per_step": 2, "fast_sampling": False, **grpo},
        )

    return make


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["fsdp2", "zero2", "zero3"])
def test_sharded_training_is_that_of_whole_weights_and_resumes_exactly(sharding, settings, tmp_path):
    if sharding.startswith("zero"):
        pytest.importorskip("deepspeed")
    train_in_two_processes(settings("whole"), None)
    train_in_two_processes(settings(sharding), sharding)
    whole, ours = tmp_path / "whole", tmp_path / sharding
    assert (ours / "pre_grpo.json").read_text() == (whole / "pre_grpo.json").read_text()
    for line, other in zip(lines(ours), lines(whole), strict=True):
        assert line["reward"] == other["reward"] and line["skipped_rollouts"] == other["skipped_rollouts"]
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    assert any(line["skipped_rollouts"] > 0 and line["grad_norm"] > 0 for line in lines(ours))
    start, reference = weights(Path(settings("any").model.name_or_path)), weights(whole / "final")
    for name, tensor in weights(ours / "final").items():
        torch.testing.assert_close(tensor, reference[name], atol=1e-4, rtol=0)
    assert max(float((reference[name] - start[name]).abs().max()) for name in start) > 2e-3

    cut = tmp_path / "cut"
    shutil.copytree(ours, cut, ignore=shutil.ignore_patterns("final", "checkpoint-[46]"))
    train_in_two_processes(settings("cut"), sharding)
    for name, tensor in weights(ours / "final").items():
        assert torch.equal(tensor, weights(cut / "final")[name]), name
    assert lines(cut)[-1]["loss"] == lines(ours)[-1]["loss"]


@pytest.mark.thorough
@pytest.mark.parametrize("sharding", ["fsdp2", "zero2", "zero3"])
def test_an_engine_is_given_the_whole_of_sharded_weights(sharding, settings, tmp_path):
    if sharding.startswith("zero"):
        pytest.importorskip("deepspeed")
    run = settings("run")
    server = PolicyServer(Path(run.model.name_or_path))
    try:
        train_in_two_processes(settings("run", **by_file(server.url), learning_rate=5e-3), sharding)
    finally:
        server.close()
    assert server.syncs == 2
    for line in lines(tmp_path / "run"):
        assert line["sampling/logprob_gap"] < 1e-4 and line["sync/canary_gap"] < 1e-5 and line["grad_norm"] > 0


@pytest.mark.thorough
@pytest.mark.parametrize("sharding", ["fsdp2", "zero2", "zero3"])
def test_a_gradient_that_is_no_number_is_left_out_of_sharded_weights_and_ends_the_launch(sharding, settings, tmp_path):
    """Of one process only; DeepSpeed looks at gradients and applies them in one go, so it has to leave them out."""
    if sharding.startswith("zero"):
        pytest.importorskip("deepspeed")
    out = tmp_path / "run"
    run = settings("run", updates_per_step=1, max_steps=4)
    program = Path(__file__).with_name("sharded_cpu.py")
    with launch(run, program, RLVR_TEST_SICKNESS="no gradient", **environment_of(sharding)) as launched:
        _, errors = launched.communicate(timeout=600)
    assert launched.returncode != 0 and "step 3: the gradient's norm is" in errors, errors[-3000:]
    assert [step for step, _ in complete_checkpoints(out)] == [1, 2] and not (out / "final").exists()
    assert all(tensor.isfinite().all() for tensor in weights(out / "checkpoint-2").values())
    train_in_two_processes(run, sharding)
    assert len(lines(out)) == 4
