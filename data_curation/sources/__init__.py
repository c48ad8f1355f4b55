"""Where problems come from: the built-in set, our own file layouts, and public data sets."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data_curation import builtin
from data_curation.schema import Problem
from data_curation.sources.catalogue import FORMATS, find_source, folder_source, read_source
from data_curation.sources.files import read_yaml_folder, yaml_files
from data_curation.sources.hub import read_hub
from data_curation.sources.kattis import read_kattis
from data_curation.sources.rows import RejectedRows, RowError, existing
from data_curation.sources.tables import ENDINGS

__all__ = ["RejectedRows", "RowError", "check_source", "iter_problems", "load_problems", "local_files"]

_KNOWN = (
    f"builtin[:contest|:pipelines|:planted], FORMAT:PLACE with FORMAT one of {', '.join(sorted(FORMATS))}, "
    "kattis:FOLDER, hub:NAME[@SPLIT], a .jsonl[.gz], .json, .parquet, .arrow or .zip file, a folder of such or of YAML"
)


def load_problems(
    source: str | Path, *, limit: int | None = None, rejected: RejectedRows | None = None
) -> list[Problem]:
    """All problems of `source`, or the first `limit`.

    `source` is "builtin" or a part of it, "FORMAT:PLACE" for a published layout (PLACE a file, a folder or the name of
    a hub repository, with "@PART" and "?after=DATE&before=DATE" behind it), "hub:NAME[@SPLIT]", a data file whose
    columns are those of a problem or of a published layout, "kattis:FOLDER" for problem packages, or a folder of YAML
    files or data files. A bad row raises RowError, or is noted in `rejected` where one is given; a missing file raises
    FileNotFoundError, an unknown source ValueError.
    """
    return list(islice(iter_problems(source, rejected=rejected), limit))


def iter_problems(source: str | Path, *, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of `source` one by one; as `load_problems`."""
    name = str(source)
    kind, _, rest = name.partition(":")
    if not name.strip():
        raise ValueError(f"an empty source; give one of {_KNOWN}")
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
        tables = None if yaml_files(path) else folder_source(name)
        return read_yaml_folder(path, rejected) if tables is None else read_source(tables, rejected)
    raise _no_source(name)


def _no_source(name: str) -> Exception:
    """What is wrong with a name that means nothing: the nearest known one, or the kinds there are."""
    kind, colon, rest = name.partition(":")
    path = Path(name)
    if path.is_file():
        return ValueError(f"{name}: not a source: known data files are {', '.join(ENDINGS)}")
    if colon and (near := difflib.get_close_matches(kind, ("builtin", "hub", "kattis", *FORMATS), n=1)):
        fault = "nothing behind the colon" if near[0] == kind else f"unknown format `{kind}`"
        return ValueError(f"{name}: {fault}; did you mean `{near[0]}:{rest or 'PLACE'}`? A source is one of {_KNOWN}")
    if colon or (path.suffix and "/" not in name):
        return ValueError(f"{name}: not a source; give one of {_KNOWN}")
    return FileNotFoundError(f"{name}: no such file or folder; a source is one of {_KNOWN}")


def check_source(source: str | Path) -> None:
    """Raises what reading `source` would raise at once: FileNotFoundError for what is not there, ValueError for a name
    that means nothing, a bad option, or a folder without the part asked for. Reads no row and asks no hub."""
    name = str(source)
    kind, _, rest = name.partition(":")
    if kind == "builtin":
        builtin.check_part(rest)
        return
    iter_problems(source)
    if kind == "kattis":
        existing(Path(rest), folder=True)
    elif (found := find_source(name)) is None or found.place.root is not None:
        local_files(source)


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
