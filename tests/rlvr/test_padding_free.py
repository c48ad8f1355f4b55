"""Updates without padding: the numbers and gradients of padded ones, and plain words where a model cannot."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from test_grpo_trainer import recipe, weights
from test_packing import COMPLETION, batches, distance
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3NextConfig
from trl.trainer.utils import add_fused_lm_head

from rlvr.config import RecipeError
from rlvr.training.grpo import train_grpo
from rlvr.training.padding_free import logps_and_entropies, why_padding_stays
from rlvr.training.repacking import whole


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rollouts_of_one_row_have_the_log_probabilities_entropies_and_gradients_of_padded_ones(attention, tiny_model):
    model, reference = (
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64, attn_implementation=name)
        for name in (attention, "sdpa")  # eager makes NaN of padding before a prompt in double precision
    )
    for each in (model, reference):
        add_fused_lm_head(each, outputs=("log_probs", "entropy"))
    batch = {
        name: torch.cat([part[name] for part in batches()]) for name in batches()[0] if name[:4] in ("prom", "comp")
    }
    batch["completion_mask"][3] = 0  # a rollout that was rejected
    parts = whole(batch)
    ids, mask = parts["input_ids"], parts["attention_mask"]
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-COMPLETION] = -100
    padded = reference(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    given = torch.randn(len(ids), COMPLETION, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradient(of: torch.nn.Module, logps: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((logps * given).sum(), list(of.parameters())))

    rows: list[int] = []
    model.model.register_forward_pre_hook(
        lambda _, args, named: rows.append(named["input_ids"].shape), with_kwargs=True
    )
    logps, entropies = logps_and_entropies(model, ids, mask, COMPLETION, entropy=True)
    assert rows == [(1, int(mask.sum()))]
    torch.testing.assert_close(logps, padded.log_probs[:, -COMPLETION:], atol=1e-6, rtol=0)
    torch.testing.assert_close(entropies, padded.entropy[:, -COMPLETION:], atol=1e-6, rtol=0)
    assert distance(gradient(model, logps), gradient(reference, padded.log_probs[:, -COMPLETION:])) < 1e-6


def test_a_run_without_padding_learns_what_a_padded_one_does(warm_model, problems_file, tmp_path):
    settings = {"max_steps": 2, "updates_per_step": 2, "per_device_train_batch_size": 3}
    for name in ("padded", "free"):
        settings["padding_free"] = name == "free"
        shaped = {"overlong_buffer": 18}  # lengths differ, so there is something to learn whatever passes
        train_grpo(recipe(warm_model, problems_file, tmp_path / name, grpo=settings, reward=shaped))
    ours, theirs = (weights(tmp_path / name / "final") for name in ("free", "padded"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=2e-4, rtol=0)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("free", "padded")
    ]
    for line, other in zip(*lines, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-4) and line["grad_norm"] > 0
        assert line["sampling/logprob_gap"] < 1e-4 and "padding" not in line and other["padding"] > 0


def test_models_whose_rollouts_cannot_share_a_row_are_refused_in_plain_words(warm_model, problems_file, tmp_path):
    def why(config, attention="sdpa", experts=False):
        config._attn_implementation = attention
        return why_padding_stays(SimpleNamespace(config=config), experts=experts)

    assert why(LlamaConfig()) is None and why(LlamaConfig(), "flash_attention_2") is None
    assert "not known to tell rollouts of one row apart" in why(LlamaConfig(), "paged|sdpa")
    assert "positions that are not rotary" in why(GPT2Config())
    assert "layers of linear_attention" in why(Qwen3NextConfig(num_hidden_layers=4))
    assert "mixture of experts" in why(LlamaConfig(), experts=True)
    model = AutoModelForCausalLM.from_pretrained(warm_model)
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": "dynamic"}
    run = recipe(warm_model, problems_file, tmp_path / "run", grpo={"padding_free": True})
    from transformers import AutoTokenizer

    with pytest.raises(RecipeError, match=r"grpo.padding_free: this model has positions .*; leave it false"):
        train_grpo(run, model, AutoTokenizer.from_pretrained(warm_model))
