"""Where problems come from: the built-in set, our own file layouts, and public data sets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data_curation import builtin
from data_curation.schema import Problem
from data_curation.sources.files import read_jsonl, read_parquet, read_yaml_folder
from data_curation.sources.hub import read_hub
from data_curation.sources.mbpp import read_mbpp
from data_curation.sources.rows import RejectedRows, RowError

__all__ = ["RejectedRows", "RowError", "iter_problems", "load_problems"]

_KNOWN = "builtin[:contest|:pipelines|:planted], mbpp:PATH, hub:NAME[@SPLIT], a .jsonl[.gz] or .parquet file, a folder"


def load_problems(
    source: str | Path, *, limit: int | None = None, rejected: RejectedRows | None = None
) -> list[Problem]:
    """All problems of `source`, or the first `limit`.

    `source` is "builtin", "builtin:contest", "builtin:pipelines", "builtin:planted", "mbpp:PATH", "hub:NAME", a
    .jsonl[.gz] or .parquet file of problems, or a folder of YAML files. A bad row raises RowError, or is noted in
    `rejected` where one is given; a missing file raises FileNotFoundError, an unknown source ValueError.
    """
    return list(islice(iter_problems(source, rejected=rejected), limit))


def iter_problems(source: str | Path, *, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of `source` one by one; as `load_problems`."""
    kind, _, rest = str(source).partition(":")
    if kind == "builtin":
        return iter(builtin.problems(rest))
    if kind == "mbpp" and rest:
        return read_mbpp(Path(rest), rejected)
    if kind == "hub" and rest:
        return read_hub(rest, rejected)
    path = Path(source)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return read_jsonl(path, rejected)
    if path.suffix == ".parquet":
        return read_parquet(path, rejected)
    if path.is_dir():
        return read_yaml_folder(path, rejected)
    if not path.exists() and (path.suffix == "" or "/" in str(source)) and kind == str(source):
        raise FileNotFoundError(f"{path}: no such file or folder; a source is one of {_KNOWN}")
    raise ValueError(f"{source}: not a source; give one of {_KNOWN}")
