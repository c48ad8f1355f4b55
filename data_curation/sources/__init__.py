"""Where problems come from: the built-in set, our own file layouts, and public data sets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data_curation import builtin
from data_curation.schema import Problem
from data_curation.sources.catalogue import FORMATS, find_source, read_source
from data_curation.sources.files import read_yaml_folder
from data_curation.sources.hub import read_hub
from data_curation.sources.kattis import read_kattis
from data_curation.sources.rows import RejectedRows, RowError

__all__ = ["RejectedRows", "RowError", "iter_problems", "load_problems", "local_files"]

_KNOWN = (
    f"builtin[:contest|:pipelines|:planted], FORMAT:PLACE with FORMAT one of {', '.join(sorted(FORMATS))}, "
    "kattis:FOLDER, hub:NAME[@SPLIT], a .jsonl[.gz], .json, .parquet, .arrow or .zip file, a folder"
)


def load_problems(
    source: str | Path, *, limit: int | None = None, rejected: RejectedRows | None = None
) -> list[Problem]:
    """All problems of `source`, or the first `limit`.

    `source` is "builtin" or a part of it, "FORMAT:PLACE" for a published layout (PLACE a file, a folder or the name of
    a hub repository, with "@PART" and "?after=DATE&before=DATE" behind it), "hub:NAME[@SPLIT]", a data file whose
    columns are those of a problem or of a published layout, "kattis:FOLDER" for problem packages, or a folder of YAML
    files. A bad row raises RowError, or
    is noted in `rejected` where one is given; a missing file raises FileNotFoundError, an unknown source ValueError.
    """
    return list(islice(iter_problems(source, rejected=rejected), limit))


def iter_problems(source: str | Path, *, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of `source` one by one; as `load_problems`."""
    name = str(source)
    kind, _, rest = name.partition(":")
    if kind == "builtin":
        return iter(builtin.problems(rest))
    if kind == "hub" and rest:
        return read_hub(rest, rejected)
    if kind == "kattis" and rest:
        return read_kattis(Path(rest), rejected)
    found = find_source(name)
    if found is not None:
        return read_source(found, rejected)
    path = Path(source)
    if path.is_dir():
        return read_yaml_folder(path, rejected)
    if not path.exists() and (path.suffix == "" or "/" in name) and kind == name:
        raise FileNotFoundError(f"{path}: no such file or folder; a source is one of {_KNOWN}")
    raise ValueError(f"{source}: not a source; give one of {_KNOWN}")


def local_files(source: str | Path) -> list[Path]:
    """The files of this machine that a source is read from, in order; none for a data set of the hub."""
    name = str(source)
    kind, _, rest = name.partition(":")
    if kind in ("builtin", "hub"):
        return sorted(path for path in builtin.CONTEST.rglob("*") if path.is_file()) if kind == "builtin" else []
    if kind == "kattis" and rest:
        return sorted(path for path in Path(rest).rglob("*") if path.is_file())
    found = find_source(name)
    if found is not None:
        return [] if found.place.root is None else [found.place.file(file) for file in found.files()]
    path = Path(source)
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
