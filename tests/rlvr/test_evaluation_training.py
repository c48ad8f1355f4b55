"""Evaluation while a run trains: it changes nothing of the training, and the best checkpoint is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr.config import GRPORecipe, RecipeError
from rlvr.evaluation import read_results, read_samples
from rlvr.training.callbacks import read_metrics
from rlvr.training.grpo import train_grpo


def suite(tmp_path: Path) -> Path:
    path = tmp_path / "seen.yaml"
    sampling = {"n": 2, "k": [1, 2], "greedy": True, "max_completion_length": 24}
    body = {"suite": "seen", "description": "d", "data": {"problems": "{data}"}, "prompt": {"style": "plain"}}
    path.write_text(json.dumps(body | {"sampling": sampling}))
    return path


def recipe(model: Path, problems: Path, out: Path, evaluation: dict[str, Any] | None) -> GRPORecipe:
    return GRPORecipe.model_validate(
        {
            "name": "test",
            "output_dir": str(out),
            "model": {"name_or_path": str(model)},
            "data": {"problems": str(problems)},
            "prompt": {"style": "plain"},
            "judge": {"workers": 1},
            "evaluation": evaluation,
            "grpo": {
                "problems_per_step": 4,
                "num_generations": 4,
                "per_device_train_batch_size": 16,
                "max_steps": 2,
                "max_completion_length": 24,
                "learning_rate": 1e-3,
                "save_steps": 100,
            },
        }
    )


def test_a_run_trains_the_same_while_it_is_evaluated(
    warm_model: Path, problems_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"suite": str(suite(tmp_path)), "data": str(problems_file), "every": 1, "limit": 6, "metric": "greedy"}
    watched, plain = tmp_path / "watched", tmp_path / "plain"
    final = train_grpo(recipe(warm_model, problems_file, watched, schedule))
    said = capsys.readouterr()
    alone = train_grpo(recipe(warm_model, problems_file, plain, None))
    one, two = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (final, alone))
    assert all(torch.equal(one[name], two[name]) for name in two)

    folders = sorted(p.parent for p in watched.glob("evaluation/*/seen/results.json"))
    assert [p.parent.name for p in folders] == ["step-000000", "step-000001", "step-000002"]
    values = [read_results(p).results["seen"].greedy for p in folders]
    assert all(value is not None for value in values)
    assert len(read_samples(folders[0])) == 6 * 3
    # every problem of this suite is trained on
    assert "WARNING: seen: 6 of 6 problems are in the training data" in said.err and "step 2: seen greedy" in said.out

    lines = read_metrics(watched / "metrics.jsonl")
    assert [line["evaluation/seen/greedy"] for line in lines] == [v.value for v in values[1:] if v is not None]
    best = json.loads((watched / "best" / "best.json").read_text())
    first_best = max((1, 2), key=lambda step: lines[step - 1]["evaluation/seen/greedy"])
    assert best["step"] == first_best and best["metric"] == "greedy"
    if best["step"] == 2:
        kept = AutoModelForCausalLM.from_pretrained(watched / "best").state_dict()
        assert all(torch.equal(kept[name], one[name]) for name in one)
    assert not [p for p in watched.iterdir() if p.name.startswith(".best")]


def test_a_schedule_that_cannot_be_met_stops_before_training(
    warm_model: Path, problems_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="is a group"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "a", {"suite": "drive", "data": "x"}))
    with pytest.raises(RecipeError, match="say with --data"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "b", {"suite": "mbpp"}))
    unmeasured = {"suite": str(suite(tmp_path)), "data": str(problems_file), "metric": "pass@7", "at_start": False}
    with pytest.raises(RecipeError, match="'pass@7' is not measured by seen; one of pass@1, pass@2"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "c", unmeasured))
    chatty = {"suite": str(suite(tmp_path)), "data": str(problems_file), "prompt": {"style": "chat"}}
    with pytest.raises(RecipeError, match=r"seen asks in chat, .* has no chat template; set evaluation\.prompt to"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "d", chatty))
    assert not (tmp_path / "a" / "metrics.jsonl").exists()
