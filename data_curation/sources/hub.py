"""Data sets of the hub by name, through the `datasets` library where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_curation.schema import Problem
from data_curation.sources.mbpp import COLUMNS as MBPP_COLUMNS
from data_curation.sources.mbpp import mbpp_problem
from data_curation.sources.rows import RejectedRows, RowError, convert, problem_from_row

_PROBLEM_COLUMNS = frozenset({"id", "statement"})


def read_hub(name: str, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of `NAME` or `NAME@SPLIT` (default train), streamed; the layout is told by the columns."""
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"hub:{name}: the `datasets` package is not installed; pip install 'rlvr[train]' or give a file"
        ) from None
    dataset, _, split = name.partition("@")
    try:
        rows = datasets.load_dataset(dataset, split=split or "train", streaming=True)
    except Exception as error:  # datasets raises a dozen unrelated kinds here; the user needs the first line of any
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"hub:{name}: cannot be loaded: {reason}") from None

    def make(value: Any, row: int | None) -> Problem:
        if value.keys() >= MBPP_COLUMNS:
            return mbpp_problem(value, row, f"hub:{name}")
        if value.keys() >= _PROBLEM_COLUMNS:
            return problem_from_row(f"hub:{name}", row, {k: v for k, v in value.items() if v is not None})
        columns = ", ".join(sorted(value)[:12])
        raise RowError(f"hub:{name}", row, f"unknown layout: needs the columns of a problem or of MBPP, has {columns}")

    yield from convert(iter(enumerate(rows, start=1)), make, f"hub:{name}", rejected)
