"""Problems from our own layouts: JSONL, parquet, and folders of YAML files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from data_curation.schema import Problem
from data_curation.sources.rows import (
    RejectedRows,
    RowError,
    convert,
    existing,
    problem_from_row,
)
from data_curation.sources.tables import parquet_rows

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_parquet(path: Path, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of a parquet file whose columns are the fields of a problem, read batch by batch."""
    existing(path)
    yield from convert(parquet_rows(path), lambda value, row: problem_from_row(path, row, given(value)), path, rejected)


def read_yaml_folder(folder: Path, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """One problem a .yaml or .yml file, in the order of their paths; keys are the fields of a problem."""
    existing(folder, folder=True)
    paths = yaml_files(folder)
    if not paths:
        raise FileNotFoundError(f"{folder}: no .yaml files and no data files in this folder")
    for path in paths:
        yield from convert(_yaml_rows(path), partial(_yaml_problem, path), path, rejected)


def yaml_files(folder: Path) -> list[Path]:
    """The .yaml and .yml files in a folder and below it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())


def _yaml_problem(path: Path, value: Any, row: int | None) -> Problem:
    return problem_from_row(path, row, value)


def given(value: Any) -> Any:
    """The row without its nulls: a null in a column means "not given", and the schema's default applies."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _yaml_rows(path: Path) -> Iterator[tuple[int | None, Any]]:
    try:
        yield None, yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
    except UnicodeDecodeError as error:
        yield None, RowError(path, None, f"not UTF-8 text: byte 0x{error.object[error.start]:02x} at {error.start}")
    except yaml.YAMLError as error:
        yield None, RowError(path, None, f"not YAML: {' '.join(str(error).split())}")
