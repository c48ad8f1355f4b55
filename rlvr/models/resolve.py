"""From what a recipe calls a model to what `from_pretrained` can load."""

from __future__ import annotations

import re
from pathlib import Path

from rlvr.models.catalogue import MODELS
from rlvr.models.fetch import ModelUnavailable, default_folder, is_fetched

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_model(name_or_path: str) -> str:
    """A model folder or a hub id: of a local folder, a catalogue name (models/<name>, fetched before) or a hub id.

    A hub id is checked against the hub, or against the local cache when offline, so that a typing error shows at once.
    Raises ModelUnavailable with one line that says what is missing and how to get it.
    """
    path = Path(name_or_path).expanduser()
    named = name_or_path in MODELS or (path.name in MODELS and path == default_folder(path.name))
    if named and not path.is_dir():
        folder = default_folder(path.name)
        if is_fetched(MODELS[path.name], folder):
            return str(folder)
        raise ModelUnavailable(f"model {name_or_path}: not in {folder} yet; get it with: rlvr models fetch {path.name}")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelUnavailable(
                f"model {name_or_path}: the folder has no config.json, so it is no model; {_checkpoints(path)}"
            )
        return str(path)
    if path.exists():
        raise ModelUnavailable(f"model {name_or_path}: is a file; give the folder that holds config.json")
    if HUB_ID.fullmatch(name_or_path):
        _check_hub(name_or_path)
        return name_or_path
    raise ModelUnavailable(
        f"model {name_or_path}: no such folder; give a folder, a hub id (owner/name) or one of {', '.join(MODELS)}"
    )


def _checkpoints(path: Path) -> str:
    inside = sorted(config.parent.name for config in path.glob("*/config.json"))
    return f"it holds {', '.join(inside)}" if inside else "point to a checkpoint"


def _check_hub(repository: str) -> None:
    import httpx
    from huggingface_hub import file_exists, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(repository, "config.json"), str):
        return
    if HF_HUB_OFFLINE:
        raise ModelUnavailable(
            f"model {repository}: no such folder, not in the local hub cache, and the hub is off (HF_HUB_OFFLINE)"
        )
    try:
        found = file_exists(repository, "config.json")
    except RepositoryNotFoundError:
        raise ModelUnavailable(
            f"model {repository}: no such folder, and the hub has no such repository (or it needs a login)"
        ) from None
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelUnavailable(
            f"model {repository}: no such folder, not cached, and the hub cannot be reached ({reason})"
        ) from None
    if not found:
        raise ModelUnavailable(f"model {repository}: the hub repository has no config.json, so it is no model")
