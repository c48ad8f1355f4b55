"""TRL's own trainer on the problems, order and judge of a recipe: what ours must equal.

As a program it runs in every process that torchrun starts: both trainers with each loss, and rank 0 writes where they
differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import GRPOConfig, GRPOTrainer

from data_curation import Problem, load_problems
from rlvr.budget import SuccessRates
from rlvr.config import GRPORecipe, PromptSection
from rlvr.curriculum import ProblemSchedule
from rlvr.rewards import ProgramGrader
from rlvr.rollouts.prompts import render_prompt
from rlvr.training.grpo import grpo_config, train_grpo

LOSSES = ("dapo", "grpo", "dr_grpo", "bnpo", "cispo")
AS_TRL = {"skip_zero_signal": False, "pack_micro_batches": False, "fast_sampling": False}  # the same up to rounding


def train_stock(recipe: GRPORecipe, problems: list[Problem], out: Path, processes: int = 1) -> tuple[Any, list[float]]:
    """Returns (model, [loss and gradient norm of each log line]) of the stock trainer."""
    schedule = ProblemSchedule([p.id for p in problems], recipe.grpo.problems_per_step, [], seed=recipe.seed)
    by_id = {problem.id: problem for problem in problems}
    order = [by_id[key] for step in range(recipe.steps) for key in schedule.problems(step, SuccessRates())]
    rows = [{"prompt": render_prompt(p, PromptSection(style="plain")), "problem_id": p.id} for p in order]
    set_seed(recipe.seed)
    path = recipe.model.name_or_path
    config = grpo_config(recipe, processes).to_dict()
    config["output_dir"] = str(out)
    with ProgramGrader(PromptSection(style="plain"), judge=recipe.judge) as grader:

        def reward(completions: list[str], problem_id: list[str], **columns: Any) -> list[float | None]:
            return [g.score for g in grader.grade([by_id[key] for key in problem_id], completions)]

        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(path, padding_side="left"),
            reward_funcs=[reward],
            args=GRPOConfig(**{k: v for k, v in config.items() if k != "generation_batch_size"}),
            train_dataset=Dataset.from_list(rows),
        )
        trainer.train()
        lines = [line for line in trainer.state.log_history if "grad_norm" in line]
    return trainer.accelerator.unwrap_model(trainer.model), [line[k] for line in lines for k in ("loss", "grad_norm")]


def logged(folder: Path) -> list[float]:
    """[loss and gradient norm of each step] of our run."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines for name in ("loss", "grad_norm")]


def differences(final: Path, stock: Any, ours: list[float], theirs: list[float]) -> list[str]:
    """Names of the tensors that are not equal bit for bit, and "losses" where those differ."""
    weights = AutoModelForCausalLM.from_pretrained(final).state_dict()
    found = [name for name, tensor in stock.state_dict().items() if not torch.equal(tensor, weights[name])]
    return found + ([] if ours == theirs else ["losses"])


def main(recipe_file: str, result_file: str) -> None:
    base = json.loads(Path(recipe_file).read_text())
    problems = load_problems(base["data"]["problems"])
    found = {}
    for loss_type in LOSSES:
        out = Path(base["output_dir"]) / loss_type
        values = {**base, "output_dir": str(out), "grpo": {**base["grpo"], "loss_type": loss_type}}
        recipe = GRPORecipe.model_validate(values)
        final = train_grpo(recipe)
        stock, theirs = train_stock(recipe, problems, out / "stock", torch.distributed.get_world_size())
        if torch.distributed.get_rank() == 0:
            found[loss_type] = differences(final, stock, logged(out), theirs)
    if torch.distributed.get_rank() == 0:
        Path(result_file).write_text(json.dumps({"processes": torch.distributed.get_world_size(), "differ": found}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
