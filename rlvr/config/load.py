"""From a YAML file and dotted overrides to a validated recipe, with one clear line for every mistake."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

RESOLVED = "config.resolved.yaml"  # in the folder of every run


class RecipeError(ValueError):
    """A recipe that cannot be used; the message is one line for every mistake."""


class Strict(BaseModel):
    """Base of every recipe section: immutable; unknown keys, infinities and truth values for numbers refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None:
                kinds = set(get_args(field.annotation)) or {field.annotation}
                if kinds & {int, float} and bool not in kinds:
                    raise ValueError(f"{name}: a number is wanted (got {str(value).lower()})")
        return values


# The key by which a recipe of each verb is known; the first that is there decides.
_VERBS = {"stage1": "quickstart", "sources": "curate", "grpo": "train", "sft": "sft", "suite": "evaluate"}


R = TypeVar("R", bound=BaseModel)


def load_recipe(recipe: type[R], path: str | os.PathLike[str] | None, overrides: Iterable[str] = ()) -> R:
    """Returns the recipe in `path` (None: all defaults) with `overrides` such as ``grpo.learning_rate=1e-5`` applied.

    Raises RecipeError naming the file and key of every mistake, with a suggestion for misspelt keys.
    """
    values = _read_yaml(Path(path)) if path is not None else {}
    return recipe_from(recipe, values, str(path) if path is not None else "recipe", overrides)


def recipe_from(recipe: type[R], values: dict[str, Any], where: str, overrides: Iterable[str] = ()) -> R:
    """Returns the recipe of `values` with `overrides` applied; errors as of `load_recipe`, naming `where`."""
    known_by = next((key for key in _VERBS if key in values), None)
    given = {_apply(values, override): f"override {override!r}" for override in overrides}
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        if known_by is not None and known_by not in recipe.model_fields:
            raise RecipeError(
                f"{where}: a recipe of `rlvr {_VERBS[known_by]}`, which this verb does not read"
            ) from None
        lines: dict[str, str] = {}
        for item in error.errors():
            # a value that fits none of several types is one mistake of one key
            location = [part for part in item["loc"] if isinstance(part, int) or "[" not in part]
            key = ".".join(map(str, location))
            source = next((named for name, named in given.items() if _set_by(name, key, item)), where)
            line = _explain(recipe, source, {**item, "loc": location})
            lines[key] = f"{lines[key]}; or: {item['msg']}" if key and key in lines else line
        raise RecipeError("\n".join(lines.values())) from None


def require_folder(key: str, folder: str | os.PathLike[str]) -> None:
    """Raises RecipeError where `folder` is not there and cannot be made, or is there and cannot be written to."""
    path = Path(folder)
    there = next((place for place in (path, *path.parents) if place.exists()), Path())
    if not there.is_dir():
        raise RecipeError(f"{key}: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecipeError(f"{key}: no right to write in {there}; name another folder")
    try:
        Path(tempfile.mkdtemp(prefix=".rlvr-", dir=there)).rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # room can be made, and is asked for where it is used up
            raise RecipeError(f"{key}: no folder can be made in {there} ({error.strerror}); name another") from None


def write_resolved(recipe: BaseModel, folder: Path) -> Path:
    """Writes every value of the recipe, defaults included, to `folder/config.resolved.yaml`; returns that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESOLVED
    temporary = path.with_suffix(".tmp")
    temporary.write_text(resolved_yaml(recipe))
    temporary.replace(path)
    return path


# Keys of recipes that change no result: where a run lies, on what it is computed and who is told.
_NO_RESULT = ("name", "output_dir", "threads", "judge", "tracking")


def require_own_folder(recipe: BaseModel, folder: Path) -> None:
    """Raises RecipeError where `folder` holds what is no run of the recipe's verb and would be written over."""
    try:
        earlier = _read_yaml(folder / RESOLVED)
    except RecipeError:  # not there, or damaged
        earlier = {}
    known_by = next((key for key in _VERBS if key in earlier), None)
    if earlier and known_by not in type(recipe).model_fields:
        whose = "something else" if known_by is None else f"a run of `rlvr {_VERBS[known_by]}`"
        raise RecipeError(f"{folder}: its {RESOLVED} is of {whose}; choose another output_dir")
    begun = (folder / RESOLVED).exists() or any(folder.glob("checkpoint-*"))  # a checkpoint says itself whose it is
    ours = ("metrics.jsonl", "rollouts", "environment.json", "final", "*.safetensors")
    found = sorted(path.name for pattern in ours for path in folder.glob(pattern))
    if found and not begun:
        raise RecipeError(
            f"{folder}: holds {found[0]} but no {RESOLVED}, so it is no run that can be continued; choose another"
            " output_dir"
        )


def require_same_run(recipe: BaseModel, folder: Path, of: Sequence[str] | None = None) -> None:
    """Raises RecipeError where `folder` holds the resolved recipe of a run with other values, naming the first.

    `of` are the sections or keys (dotted where they lie in one) that are compared, by default all that can change a
    result. A key that only one of the two knows, as after an update of this package, is no difference.
    """
    path = folder / RESOLVED
    if not path.exists():
        return
    try:
        earlier = _read_yaml(path)
    except RecipeError:  # damaged: the run writes it anew
        return
    now = yaml.safe_load(resolved_yaml(recipe))
    compared = now.keys() - set(_NO_RESULT) if of is None else set(of)
    different = [
        change for change in _changes(earlier, now) if any(f"{change[0]}.".startswith(f"{key}.") for key in compared)
    ]
    if different:
        key, was, wanted = different[0]
        others = [name for name, *_ in different[1:]]
        more = f" ({', '.join(others[:3])}{' and more' if len(others) > 3 else ''} differ too)" if others else ""
        raise RecipeError(
            f"{folder}: holds a run with {key} {_said(was)}, this recipe has {_said(wanted)}{more};"
            " continue with the same, or choose another output_dir"
        )


def _changes(earlier: dict[str, Any], now: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key both know with two values: dotted key, value before, value now."""
    for key in [key for key in now if key in earlier]:
        was, wanted = earlier[key], now[key]
        if isinstance(was, dict) and isinstance(wanted, dict):
            yield from _changes(was, wanted, f"{above}{key}.")
        elif was != wanted and not _one_place(was, wanted):
            yield f"{above}{key}", was, wanted


def _one_place(was: Any, wanted: Any) -> bool:
    """Whether two values can be one path as seen from two working folders."""
    if not (isinstance(was, str) and isinstance(wanted, str) and os.sep in was and os.sep in wanted):
        return False
    shorter, longer = sorted((Path(was).parts, Path(wanted).parts), key=len)
    return longer[-len(shorter) :] == shorter


def _said(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def resolved_yaml(recipe: BaseModel) -> str:
    """Returns the recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe file") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: a folder; name a recipe in it, a YAML file") from None
    except PermissionError:
        raise RecipeError(f"{path}: cannot be read; the rights of the file do not allow it") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not text in UTF-8 (byte {error.start}); a recipe is a YAML file") from None
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise RecipeError(f"{path}: not valid YAML: {detail}") from None
    if values is None:
        raise RecipeError(f"{path}: an empty recipe; a recipe is a mapping of keys to values")
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, found {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> str:
    """Sets the key that `override` names and returns it."""
    key, separator, text = override.partition("=")
    key = key.removeprefix("--")
    if not separator or not all(key.split(".")):
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
        if isinstance(node, dict) and node.get(parent) is None:  # a section that is off, as in `lora: null`, too
            node[parent] = {}
        node = node[parent] if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise RecipeError(f"override {override!r}: {parent} is not a section")
    node[last] = value
    return key


def _set_by(name: str, key: str, error: Any) -> bool:
    """Whether the override of `name` set what `error` is of: `key`, or in the section `key` what the message names."""
    if f"{key}.".startswith(f"{name}."):
        return True
    unknown = error["type"] == "extra_forbidden"
    return name.startswith(f"{key}.") and (unknown or f" {name.removeprefix(f'{key}.')}: " in f" {error['msg']}")


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
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"{where}: {key}: a section with keys of its own is wanted (got {_short(error['input'])})"
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
