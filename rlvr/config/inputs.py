"""Whether what a recipe reads is there, asked before a deep-learning library is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_curation import iter_problems
from rlvr.config.grpo import GRPORecipe
from rlvr.config.load import RecipeError
from rlvr.config.sft import SFTRecipe
from rlvr.models import ModelUnavailable, resolve_model


def missing_inputs(recipe: SFTRecipe | GRPORecipe) -> list[str]:
    """Returns a line for each of the model and the data that is not there or cannot be read; empty if all is well."""
    checks: list[Callable[[], object]] = [lambda: resolve_model(recipe.model.name_or_path)]
    if isinstance(recipe, GRPORecipe):
        checks.append(lambda: next(iter_problems(recipe.data.problems), None))
    else:
        checks.append(lambda: _existing(recipe.data))
    lines = []
    for check in checks:
        try:
            check()
        except (ModelUnavailable, FileNotFoundError, ValueError) as error:
            lines.append(str(error))
    return lines


def require_inputs(recipe: SFTRecipe | GRPORecipe) -> None:
    """Raises RecipeError with every line of `missing_inputs`."""
    lines = missing_inputs(recipe)
    if lines:
        raise RecipeError("\n".join(lines))


def _existing(path: str) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file of demonstrations; make one with `rlvr curate`")
