"""From a YAML file and dotted overrides to a validated recipe, with one clear line for every mistake."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class RecipeError(ValueError):
    """A recipe that cannot be used; the message is one line for every mistake."""


class Strict(BaseModel):
    """Base of every recipe section: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


R = TypeVar("R", bound=BaseModel)


def load_recipe(recipe: type[R], path: str | os.PathLike[str] | None, overrides: Iterable[str] = ()) -> R:
    """Returns the recipe in `path` (None: all defaults) with `overrides` such as ``grpo.learning_rate=1e-5`` applied.

    Raises RecipeError naming the file and key of every mistake, with a suggestion for misspelt keys.
    """
    values = _read_yaml(Path(path)) if path is not None else {}
    return recipe_from(recipe, values, str(path) if path is not None else "recipe", overrides)


def recipe_from(recipe: type[R], values: dict[str, Any], where: str, overrides: Iterable[str] = ()) -> R:
    """Returns the recipe of `values` with `overrides` applied; errors as of `load_recipe`, naming `where`."""
    for override in overrides:
        _apply(values, override)
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        lines = [_explain(recipe, where, item) for item in error.errors()]
        raise RecipeError("\n".join(lines)) from None


def write_resolved(recipe: BaseModel, folder: Path) -> Path:
    """Writes every value of the recipe, defaults included, to `folder/config.resolved.yaml`; returns that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.resolved.yaml"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(resolved_yaml(recipe))
    temporary.replace(path)
    return path


def resolved_yaml(recipe: BaseModel) -> str:
    """Returns the recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe file") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from None
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise RecipeError(f"{path}: not valid YAML: {detail}") from None
    if values is None:
        raise RecipeError(f"{path}: an empty recipe; a recipe is a mapping of keys to values")
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, found {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.removeprefix("--")
    if not separator or not key:
        raise RecipeError(f"override {override!r}: expected key=value, for example seed=1")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise RecipeError(f"override {override!r}: the value is not valid YAML") from None
    if isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    *parents, last = key.split(".")
    node: Any = values
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise RecipeError(f"override {override!r}: {parent} is not a section")
    node[last] = value


def _explain(recipe: type[BaseModel], where: str, error: Any) -> str:
    location: Sequence[Any] = error["loc"]
    key = ".".join(str(part) for part in location)
    kind = error["type"]
    if kind == "extra_forbidden":
        known = _keys_at(recipe, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(sorted(known))}"
        return f"{where}: {key}: unknown key; {hint}"
    if kind == "missing":
        return f"{where}: {key}: required key is missing"
    # a sequence is a list to whoever writes YAML
    message = str(error["msg"]).removeprefix("Value error, ").replace("Tuple", "List").replace("tuple", "list")
    if key and kind != "value_error":
        return f"{where}: {key}: {message} (got {_short(error['input'])})"
    return f"{where}: {key + ': ' if key else ''}{message}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(recipe: type[BaseModel], location: Sequence[Any]) -> list[str]:
    model: Any = recipe
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue
        model = _model_in(field.annotation) or model
    return list(getattr(model, "model_fields", {}))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
