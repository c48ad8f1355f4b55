"""Suites: evaluations as data, found by name among those shipped or by path."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rlvr.config import EvaluationRecipe, RecipeError, load_recipe
from rlvr.config.evaluation import SuiteDefinition, SuiteGroup

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "evaluation" / "suites"
DATA = "{data}"


def shipped_suites() -> dict[str, Path]:
    """Name -> file of the suites and groups of suites that ship with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_suites(name: str) -> list[SuiteDefinition]:
    """The suite called `name` (or in the file `name`), or the suites of a group. RecipeError for an unknown one."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = shipped_suites()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}; or give a path of a YAML file"
            raise RecipeError(f"suite {name!r}: unknown; {hint}")
        path = known[name]
    values = _values(path)
    if "suites" in values:
        group = load_recipe(SuiteGroup, path)
        return [suite for member in group.suites for suite in load_suites(_beside(member, path))]
    return [load_suite(path)]


def load_suite(path: Path) -> SuiteDefinition:
    """The suite in one file. `data.exclude` may name a file of exclusions beside it."""
    values = _values(path)
    data = values.get("data")
    overrides = []
    if isinstance(data, dict) and isinstance(data.get("exclude"), str):
        listed = _values(path.parent / data["exclude"]).get("exclude")
        if not isinstance(listed, list):
            raise RecipeError(f"{path.parent / data['exclude']}: expected a list under `exclude`")
        overrides.append(f"data.exclude={yaml.safe_dump(listed, default_flow_style=True, width=10**9).strip()}")
    return load_recipe(SuiteDefinition, path, overrides)


def suite_recipe(
    suite: SuiteDefinition,
    output_dir: str | Path,
    *,
    data: str | None = None,
    overrides: Sequence[str] = (),
    **target: Any,
) -> EvaluationRecipe:
    """The recipe that runs `suite` on `target` (model=, endpoint= or samples=, and further fields of a recipe).

    `data` stands for `{data}` in the suite's source. RecipeError where one is needed and missing, or for an override
    that does not fit.
    """
    values = suite.model_dump(mode="json", exclude={"description", "column", "published"})
    source = values["data"]["problems"]
    if DATA in source:
        if data is None:
            raise RecipeError(
                f"suite {suite.suite}: reads {source}; say with --data where {DATA} is: {suite.description}"
            )
        values["data"]["problems"] = source.replace(DATA, data)
    elif data is not None:
        values["data"]["problems"] = data
    values |= {"output_dir": str(output_dir)} | {key: value for key, value in target.items() if value is not None}
    from rlvr.config.load import recipe_from

    return recipe_from(EvaluationRecipe, values, f"suite {suite.suite}", overrides)


def _beside(member: str, group: Path) -> str:
    near = group.parent / f"{member}.yaml"
    return str(near) if near.is_file() else member


def _values(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such suite file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a suite is a mapping of keys to values, found {type(values).__name__}")
    return values
