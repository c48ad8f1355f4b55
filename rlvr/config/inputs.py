"""Whether what a recipe reads is there, asked before a deep-learning library is loaded."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from data_curation import iter_problems
from data_curation.arena import Arena
from rlvr.config.grpo import GRPORecipe
from rlvr.config.load import RecipeError
from rlvr.config.lora import lora_faults
from rlvr.config.sft import SFTRecipe
from rlvr.evaluation.suites import load_suites
from rlvr.models import ModelUnavailable, resolve_model


def missing_inputs(recipe: SFTRecipe | GRPORecipe) -> list[str]:
    """Returns a line for whatever is not there or cannot be used of model, data and adapters; empty if all is well."""
    checks: list[Callable[[], object]] = [lambda: resolve_model(recipe.model.name_or_path)]
    if isinstance(recipe, GRPORecipe):
        checks.append(lambda: next(iter_problems(recipe.data.problems), None))
        if (schedule := recipe.evaluation) is not None:
            checks.append(lambda: load_suites(schedule.suite))
    else:
        checks.append(lambda: _existing(recipe.data))
        if (arena := recipe.arena) is not None:
            checks.append(lambda: Arena.load(arena.books))
    lines = []
    for check in checks:
        try:
            check()
        except (ModelUnavailable, FileNotFoundError, ValueError) as error:
            lines.append(str(error))
    lines += [
        f"tracking.report_to: {name} is not installed; pip install {name}"
        for name in recipe.tracking.report_to
        if find_spec(name) is None
    ]
    return lines + window_faults(recipe) + extra_faults(recipe) + adapter_faults(recipe)


def window_faults(recipe: SFTRecipe | GRPORecipe) -> list[str]:
    """Returns a line where rollouts may grow longer than a local model has positions."""
    if not isinstance(recipe, GRPORecipe):
        return []
    key = "max_completion_length" if recipe.grpo.max_length is None else "max_length"
    length = getattr(recipe.grpo, key)
    path = Path(recipe.model.name_or_path).expanduser() / "config.json"
    positions = json.loads(path.read_text()).get("max_position_embeddings") if path.is_file() else None
    if not isinstance(positions, int) or length <= positions:
        return []
    return [
        f"grpo.{key} {length}: {recipe.model.name_or_path} has {positions} positions; take a"
        " shorter window, or a model that has them"
    ]


# TRL's fields that follow from keys of the recipe outside of the section whose `extra` it is.
_FOLLOWS_FROM = {
    "output_dir": "output_dir",
    "run_name": "name",
    "project": "tracking.project",
    "report_to": "tracking.report_to",
    "seed": "seed",
    "resume_from_checkpoint": "output_dir, whose newest checkpoint is continued",
}
_FOLLOWS_FROM_SFT = {"completion_only_loss": "the rows of data", "save_strategy": "sft.save_steps"}
_ARITHMETIC = "grpo.problems_per_step, num_generations, per_device_train_batch_size and updates_per_step"
_FOLLOWS_FROM_GRPO = {
    "gradient_accumulation_steps": _ARITHMETIC,
    "steps_per_generation": _ARITHMETIC,
    "generation_batch_size": _ARITHMETIC,
    "logging_steps": "grpo.updates_per_step and num_iterations",
    "save_strategy": "grpo.save_steps",
    "shuffle_dataset": "seed and curriculum",
    "num_train_epochs": "grpo.max_steps",
}


def extra_faults(recipe: SFTRecipe | GRPORecipe) -> list[str]:
    """Returns a line for each key of the recipe's `extra` that TRL does not know, or that the recipe itself sets."""
    section, values, own = (
        ("grpo", recipe.grpo, _FOLLOWS_FROM_GRPO)
        if isinstance(recipe, GRPORecipe)
        else ("sft", recipe.sft, _FOLLOWS_FROM_SFT)
    )
    extra = values.extra
    if not extra:
        return []
    follows = {**_FOLLOWS_FROM, **own, **{name: f"{section}.{name}" for name in type(values).model_fields}}
    uploads = [key for key in extra if key.startswith(("hub_", "push_to_hub"))]
    lines = [f"{section}.extra.{key}: runs are not uploaded; hf upload OWNER/NAME RUN/final does it" for key in uploads]
    lines += [f"{section}.extra.{key}: follows from {follows[key]}; set that" for key in extra if key in follows]
    import trl  # loads torch, so only where there is something to look up

    config = trl.GRPOConfig if section == "grpo" else trl.SFTConfig
    known = {field.name for field in dataclasses.fields(config)}
    return lines + [
        f"{section}.extra.{key}: TRL's {config.__name__} has no such field"
        + (f"; did you mean {near[0]}?" if (near := difflib.get_close_matches(key, known, n=1)) else "")
        for key in extra
        if key not in known and key not in follows and key not in uploads
    ]


def adapter_faults(recipe: SFTRecipe | GRPORecipe) -> list[str]:
    """Returns a line for each reason why this machine, launch or model cannot train the recipe's `lora`."""
    extra = recipe.grpo.extra if isinstance(recipe, GRPORecipe) else recipe.sft.extra
    return lora_faults(recipe.lora, Path(recipe.model.name_or_path).expanduser(), extra)


def require_adapter(recipe: SFTRecipe | GRPORecipe) -> None:
    """Raises RecipeError with every line of `adapter_faults`."""
    lines = adapter_faults(recipe)
    if lines:
        raise RecipeError("\n".join(lines))


def require_inputs(recipe: SFTRecipe | GRPORecipe) -> None:
    """Raises RecipeError with every line of `missing_inputs`."""
    lines = missing_inputs(recipe)
    if lines:
        raise RecipeError("\n".join(lines))


def _existing(path: str) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file of demonstrations; make one with `rlvr curate`")
