"""Weight sync of experts: checkpoint names, whole updates, every engine parameter once, and faults that are noticed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from rlvr.moe.sync import (
    Manifest,
    SyncCanary,
    SyncRefused,
    Update,
    canary_due,
    checkpoint_tensors,
    coverage,
    engine_name,
    refuse_moving_experts,
)
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


def policy(family: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.5 if name.endswith("gate.weight") else 0.15)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.uniform_(-0.5, 0.5)
    return model.eval()


class Engine:
    """Another process's copy of the policy: loads what is sent by checkpoint name, from a file, as an engine does."""

    def __init__(self, policy: Any, folder: Path) -> None:
        self.folder = folder
        policy.config.save_pretrained(folder)
        self.model: Any = None

    def load(self, tensors: Any) -> None:
        save_file({name: tensor.contiguous() for name, tensor in tensors}, self.folder / "model.safetensors")
        torch.manual_seed(99)  # what is missing becomes something else
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logps = torch.log_softmax(self.model(tokens).logits[:, :-1], -1)
        return logps.gather(-1, tokens[:, 1:, None])[..., 0]


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


def test_an_update_is_whole_or_refused() -> None:
    model = policy("glm4_moe")
    with pytest.raises(SyncRefused, match="version 7 ended before its last tensor"), Update(model, 7) as update:
        next(iter(update))
    with Update(model, 8, dtype=torch.bfloat16) as update:
        sent = dict(update)
    assert update.manifest is not None and update.manifest.version == 8
    assert update.manifest.elements == sum(t.numel() for t in model.state_dict().values())
    bias = next(name for name in sent if name.endswith("e_score_correction_bias"))
    assert sent[bias].dtype == torch.float32
    assert sent["model.norm.weight"].dtype == torch.bfloat16


def stacked(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Shapes of an engine that stacks as vLLM does."""
    sizes: dict[str, int] = {}
    for name, (shape, _) in manifest.tensors.items():
        sizes[engine_name(name)] = sizes.get(engine_name(name), 0) + int(torch.Size(shape).numel())
    return {name.replace(".experts.w", ".experts.routed_experts.w"): (size,) for name, size in sizes.items()}


def test_every_engine_parameter_is_covered_once_or_named() -> None:
    with Update(policy("glm4_moe"), 1) as update:
        list(update)
    manifest = update.manifest
    assert manifest is not None
    engine = stacked(manifest)
    assert any(name.endswith("qkv_proj.weight") for name in engine)
    assert coverage(manifest, engine) == []
    for missing in ("model.layers.1.mlp.experts.3.up_proj.weight", "model.layers.1.mlp.gate.e_score_correction_bias"):
        fewer = Manifest(1, {n: v for n, v in manifest.tensors.items() if n != missing})
        (line,) = coverage(fewer, engine)
        assert "model.layers.1.mlp" in line and "the update fills" in line
    more = Manifest(1, {**manifest.tensors, "model.layers.9.extra": ((3,), "float32")})
    assert coverage(more, engine) == ["model.layers.9.extra: sent, but the engine has no such parameter"]


@pytest.mark.parametrize("family", ["glm4_moe", "qwen3_moe"])
def test_the_canary_is_silent_on_equal_weights_and_trips_on_every_fault(family: str, tmp_path: Path) -> None:
    model = policy(family)
    engine = Engine(model, tmp_path)
    engine.load(checkpoint_tensors(model))
    canary = SyncCanary(torch.randint(3, 300, (4, 24), generator=torch.Generator().manual_seed(1)))
    bound = canary.calibrate(model, engine)
    assert bound < 1e-3
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    with pytest.raises(SyncRefused, match="after the sync of version 1"):
        canary.check(model, engine, 1)  # nothing was sent
    engine.load(checkpoint_tensors(model))
    assert canary.check(model, engine, 2) <= bound
    faults = ["permuted", "swapped", "missing"] + (["stale_bias"] if family == "glm4_moe" else [])
    for fault in faults:
        tensors = list(with_fault(checkpoint_tensors(model), fault))
        if fault == "missing":  # an engine keeps what it had; this one would refuse to load
            old = dict(checkpoint_tensors(policy(family, seed=5)))
            names = {name for name, _ in tensors}
            tensors += [(name, tensor) for name, tensor in old.items() if name not in names]
        engine.load(tensors)
        with pytest.raises(SyncRefused, match="not the policy's"):
            canary.check(model, engine, 3)


def test_checked_often_at_first_and_refused_where_experts_move() -> None:
    assert [n for n in range(1, 160) if canary_due(n)] == [1, 2, 3, 50, 100, 150]
    refuse_moving_experts({"enable_eplb": False})
    for arguments in ({"enable_eplb": True}, {"parallel_config": {"enable_eplb": True}}):
        with pytest.raises(SyncRefused, match="enable_eplb"):
            refuse_moving_experts(arguments)
    with pytest.raises(ValueError, match="calibrate"):
        SyncCanary(torch.ones(1, 4, dtype=torch.long)).check(policy("qwen3_moe"), lambda t: t[:, 1:], 1)
