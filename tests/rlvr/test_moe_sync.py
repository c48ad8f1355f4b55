"""Weight sync of experts: checkpoint names, whole updates, every engine parameter once, and faults that are noticed."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from policy_server import PolicyServer
from test_grpo_trainer import recipe
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

import rlvr.moe.sync as sync
import rlvr.training.engines as engines
from rlvr.models import build_tiny_policy
from rlvr.moe.sync import (
    Manifest,
    SyncCanary,
    SyncRefused,
    canary_due,
    checkpoint_state,
    checkpoint_tensors,
    coverage,
    engine_name,
    refuse_moving_experts,
)
from rlvr.training.faults import TrainingFault
from rlvr.training.grpo import train_grpo
from tests.rlvr.moe_families import tiny_config


def with_fault(tensors: Iterable[tuple[str, Tensor]], fault: str) -> Iterator[tuple[str, Tensor]]:
    """Yields checkpoint tensors with one fault put in, to try a canary: "permuted" (experts 0 and 1 of every layer
    swapped), "stale_bias" (router biases zero), "swapped" (gate and up projections exchanged), "missing" (the first
    expert's down projection left out). Raises ValueError for another name."""
    first = {"permuted": _permuted, "swapped": _swapped}
    if fault not in (*first, "stale_bias", "missing"):
        raise ValueError(f"unknown fault {fault!r}")
    for name, tensor in tensors:
        if fault == "missing" and re.search(r"experts\.0\.(down_proj|w2)\.weight$", name):
            continue
        if fault == "stale_bias" and name.endswith("e_score_correction_bias"):
            yield name, torch.zeros_like(tensor)
        else:
            yield first.get(fault, str)(name), tensor


def _permuted(name: str) -> str:
    return re.sub(r"experts\.([01])\.", lambda m: f"experts.{1 - int(m[1])}.", name)


def _swapped(name: str) -> str:
    if ".experts." not in name:
        return name
    other = {"gate_proj": "up_proj", "up_proj": "gate_proj", "w1": "w3", "w3": "w1"}
    return re.sub(r"\b(gate_proj|up_proj|w1|w3)\b", lambda m: other[m[1]], name)


def policy(family: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family))
    scatter(model)
    return model.eval()


def scatter(model: Any) -> None:
    """Weights wide enough for every expert and every router to matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.5 if name.endswith("gate.weight") else 0.15)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.uniform_(-0.5, 0.5)


@pytest.mark.parametrize("family", ["qwen3_moe", "glm4_moe", "deepseek_v3", "mixtral", "gpt_oss", "olmoe"])
def test_layer_by_layer_equals_the_whole_conversion(family: str) -> None:
    model = policy(family)
    sent = dict(checkpoint_tensors(model))
    whole = revert_weight_conversion(model, model.state_dict())
    assert sent.keys() == whole.keys()
    assert all(torch.equal(sent[name], whole[name]) for name in whole)
    biases = [name for name in model.state_dict() if name.endswith("e_score_correction_bias")]
    assert set(biases) <= sent.keys()


def test_tied_embeddings_are_sent_once() -> None:
    model = AutoModelForCausalLM.from_config(tiny_config("qwen3_moe", tie_word_embeddings=True))
    names = [name for name, _ in checkpoint_tensors(model)]
    assert len(set(names)) == len(names)
    assert ("lm_head.weight" in names) + ("model.embed_tokens.weight" in names) == 1


def stacked(manifest: Manifest) -> dict[str, int]:
    """Elements of an engine that stacks as vLLM does."""
    sizes: dict[str, int] = {}
    for name, (shape, _) in manifest.tensors.items():
        target = engine_name(name).replace(".experts.w", ".experts.routed_experts.w")
        sizes[target] = sizes.get(target, 0) + int(torch.Size(shape).numel())
    return sizes


def manifest_of(family: str) -> Manifest:
    model = policy(family)
    manifest = Manifest.of(1, checkpoint_state(model))
    assert manifest.elements == sum(tensor.numel() for tensor in model.state_dict().values())
    return manifest


def test_every_engine_parameter_is_covered_once_or_named() -> None:
    manifest = manifest_of("glm4_moe")
    engine = stacked(manifest)
    assert any(name.endswith("qkv_proj.weight") for name in engine)
    assert coverage(manifest, engine) == coverage(manifest, engine, loaded=engine.keys()) == []
    for missing in ("model.layers.1.mlp.experts.3.up_proj.weight", "model.layers.1.mlp.gate.e_score_correction_bias"):
        fewer = Manifest(1, {n: v for n, v in manifest.tensors.items() if n != missing})
        (line,) = coverage(fewer, engine)
        assert "model.layers.1.mlp" in line and "the update fills" in line
        filled = {engine_name(name).replace(".experts.w", ".experts.routed_experts.w") for name in fewer.tensors}
        (line,) = coverage(fewer, engine, loaded=filled)
        assert "model.layers.1.mlp" in line
    more = Manifest(1, {**manifest.tensors, "model.layers.9.extra": ((3,), "float32")})
    assert coverage(more, engine) == ["model.layers.9.extra: sent, but the engine has no such parameter"]
    assert coverage(more, engine, loaded=engine.keys()) == [], "the engine's loader knows what it is"


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_may_share_a_parameter_out_or_each_hold_it(workers: int) -> None:
    manifest = manifest_of("qwen3_moe")
    whole = stacked(manifest)
    shared = {name: size * (1 if ".experts." in name or "_proj" in name else workers) for name, size in whole.items()}
    assert coverage(manifest, shared, loaded=shared.keys(), copies=workers) == []
    missing = "model.layers.1.mlp.experts.3.up_proj.weight"
    fewer = Manifest(1, {n: v for n, v in manifest.tensors.items() if n != missing})
    (line,) = coverage(fewer, shared, loaded=shared.keys(), copies=workers)
    assert "model.layers.1.mlp.experts.routed_experts.w13_weight" in line


def test_two_tensors_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = policy("qwen3_moe")
    twice = [*checkpoint_tensors(model), next(iter(checkpoint_tensors(model)))]
    monkeypatch.setattr(sync, "checkpoint_tensors", lambda *arguments: iter(twice))
    with pytest.raises(SyncRefused, match="would be sent twice in one update"):
        checkpoint_state(model)


EXPERTS = ["qwen3_moe", "glm4_moe"]


@pytest.fixture(scope="module", params=EXPERTS)
def experts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, demonstrations: list[dict[str, str]]
) -> Path:
    """A checkpoint whose experts, routers and biases all matter, with its tokenizer."""
    texts = [row["prompt"] + row["completion"] for row in demonstrations[:400]]
    folder = build_tiny_policy(
        texts, tmp_path_factory.mktemp("experts") / request.param, family=request.param, vocab_size=400, hidden=32,
        layers=2, heads=2, mlp=64, expert_mlp=32, experts=8, top_k=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder)
    scatter(model)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("experts", "fault"),
    [
        *((family, fault) for family in EXPERTS for fault in ("none", "permuted", "swapped")),
        ("glm4_moe", "stale_bias"),  # the other family has no bias
    ],
    indirect=["experts"],
)
def test_the_canary_stops_a_run_whose_server_mangles_the_weights(
    experts: Path, problems_file: Path, tmp_path: Path, fault: str
) -> None:
    damage = None if fault == "none" else functools.partial(with_fault, fault=fault)
    server = PolicyServer(experts, fault=damage)
    grpo = {"use_vllm": True, "vllm_mode": "file", "vllm_url": server.url, "max_steps": 1, "learning_rate": 1e-2}
    run = recipe(experts, problems_file, tmp_path / "run", grpo={**grpo, "max_completion_length": 8})
    try:
        if damage is None:
            train_grpo(run)
            (line,) = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
            assert line["sync/canary_gap"] < 1e-5
        else:
            with pytest.raises(TrainingFault, match=r"step 1: after the sync of version 0 .* differ by .* not the pol"):
                train_grpo(run)
            assert server.requests == 0
    finally:
        server.close()


def test_a_tensor_that_is_not_sent_is_named(
    experts: Path, problems_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = engines.policy_weights
    monkeypatch.setattr(engines, "policy_weights", lambda trainer: with_fault(inner(trainer), "missing"))
    server = PolicyServer(experts)
    grpo = {"use_vllm": True, "vllm_mode": "file", "vllm_url": server.url, "max_steps": 1}
    try:
        with pytest.raises(TrainingFault, match=r"does not fill the engine: model\.layers\.\d\.mlp\.experts\.w2_we"):
            train_grpo(recipe(experts, problems_file, tmp_path / "run", grpo=grpo))
    finally:
        server.close()


def test_trls_own_sync_sends_experts_as_a_checkpoint_has_them_with_their_biases(experts: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(experts)
    accelerator = SimpleNamespace(unwrap_model=lambda wrapped: wrapped, distributed_type="NO")
    trainer = SimpleNamespace(model=model, accelerator=accelerator)
    sent = dict(engines.as_in_checkpoints(trainer, model.named_parameters))
    whole = checkpoint_state(model)
    assert sent.keys() == whole.keys() and all(torch.equal(sent[name], whole[name]) for name in whole)


def test_a_canary_bounds_what_rounding_does_not_explain() -> None:
    canary = SyncCanary(torch.ones(1, 4, dtype=torch.long), bound=0.1)
    assert canary.calibrate(0.3) == 0.1, "an engine that held something else when it started says nothing"
    assert canary.calibrate(0.004) == pytest.approx(0.02)
    assert canary.calibrate(0.0) == 1e-4
    with pytest.raises(SyncRefused, match="version 7"):
        canary.check(float("nan"), 7)
    with pytest.raises(SyncRefused, match=r"scored \[1, 2\] tokens"):
        canary.gap(torch.zeros(1, 3), torch.zeros(1, 2))


def test_checked_often_at_first_and_refused_where_experts_move() -> None:
    assert [n for n in range(1, 160) if canary_due(n)] == [1, 2, 3, 50, 100, 150]
    assert not any(canary_due(n, first=0, every=0) for n in range(1, 160))
    refuse_moving_experts({"enable_eplb": False})
    for arguments in ({"enable_eplb": True}, {"parallel_config": {"enable_eplb": True}}):
        with pytest.raises(SyncRefused, match="enable_eplb"):
            refuse_moving_experts(arguments)
