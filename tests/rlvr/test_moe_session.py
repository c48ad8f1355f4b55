"""Replay, counting and balancing as a trainer uses them, on real tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr.config.moe import BalanceSection, MoESection
from rlvr.moe.balancer import DriftProbe, ExpertBalancer
from rlvr.moe.session import ROUTES, RoutingSession, small, unpacked
from rlvr.moe.statistics import max_violation
from rlvr.moe.tap import RoutingError
from tests.rlvr.moe_families import tiny_config

ROOT = Path(__file__).resolve().parents[2]


def built(family: str, seed: int = 0, **overrides: Any) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def batch(rows: int = 4, width: int = 10) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(rows, width, dtype=torch.long)
    mask[0, :3] = 0
    mask[1, 8:] = 0
    return {
        "input_ids": torch.randint(3, 300, (rows, width), generator=generator),
        "attention_mask": mask,
        "advantages": torch.tensor([1.0, -1.0] * (rows // 2)),
    }


def loss_of(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
    logps = torch.log_softmax(logits[:, :-1], -1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    return -(logps * inputs["attention_mask"][:, 1:] * inputs["advantages"][:, None]).mean()


def perturb(model: Any, size: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("family", ["qwen3_moe", "glm4_moe"])
def test_r2_keeps_the_sampling_policys_routes_while_the_weights_move(family: str) -> None:
    model, inputs = built(family), batch()
    session = RoutingSession(model, MoESection(replay="r2"), updates_per_rollout=2)
    with session.scoring(inputs), torch.no_grad():
        loss_of(model, inputs)
    routes = inputs[ROUTES]
    assert routes.dtype == torch.uint8
    assert routes.shape == (4, 10, len(session.tap.layers), 2)
    perturb(model)
    with session.tap.recording() as free, torch.no_grad():
        loss_of(model, inputs)
    assert not torch.equal(free[0], unpacked(routes)), "the new weights would route differently"
    session.before_update(inputs)
    with session.tap.recording() as replayed:
        loss_of(model, inputs).backward()
    assert torch.equal(replayed[0], unpacked(routes))
    gates = [p for n, p in model.named_parameters() if n.endswith("gate.weight")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gates)
    assert session.take_metrics()["moe/replayed"] == 1.0


def test_r2_before_any_update_is_bit_identical() -> None:
    inputs = batch()
    results = []
    for replay in ("off", "r2"):
        model = built("qwen3_moe")
        session = RoutingSession(model, MoESection(replay=replay), updates_per_rollout=2)
        with session.scoring(inputs if replay == "r2" else {}), torch.no_grad():
            loss_of(model, inputs)
        session.before_update(inputs if replay == "r2" else {})
        loss = loss_of(model, inputs)
        loss.backward()
        results.append([loss.detach()] + [p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_auto_records_only_where_a_batch_is_updated_on_more_than_once() -> None:
    for updates, expected in ((1, False), (2, True)):
        model, inputs = built("qwen3_moe"), batch()
        session = RoutingSession(model, MoESection(), updates_per_rollout=updates)
        with session.scoring(inputs), torch.no_grad():
            loss_of(model, inputs)
        assert (ROUTES in inputs) is expected
        session.tap.remove()


def test_strict_r3_insists_on_routes() -> None:
    session = RoutingSession(built("qwen3_moe"), MoESection(replay="r3"))
    with pytest.raises(RoutingError, match="no routes"):
        session.before_update(batch())
    RoutingSession(built("qwen3_moe"), MoESection(replay="r3", strict=False)).before_update(batch())


@pytest.mark.parametrize("classes", [8, 255, 256, 300])
def test_stored_routes_keep_unknown_ones(classes: int) -> None:
    routes = torch.tensor([[-1, 0, classes - 1]])
    assert torch.equal(unpacked(small(routes, classes)), routes)
    assert small(routes, classes).dtype == (torch.uint8 if classes < 256 else torch.int16)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loads_count_each_fed_token_of_update_passes_once(checkpointing: bool) -> None:
    model, inputs = built("glm4_moe"), batch()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    session = RoutingSession(model, MoESection(replay="off", ranks=2))
    with torch.no_grad():
        loss_of(model, inputs)  # sampling and scoring do not count
    session.before_update(inputs)
    with session.tap.recording() as passes:
        loss_of(model, inputs).backward()
    session.flush()
    valid = inputs["attention_mask"].numpy().astype(bool)
    for row in valid:
        row[np.flatnonzero(row)[-1]] = False  # a sequence's last token feeds nothing
    by_layer = passes[0].numpy()[valid].transpose(1, 0, 2)
    expected = np.array([np.bincount(chosen.ravel(), minlength=8) for chosen in by_layer])
    assert np.array_equal(session.load.counts["all"], expected)
    assert expected.sum() == valid.sum() * 2 * len(session.tap.layers)
    up, down = session.load.counts["advantage_up"], session.load.counts["advantage_down"]
    assert np.array_equal(up + down, expected)
    figures = session.take_metrics()
    assert figures["moe/max_violation_window"] == pytest.approx(max_violation(expected).mean())
    assert figures["moe/rank_skew"] >= 1
    assert "moe/max_violation/advantage_up" in figures
    assert "moe/max_violation_window" not in session.take_metrics(), "a new window begins"


def trained(family: str, section: BalanceSection, steps: int = 40, aux: float = 0.0) -> tuple[float, list[float], Any]:
    """(last MaxVio over the final 15 steps, losses, model) of a toy model taught to copy."""
    model = built(family, num_hidden_layers=2, num_attention_heads=4)
    session = RoutingSession(model, MoESection(replay="off", balance=section, aux_loss_coef=aux))
    balancer = ExpertBalancer(session, section)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(5)
    losses, violations = [], []
    for _ in range(steps):
        half = torch.randint(3, 40, (16, 8), generator=generator)
        ids = torch.cat([half, half], dim=1)
        session.before_update({})
        logits = model(ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, 7:-1].flatten(0, 1), ids[:, 8:].flatten())
        total = loss + aux * session.aux_loss() if aux else loss
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        session.flush()
        violations.append(session.take_metrics()["moe/max_violation_batch"])
        balancer.update()
        losses.append(float(loss))
    return float(np.mean(violations[-15:])), losses, model


@pytest.mark.slow
def test_training_with_each_rule_is_more_even_at_the_same_loss() -> None:
    plain, plain_losses, _ = trained("glm4_moe", BalanceSection(), 60)
    for rule, rate in (("sign", 1e-2), ("inverse", 1.0)):
        balanced, losses, model = trained("glm4_moe", BalanceSection(rule=rule, rate=rate), 60)
        assert balanced < 0.75 * plain, rule
        assert abs(np.mean(losses[-5:]) - np.mean(plain_losses[-5:])) < 0.5
        bias = dict(model.named_buffers())["model.layers.1.mlp.gate.e_score_correction_bias"]
        assert bias.abs().max() > 0
        assert abs(float(bias.mean())) < 1e-5, "recentred"


def test_families_without_a_bias_have_an_auxiliary_loss_on_recorded_routes() -> None:
    plain, _, _ = trained("qwen3_moe", BalanceSection())
    balanced, _, _ = trained("qwen3_moe", BalanceSection(), aux=0.5)
    assert balanced < 0.75 * plain
    biased = RoutingSession(built("glm4_moe"), MoESection(aux_loss_coef=0.1))
    with pytest.raises(RoutingError, match="without a selection bias"):
        biased.aux_loss()


def test_the_auxiliary_loss_is_one_for_even_load_and_survives_checkpointing() -> None:
    inputs, values, grads = batch(), [], []
    for checkpointing in (False, True):
        model = built("qwen3_moe")
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        session = RoutingSession(model, MoESection(aux_loss_coef=1.0))
        session.before_update(inputs)
        main = loss_of(model, inputs)
        aux = session.aux_loss()
        (main * 0 + aux).backward()
        values.append(float(aux))
        grads.append(model.model.layers[1].mlp.gate.weight.grad.clone())
    assert values[0] == values[1] > 1.0
    assert torch.equal(grads[0], grads[1])
    assert grads[0].abs().sum() > 0


def balancer_after(updates: int, section: BalanceSection, family: str = "glm4_moe") -> tuple[ExpertBalancer, Any]:
    model, inputs = built(family), batch()
    session = RoutingSession(model, MoESection(replay="off"))
    balancer = ExpertBalancer(session, section)
    for _ in range(updates):
        session.before_update({})
        loss_of(model, inputs)
        balancer.update()
    return balancer, model


def test_freezing_warm_up_and_clipping() -> None:
    frozen, _ = balancer_after(5, BalanceSection(rule="sign", freeze_after=2))
    assert (frozen.updates, frozen.frozen) == (2, True)
    warm, _ = balancer_after(1, BalanceSection(rule="sign", rate=0.1, warmup_steps=10))
    cold, _ = balancer_after(1, BalanceSection(rule="sign", rate=0.1))
    assert np.allclose(warm.biases() * 10, cold.biases(), atol=1e-6)
    clipped, _ = balancer_after(4, BalanceSection(rule="sign", rate=0.1, clip=0.05))
    assert np.abs(clipped.biases()).max() == pytest.approx(0.05, abs=1e-6)
    off, _ = balancer_after(3, BalanceSection())
    assert (off.biases() == 0).all()


def test_a_drift_budget_takes_back_the_step_that_breaks_it_and_stops() -> None:
    model, inputs = built("glm4_moe"), batch()
    session = RoutingSession(model, MoESection(replay="off"))
    section = BalanceSection(rule="sign", rate=0.05, kl_budget=1e-9)
    balancer = ExpertBalancer(session, section, probe=DriftProbe(session, model, inputs["input_ids"]))
    session.before_update({})
    loss_of(model, inputs)
    figures = balancer.update()
    assert figures["moe/bias_step_kl"] > 0
    assert balancer.frozen
    assert (balancer.biases() == 0).all()
    generous = BalanceSection(rule="sign", rate=1e-6, kl_budget=10.0)
    patient = ExpertBalancer(session, generous, probe=DriftProbe(session, model, inputs["input_ids"]))
    loss_of(model, inputs)
    patient.update()
    assert not patient.frozen


@pytest.mark.parametrize("family", ["glm4_moe", "qwen3_moe"])
def test_the_controller_continues_from_its_state_as_if_it_had_not_stopped(family: str) -> None:
    section = BalanceSection(rule="inverse", rate=0.1)
    whole, whole_model = balancer_after(4, section, family)
    half, model = balancer_after(2, section, family)
    state = json.loads(json.dumps(half.state_dict()))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    resumed_model, inputs = built(family, seed=1), batch()
    resumed_model.load_state_dict(weights)
    session = RoutingSession(resumed_model, MoESection(replay="off"))
    resumed = ExpertBalancer(session, section)
    resumed.load_state_dict(state)
    for _ in range(2):
        session.before_update({})
        loss_of(resumed_model, inputs)
        resumed.update()
    assert np.allclose(resumed.biases(), whole.biases(), atol=1e-7)
    assert resumed.updates == 4
    with torch.no_grad():
        assert torch.equal(loss_of(resumed_model, inputs), loss_of(whole_model, inputs))


def test_state_of_another_model_is_refused() -> None:
    half, _ = balancer_after(1, BalanceSection(rule="sign"), "qwen3_moe")
    other, _ = balancer_after(0, BalanceSection(rule="sign"))
    with pytest.raises(ValueError, match="biases are of shape"):
        other.load_state_dict(half.state_dict())


def test_a_frozen_router_gets_no_gradient() -> None:
    model, inputs = built("qwen3_moe"), batch()
    RoutingSession(model, MoESection(freeze_router=True))
    loss_of(model, inputs).backward()
    assert all((p.grad is None) == n.endswith("mlp.gate.weight") for n, p in model.named_parameters())


TWO_RANKS = """
import sys, torch, torch.distributed as dist
from rlvr.config.moe import BalanceSection, MoESection
from rlvr.moe.balancer import ExpertBalancer
from rlvr.moe.session import RoutingSession
from tests.rlvr.test_moe_session import batch, built, loss_of
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
model = built("glm4_moe")
session = RoutingSession(model, MoESection(replay="off"))
wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
balancer = ExpertBalancer(session, BalanceSection(rule="sign"))
inputs = {name: value[rank * 2 : rank * 2 + 2] for name, value in batch().items()}
session.before_update(inputs)
loss_of(wrapped, inputs).backward()
balancer.update()
print(balancer.biases().ravel().round(6).tolist(), flush=True)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_under_ddp_move_their_biases_as_one_process_would(tmp_path: Path) -> None:
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path / "meet")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    alone, _ = balancer_after(1, BalanceSection(rule="sign"))
    expected = alone.biases().ravel().round(6).tolist()
    assert [json.loads(output) for output in outputs] == [pytest.approx(expected)] * 2
