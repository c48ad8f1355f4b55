"""The inspector, from tiny configurations of every family and the published figures of real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from rlvr.commands.moe import moe
from rlvr.moe.facts import facts_of, inspect_model, presets
from tests.rlvr.moe_families import FAMILIES, tiny_config

# as the checkpoints' own index files state them
PUBLISHED = {
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-coder-30b-a3b-instruct": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "deepseek-v3": 671_026_404_352,
    "mixtral-8x7b": 46_702_792_704,
    "olmoe-1b-7b": 6_919_161_856,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-coder-7b-instruct": 7_615_616_512,
    "glm-4.5-air": 106_852_245_504,
}


def test_at_least_35_families_are_covered() -> None:
    assert len(FAMILIES) >= 35


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_those_of_the_built_model(family: str) -> None:
    config = tiny_config(family)
    facts = facts_of(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    numel = {id(p): p.numel() for p in model.parameters()}
    assert facts.parameters == sum(numel.values())
    experts = [
        (name, p) for name, p in model.named_parameters() if ".experts." in name and p.shape[0] >= 8 and p.dim() >= 2
    ]
    assert facts.expert_parameters == sum(p.numel() for _, p in experts)
    layers = {int(name.split("layers.")[1].split(".")[0]) for name, _ in experts}
    assert facts.moe_layers == tuple(sorted(layers))
    assert sorted(facts.moe_layers + facts.dense_layers) == list(range(facts.layers))
    assert facts.experts == 8
    assert facts.top_k == (1 if family == "zaya" else 2)
    idle = facts.expert_parameters * (facts.experts - facts.top_k) // facts.experts
    assert facts.active_parameters == facts.parameters - idle
    assert facts.score != "unknown"
    assert facts.router_parameters > 0
    biased = [n for n, _ in [*model.named_buffers(), *model.named_parameters()] if "correction_bias" in n]
    assert not biased or facts.bias != "none"
    assert facts.tap == ""


@pytest.mark.parametrize("family", ["qwen3_moe", "glm4_moe", "gpt_oss", "mixtral", "jamba", "qwen3_next", "afmoe"])
def test_cache_elements_equal_what_the_model_caches(family: str) -> None:
    config = tiny_config(family, sliding_window=256) if "sliding_window" in tiny_config(family) else tiny_config(family)
    facts = facts_of(config)
    model = AutoModelForCausalLM.from_config(config).eval()

    def cached(length: int) -> int:
        with torch.no_grad():
            cache = model(torch.full((1, length), 5), use_cache=True).past_key_values
        total = 0
        for layer in cache.layers:
            keys = getattr(layer, "keys", None)
            if keys is not None:
                total += keys.numel() + layer.values.numel()
        return total

    assert cached(12) - cached(8) == 4 * (facts.kv_full + facts.kv_windowed)


def test_real_configurations_have_their_published_sizes() -> None:
    assert {name: inspect_model(name).parameters for name in presets()} == PUBLISHED


def test_a_30b_model_in_figures() -> None:
    facts = inspect_model("qwen3-30b-a3b")
    assert (facts.experts, facts.top_k, facts.layers, facts.route_bytes_per_token) == (128, 8, 48, 384)
    assert facts.kv_bytes_per_token() == 2 * 48 * 4 * 128 * 2
    assert facts.parameters_per_expert == 3 * 2048 * 768
    assert 3.3e9 < facts.active_parameters < 3.4e9


def test_a_latent_cache_is_counted_as_the_latent() -> None:
    facts = inspect_model("deepseek-v3")
    assert facts.mla
    assert facts.kv_full == 61 * (512 + 64)
    assert (facts.groups, facts.groups_chosen, facts.dense_layers) == (8, 4, (0, 1, 2))


def test_a_deepseek_config_as_transformers_writes_it_is_a_trap(tmp_path: Path) -> None:
    tiny_config("deepseek_v3").save_pretrained(tmp_path)
    assert any("noaux_tc" in trap for trap in inspect_model(str(tmp_path)).traps)
    values = json.loads((tmp_path / "config.json").read_text()) | {"topk_method": "noaux_tc"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert not any("noaux_tc" in trap for trap in inspect_model(str(tmp_path)).traps)


@pytest.mark.parametrize(("family", "reason"), [("phimoe", "no top-k"), ("jetmoe", "twice")])
def test_routers_that_cannot_be_tapped_say_why(family: str, reason: str) -> None:
    facts = facts_of(tiny_config(family))
    assert reason in facts.tap


def test_the_command_prints_facts_and_json() -> None:
    text = CliRunner().invoke(moe, ["inspect", "Qwen3-30B-A3B"], catch_exceptions=False).output
    assert "30,532,122,624" in text
    assert "128, 8 a token" in text
    output = CliRunner().invoke(moe, ["inspect", "qwen3-30b-a3b", "--json"], catch_exceptions=False).output
    assert json.loads(output)["route_bytes_per_token"] == 384


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a checkpoint folder"),
        ("{", "not valid JSON"),
        ("{}", "no model_type"),
        ('{"model_type": "nothing-known"}', "not known to the installed transformers"),
        ('{"model_type": "qwen2", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 1}', "dense model"),
        ('{"model_type": "qwen3_moe", "hidden_size": "wide"}', "qwen3_moe"),
    ],
)
def test_bad_models_are_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    result = CliRunner().invoke(moe, ["inspect", str(tmp_path)])
    assert isinstance(result.exception, ValueError | FileNotFoundError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
