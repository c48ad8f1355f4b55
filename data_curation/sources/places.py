"""Where a data set lies: a file, a folder, or a repository of the hub whose files are fetched one by one as needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_curation.sources.tables import is_table

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# folders in which `datasets` and the hub client keep what is not data
_ASIDE = re.compile(r"(^|/)(\.[^/]*|__pycache__)(/|$)")


@dataclass(frozen=True)
class Place:
    """A data set's files by their names in it. `root` is the local file or folder, None on the hub."""

    name: str
    root: Path | None = None

    def names(self) -> list[str]:
        """The names of all files, sorted, with "/" between folders; of a single file its name."""
        if self.root is None:
            return sorted(_hub_names(self.name))
        if self.root.is_file():
            return [self.root.name]
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(name for name in found if not _ASIDE.search(name))

    def file(self, name: str) -> Path:
        """The local path of one file, fetched from the hub if need be. ValueError if it cannot be had."""
        if self.root is None:
            return _hub_file(self.name, name)
        return self.root if self.root.is_file() else self.root / name


def find_place(where: str) -> Place:
    """The place that a path or the name of a hub repository means; FileNotFoundError if it can be neither."""
    path = Path(where)
    if path.exists():
        return Place(where, path)
    if _HUB_NAME.fullmatch(where) and not where.startswith(".") and not is_table(where):
        return Place(where)
    raise FileNotFoundError(f"{where}: no such file or folder")


def part_of(names: list[str], part: str) -> list[str]:
    """The data files that belong to a part such as "train", "lcbv5/test" or "data/train": each word of it names a
    folder on the file's path, or is how the file's name begins ("train-00000-of-00010.parquet", "train.jsonl")."""
    words = [word for word in part.split("/") if word]
    return [name for name in names if is_table(name) and all(_has(name, word) for word in words)]


def _has(name: str, word: str) -> bool:
    path = PurePosixPath(name)
    return word in path.parts or re.match(rf"{re.escape(word)}([-._]|$)", path.name) is not None


def _hub_names(repository: str) -> list[str]:
    hub = _hub(repository)
    try:
        return list(hub.HfApi().list_repo_files(repository, repo_type="dataset"))
    except _failures() as error:
        try:  # offline, or the hub does not answer: what an earlier run left in the cache
            folder = Path(hub.snapshot_download(repository, repo_type="dataset", local_files_only=True))
        except _failures():
            raise ValueError(f"{repository}: not a local path, and the hub cannot be read: {_reason(error)}") from None
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _hub_file(repository: str, name: str) -> Path:
    hub = _hub(repository)
    try:
        return Path(hub.hf_hub_download(repository, name, repo_type="dataset"))
    except _failures() as error:
        raise ValueError(f"{repository}: {name} cannot be fetched from the hub: {_reason(error)}") from None


def _hub(repository: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"{repository}: no such file or folder; for data sets of the hub, pip install 'rlvr[train]'"
        ) from None
    return huggingface_hub


def _failures() -> tuple[type[Exception], ...]:
    import httpx
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    return (OSError, EntryNotFoundError, HfHubHTTPError, HFValidationError, httpx.HTTPError)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
