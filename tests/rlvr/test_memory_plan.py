"""What a dry run says of memory, against models that are really built."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rlvr import cli
from rlvr.config.memory import memory_plan
from rlvr.models.tiny import build_tiny_policy
from rlvr.moe.memory import expert_memory_plan

CORPUS = ["Keep only the even numbers.", "print(sum(map(int, input().split())))"] * 40


def policy(folder: Path, family: str) -> Path:
    return build_tiny_policy(
        CORPUS, folder / family, vocab_size=300, hidden=32, layers=2, heads=2, mlp=48, family=family
    )


def count(folder: Path) -> int:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).num_parameters()


def test_a_dense_model_is_counted_exactly_and_shared_by_the_devices_that_shard_it(tmp_path: Path) -> None:
    folder = policy(tmp_path, "llama")
    alone = memory_plan(folder, dtype="float32", sequences=4, length=10)
    assert alone is not None and alone.parameters == count(folder)
    assert (alone.weights, alone.gradients, alone.optimizer) == tuple(n * 4 * alone.parameters for n in (1, 1, 2))
    assert alone.kv_cache == 2 * 2 * 32 * 4 * 4 * 10  # keys and values, layers, width, bytes, sequences, tokens
    shared = memory_plan(folder, dtype="bfloat16", sharded_over=4, sequences=0)
    assert shared is not None and shared.weights == -(-alone.parameters // 4) * 2
    assert shared.kv_cache == 0 and "KV cache" not in str(shared)


def test_experts_are_counted_by_the_inspector(tmp_path: Path) -> None:
    folder = policy(tmp_path, "qwen3_moe")
    assert memory_plan(folder, dtype="float32") is None
    plan = expert_memory_plan(str(folder), dtype="float32")
    assert plan is not None and plan.parameters == count(folder)


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_dry_run_counts_the_cache_only_where_the_trainer_samples(tmp_path: Path, capsys, monkeypatch, engine) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    recipe = {
        "name": "plan",
        "stage": "stage1",
        "output_dir": str(tmp_path / "run"),
        "model": {"name_or_path": str(policy(tmp_path, "llama"))},
        "data": {"problems": "builtin:contest"},
        "grpo": {
            "problems_per_step": 4,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_steps": 1,
            "max_completion_length": 16,
            "use_vllm": engine == "vllm",
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    cli.cli.main(["train", "--config", str(path), "--dry-run"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "memory on one device, sharded over 2: " in said
    assert ("KV cache while sampling" in said) == (engine == "transformers")
    assert ("beside it vLLM takes" in said) == (engine == "vllm")
