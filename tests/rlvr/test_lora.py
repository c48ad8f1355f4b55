"""LoRA by recipe: the adapter learns, what is saved and served is the merged model, and a run continues exactly."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from policy_server import PolicyServer
from test_grpo_trainer import recipe, weights
from transformers import AutoModelForCausalLM

from rlvr import cli
from rlvr.config import RecipeError, SFTRecipe
from rlvr.config.memory import memory_plan
from rlvr.config.sections import ModelSection
from rlvr.training import grpo, publishing
from rlvr.training.grpo import train_grpo
from rlvr.training.grpo_trainer import GroupedGRPOTrainer
from rlvr.training.sft import train_sft

LORA = {"rank": 4, "alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
# lengths differ, so there is something to learn whatever passes
LEARNS = {"lora": LORA, "reward": {"overlong_buffer": 18}, "grpo": {"learning_rate": 1e-2, "save_steps": 1}}


def changed(before: Path, after: Path) -> set[str]:
    """Names of the layers whose weights differ."""
    first, last = weights(before), weights(after)
    assert set(first) == set(last)
    return {name.split(".")[-2] for name in first if not torch.equal(first[name], last[name])}


def adapter(checkpoint: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(checkpoint / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers that a test makes."""
    made: list[Any] = []
    begin = GroupedGRPOTrainer.__init__

    def noted(self: Any, **options: Any) -> None:
        begin(self, **options)
        made.append(self)

    monkeypatch.setattr(GroupedGRPOTrainer, "__init__", noted)
    return made


def test_a_run_saves_the_merged_model_with_the_adapter_beside_it_and_continues_to_the_same_weights(
    warm_model, problems_file, tmp_path, monkeypatch
):
    from peft import PeftModel

    whole = train_grpo(recipe(warm_model, problems_file, tmp_path / "whole", **LEARNS))
    assert changed(warm_model, whole) == {"q_proj", "v_proj", "down_proj"}
    assert not (whole / "adapter_config.json").exists(), "transformers would take the folder for an adapter"

    # the export is what PEFT's own merge makes of base and adapter
    base = AutoModelForCausalLM.from_pretrained(warm_model)
    merged = PeftModel.from_pretrained(base, whole / "adapter").merge_and_unload().state_dict()
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-6, atol=1e-7)

    class Gone(Exception):
        pass

    def gone(*arguments: Any) -> None:
        raise Gone

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        inner, calls = GroupedGRPOTrainer._attempt, []

        def dies(self: Any, *arguments: Any) -> Any:
            calls.append(1)
            return inner(self, *arguments) if len(calls) < 3 else gone()

        patch.setattr(GroupedGRPOTrainer, "_attempt", dies)
        with pytest.raises(Gone):
            train_grpo(recipe(warm_model, problems_file, out, **LEARNS))
    for other in ({"lora": {**LORA, "rank": 2}}, {"lora": {**LORA, "target_modules": ["q_proj"]}}, {"lora": None}):
        with pytest.raises(RecipeError, match=r"checkpoint-2: .*; continue with the same"):
            train_grpo(recipe(warm_model, problems_file, out, **{**LEARNS, **other}))
    again = train_grpo(recipe(warm_model, problems_file, out, **LEARNS))
    for name, tensor in adapter(whole).items():
        assert torch.equal(tensor, adapter(again)[name]), name
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name]), name


def test_the_kl_reference_is_the_model_without_the_adapter_and_no_second_one(
    warm_model, problems_file, tmp_path, trainers
):
    options = {**LEARNS, "grpo": {**LEARNS["grpo"], "beta": 0.05}}
    out = tmp_path / "run"
    train_grpo(recipe(warm_model, problems_file, out, **options))
    (trainer,) = trainers
    assert trainer.ref_model is None and set(trainer.model.peft_config) == {"default"}
    kl = [json.loads(line)["kl"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert kl[0] == 0 and kl[-1] > 1e-5
    # training has left the base as it was loaded: nothing was merged into it
    start = weights(warm_model)
    trained = trainer.model.get_base_model().state_dict()
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        assert torch.equal(trained[f"{name}.base_layer.weight"], start[f"{name}.weight"])
    tokens = torch.arange(5, 45)[None]
    with torch.no_grad(), trainer.model.disable_adapter():
        reference = trainer.model.eval()(tokens).logits
        torch.testing.assert_close(reference, AutoModelForCausalLM.from_pretrained(warm_model)(tokens).logits)
    with torch.no_grad():
        policy = trainer.model.eval()(tokens).logits
        torch.testing.assert_close(policy, AutoModelForCausalLM.from_pretrained(out / "final")(tokens).logits)
    assert (policy - reference).abs().max() > 1e-2


def test_the_sampler_in_the_trainer_and_a_server_fed_by_file_write_with_the_merged_weights(
    warm_model, problems_file, tmp_path
):
    server = PolicyServer(warm_model)
    try:
        engine = {"use_vllm": True, "vllm_mode": "file", "vllm_url": server.url}
        for name, more in (("inside", {}), ("server", engine)):
            out = tmp_path / name
            train_grpo(recipe(warm_model, problems_file, out, **{**LEARNS, "grpo": {**LEARNS["grpo"], **more}}))
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            assert max(line["sampling/logprob_gap"] for line in lines) < 1e-4
            assert changed(warm_model, out / "final") == {"q_proj", "v_proj", "down_proj"}
        assert server.syncs == 3 and all(line["sync/canary_gap"] < 1e-5 for line in lines)
    finally:
        server.close()


def test_supervised_training_of_an_adapter_and_of_a_whole_layer_beside_it(
    tiny_model, demonstrations_file, tmp_path, monkeypatch
):
    def run(out: str, **section: Any) -> SFTRecipe:
        return SFTRecipe.model_validate(
            {
                "name": "adapter",
                "output_dir": str(tmp_path / out),
                "model": {"name_or_path": str(tiny_model)},
                "data": str(demonstrations_file),
                "limit": 64,
                "lora": {"rank": 4, **section},
                "sft": {"max_steps": 4, "learning_rate": 1e-2, "max_length": 96, "save_steps": 2, "logging_steps": 1},
            }
        )

    final = train_sft(run("whole", modules_to_save=["norm"]))
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert changed(tiny_model, final) == {*linear, "norm"}
    plain = publishing.publish_checkpoint

    def dies(staged: Path, target: Path, state: Any) -> None:
        if target.name == "checkpoint-4":
            raise KeyboardInterrupt
        plain(staged, target, state)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "publish_checkpoint", dies)
        with pytest.raises(KeyboardInterrupt):
            train_sft(run("killed", modules_to_save=["norm"]))
    again = train_sft(run("killed", modules_to_save=["norm"]))
    for name, tensor in weights(final).items():
        assert torch.equal(tensor, weights(again)[name]), name
    for section, said in (
        (
            {"target_modules": ["query"]},
            "target_modules: the model has no layer query; its linear layers are down_proj",
        ),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head holds the embeddings or the output head"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens is one tensor with the other end of the model"),
    ):
        with pytest.raises(RecipeError, match=said):
            train_sft(run("refused", **section))


@pytest.mark.parametrize("section", [{}, {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["norm"]}])
def test_the_memory_plan_counts_the_parameters_that_peft_trains(tiny_model, section):
    from peft import get_peft_model

    from rlvr.config.lora import LoRASection
    from rlvr.training.loading import load_policy
    from rlvr.training.lora import lora_config

    lora = LoRASection(rank=3, **section)
    model, _ = load_policy(ModelSection(name_or_path=str(tiny_model)))
    trained = get_peft_model(model, lora_config(model, lora)).get_nb_trainable_parameters()[0]
    plan = memory_plan(tiny_model, dtype="bfloat16", lora=lora)
    assert plan is not None and plan.adapter == trained
    assert (plan.gradients, plan.optimizer) == (4 * trained, 8 * trained)
    assert plan.weights == 2 * plan.parameters + 4 * trained


def written(folder: Path, model: Path, problems: Path, **more: Any) -> Path:
    path = folder / "recipe.yaml"
    values = recipe(model, problems, folder / "run", lora={"rank": 8}, **more).model_dump(mode="json")
    path.write_text(yaml.safe_dump(values))
    return path


def rlvr(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["rlvr", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("missing", ["library", "FSDP", "DeepSpeed", "dense model"])
def test_what_adapters_cannot_be_joined_with_is_said_in_one_line_before_a_model_is_loaded(
    missing, tiny_model, problems_file, tmp_path, monkeypatch, capsys
):
    find = importlib.util.find_spec
    there = None if missing == "library" else find("json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: there if name == "peft" else find(name, *more))
    monkeypatch.setattr(grpo, "load_policy", lambda section: pytest.fail("a model was loaded"))
    model = tiny_model
    said = {
        "library": "rlvr: lora: needs the library peft, which is not installed; pip install 'rlvr[lora]'",
        "FSDP": "rlvr: lora: not supported with FSDP; ",
        "DeepSpeed": "rlvr: lora: not supported with DeepSpeed; ",
        "dense model": "rlvr: lora: not supported for a mixture of experts (qwen3_moe): ",
    }[missing]
    if missing in ("FSDP", "DeepSpeed"):
        monkeypatch.setenv(f"ACCELERATE_USE_{missing.upper()}", "true")
    if missing == "dense model":
        model = tmp_path / "experts"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", "num_experts": 4}))
    path = written(tmp_path, model, problems_file)
    assert rlvr(monkeypatch, "train", "--config", str(path)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(said)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_dry_run_tells_what_an_adapter_saves(tiny_model, problems_file, tmp_path, monkeypatch, capsys):
    path = written(tmp_path, tiny_model, problems_file)
    assert rlvr(monkeypatch, "train", "--config", str(path), "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "M more of an adapter are trained" in shown and "rank: 8" in shown
    assert rlvr(monkeypatch, "train", "--config", str(path), "lora.target_modules=[qkv_proj]", "--dry-run") == 0
    assert "# memory: not worked out for this model with these layers" in capsys.readouterr().out
