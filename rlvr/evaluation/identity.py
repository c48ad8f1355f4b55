"""What an evaluation belongs to: what must not change while it is continued, and what its results are read back for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_curation import Problem
from rlvr.config import EvaluationRecipe, ModelSection, RecipeError
from rlvr.config.evaluation import REFERENCES
from rlvr.evaluation.results import Results, read_results
from rlvr.models import ModelUnavailable, resolve_model, weights_fingerprint
from rlvr.provenance import data_fingerprint

_SHOWN = {"data_fingerprint": "problems"}


def identity_of(recipe: EvaluationRecipe, problems: Iterable[Problem], in_memory: bool) -> dict[str, Any]:
    """What must not change under an evaluation that is continued; the weights where they are read from a folder."""
    prompt = hashlib.sha256(recipe.prompt.model_dump_json().encode()).hexdigest()[:16]
    identity = {"data_fingerprint": data_fingerprint(problems), "prompt": prompt, "seed": recipe.seed}
    if recipe.samples == REFERENCES:
        return identity | {"samples": REFERENCES}
    if recipe.samples is not None:
        path = Path(recipe.samples)
        if not path.is_file():
            what = "is a folder; give the" if path.is_dir() else "no such"
            raise FileNotFoundError(f"{path}: {what} file of samples")
        return identity | {"samples": hashlib.sha256(path.read_bytes()).hexdigest()[:16]}
    sampling = recipe.sampling.model_dump(mode="json", exclude={"k", "threads"})
    if recipe.endpoint is not None:
        name = recipe.endpoint.name or recipe.endpoint.url
        return identity | {"model": recipe.endpoint.model, "endpoint": name, "sampling": sampling}
    assert recipe.model is not None
    engine = {"engine": recipe.engine, "dtype": recipe.model.dtype, "engine_options": recipe.engine_options}
    weights = None if in_memory else _weights(recipe.model, Path(recipe.output_dir))
    return identity | {"model": recipe.model.name_or_path, "weights": weights, **engine, "sampling": sampling}


def _weights(model: ModelSection, folder: Path) -> str | None:
    """Fingerprint of a folder, or the revision of a model of the hub.

    A model that is gone has those its finished evaluation was made with: reading back and judging anew need no model.
    """
    try:
        found = Path(resolve_model(model.name_or_path))
    except ModelUnavailable:
        if not (folder / "results.json").is_file():
            raise
        return read_results(folder / "results.json").config.get("identity", {}).get("weights")
    return weights_fingerprint(found) if found.is_dir() else model.revision


def finished(folder: Path, identity: dict[str, Any]) -> Results | None:
    """The results that are there already, or None; RecipeError where they are those of another evaluation."""
    if not (folder / "results.json").is_file():
        return None
    done = read_results(folder / "results.json")
    found = done.config.get("identity")
    if found == identity:
        return done
    known = found if isinstance(found, dict) else {}
    changed = [_SHOWN.get(key, key) for key in {**identity, **known} if identity.get(key) != known.get(key)]
    raise RecipeError(
        f"{folder}: holds results of another evaluation ({', '.join(changed)} changed); choose another output_dir "
        "(--out), or delete it"
    )
