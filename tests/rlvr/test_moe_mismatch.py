"""Diagnosis of a mismatch, and the expert cache: on real tiny models and on routes whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from rlvr.commands.moe import moe
from rlvr.models import build_tiny_policy
from rlvr.moe.cache import NextLayer, simulate_cache
from rlvr.moe.mismatch import diagnose, token_gap
from rlvr.moe.tap import UnknownRouter
from tests.rlvr.moe_families import tiny_config
from tests.rlvr.test_moe_sync import policy


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    tokens = torch.randint(3, 300, (6, 20), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(tokens)
    mask[0, 12:] = 0
    return [(tokens[:3], mask[:3]), (tokens[3:], mask[3:])]


@given(st.lists(st.tuples(st.floats(-8, 0), st.floats(-8, 0)), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_k3_is_never_negative_and_nothing_on_equal_log_probabilities(pairs: list[tuple[float, float]]) -> None:
    sampler, trainer = (torch.tensor(column, dtype=torch.float64)[None] for column in zip(*pairs, strict=True))
    mask = torch.ones_like(sampler)
    gap = token_gap(sampler, trainer, mask)
    assert gap.k3 >= -1e-12 and gap.k2 >= 0 and 0 <= gap.extreme <= 1
    assert gap.max_gap == pytest.approx(float((sampler - trainer).abs().max()))
    equal = token_gap(sampler, sampler, mask)
    assert equal.k3 == equal.k1 == equal.extreme == 0


def test_masked_tokens_do_not_count() -> None:
    sampler, trainer = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.0, -9.0]])
    gap = token_gap(sampler, trainer, torch.tensor([[1, 0]]))
    assert gap.tokens == 1 and gap.k3 == 0
    with pytest.raises(ValueError, match="no tokens"):
        token_gap(sampler, trainer, torch.zeros(1, 2))


def test_the_causes_are_told_apart_and_replay_takes_routing_away() -> None:
    sampler, trainer = policy("qwen3_moe"), policy("qwen3_moe")
    with torch.no_grad():
        for name, parameter in trainer.named_parameters():
            # routers most, as noise in experts alone would drown what routing does
            size = 0.1 if name.endswith("gate.weight") else 0.001
            parameter += size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7))
    found = diagnose(sampler, trainer, batches(), sampler_dtype=torch.bfloat16, trainer_dtype=torch.float32)
    assert [c.cause for c in found.comparisons] == ["dtype", "weights", "all"]
    for comparison in found.comparisons:
        assert comparison.free.tokens == 6 * 19 - 8
        assert min(comparison.free.same_experts) < 1.0
        assert comparison.replayed.same_experts == (1.0,) * len(found.layers)
    dtype, weights, everything = found.comparisons
    for comparison in (weights, everything):  # rounding re-routes too few tokens of this model to be sure of it
        assert comparison.replayed.k3 < comparison.free.k3
    assert weights.free.k3 > dtype.free.k3 > 0
    assert next(sampler.parameters()).dtype == torch.float32


def test_layers_routed_by_a_table_are_left_out_of_the_diagnosis() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("deepseek_v4"))
    tokens = torch.randint(3, 100, (2, 12), generator=torch.Generator().manual_seed(4))
    whole = [(tokens, torch.ones_like(tokens))]
    found = diagnose(model, model, whole, sampler_dtype=torch.bfloat16, trainer_dtype=torch.float32)
    assert found.layers == (1, 2, 3)
    assert [len(c.free.same_experts) for c in found.comparisons] == [3]
    assert [layer.tokens for layer in found.routing] == [2 * 11] * 3
    assert "NaN" not in json.dumps(found.as_dict())


def test_nothing_to_compare_and_dense_models_are_refused() -> None:
    model = policy("qwen3_moe")
    with pytest.raises(ValueError, match="nothing to compare"):
        diagnose(model, model, batches(), sampler_dtype=torch.float32, trainer_dtype=torch.float32)
    from transformers import LlamaConfig

    tiny = LlamaConfig(vocab_size=320, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    dense = AutoModelForCausalLM.from_config(tiny)
    with pytest.raises(UnknownRouter, match="dense"):
        diagnose(dense, dense, batches(), sampler_dtype=torch.bfloat16, trainer_dtype=torch.float32)


def lru_by_hand(routes: np.ndarray, capacity: int) -> int:
    """Hits of a plain LRU, a list a layer."""
    hits = 0
    for layer in range(routes.shape[1]):
        recent: list[int] = []
        for row in routes[:, layer]:
            for expert in set(row.tolist()):
                if expert in recent:
                    hits += 1
                    recent.remove(expert)
                recent.append(expert)
                while len(recent) > capacity:
                    recent.pop(0)
    return hits


@given(seed=st.integers(0, 1000), capacity=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_lru_equals_a_list_kept_by_hand(seed: int, capacity: int) -> None:
    routes = np.random.default_rng(seed).integers(0, 8, (40, 2, 1))
    found = simulate_cache(routes, 8, capacity)
    assert found.hits == lru_by_hand(routes, capacity)
    assert found.copies == found.lookups - found.hits
    if capacity == 8:
        assert found.copies == sum(len(np.unique(routes[:, layer])) for layer in range(2))


def test_a_next_layer_that_follows_the_one_before_is_prefetched_and_frequency_beats_recency_on_a_scan() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 16, (400, 1))
    routes = np.stack([first, (first * 5 + 3) % 16], axis=1)  # layer 1 is a function of layer 0
    plain = simulate_cache(routes[200:], 16, 4)
    ahead = simulate_cache(routes[200:], 16, 4, predictor=NextLayer(routes[:200], 16))
    assert ahead.hit_rate > plain.hit_rate + 0.2
    assert ahead.stall_seconds(10**6, 1e9) < plain.stall_seconds(10**6, 1e9)
    scan = np.array([[[0]], [[1]], *([[[e]], [[0]], [[1]]][i] for e in range(2, 16) for i in range(3))])
    lru, lfu = (simulate_cache(scan, 16, 2, policy=p) for p in ("lru", "lfu"))
    assert lfu.hits > lru.hits


@pytest.mark.parametrize(
    ("routes", "capacity", "message"),
    [
        (np.zeros((3, 2), dtype=int), 4, "expected"),
        (np.zeros((3, 1, 2), dtype=int), 1, "a token needs 2"),
        (np.full((3, 1, 1), 9), 4, "name expert 9"),
    ],
)
def test_impossible_caches_are_one_line(routes: np.ndarray, capacity: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_cache(routes, 8, capacity)


def test_the_commands_run_on_a_checkpoint_and_texts(tmp_path: Path, demonstrations: list[dict[str, str]]) -> None:
    texts = [row["prompt"] + row["completion"] for row in demonstrations[:200]]
    size = {"vocab_size": 400, "hidden": 32, "layers": 2, "heads": 2, "mlp": 64, "expert_mlp": 32}
    model = build_tiny_policy(texts, tmp_path / "m", family="qwen3_moe", **size)
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(text.replace("\n\n", "\n") for text in texts[:8]))
    options = ["diagnose", str(model), "--texts", str(file)]
    text = CliRunner().invoke(moe, options, catch_exceptions=False).output
    assert "dtype:" in text and "replay removes" in text
    values = json.loads(CliRunner().invoke(moe, [*options, "--json"], catch_exceptions=False).stdout)
    assert values["comparisons"][0]["cause"] == "dtype"
    assert "most often together" in text and "times chance" in text
    assert [layer["layer"] for layer in values["routing"]] == values["layers"] == [0, 1]
    text = CliRunner().invoke(moe, ["cache", str(model), "--texts", str(file)], catch_exceptions=False).output
    assert "hit rate" in text and "lfu" in text
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    for name, message in ((".", "no rollouts"), ("x", "neither"), ("b", "not a text file")):
        wrong = str(tmp_path / name)
        result = CliRunner().invoke(moe, ["diagnose", str(model), "--texts", wrong])
        assert message in str(result.exception)
