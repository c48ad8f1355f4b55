"""Data sets of the hub by name, through the `datasets` library where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_curation.schema import Problem
from data_curation.sources.catalogue import Reader, hub_reader
from data_curation.sources.files import given
from data_curation.sources.places import Place
from data_curation.sources.rows import RejectedRows, RowError, convert, problem_from_row

_PROBLEM_COLUMNS = frozenset({"id", "statement"})


def read_hub(name: str, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of `NAME` or `NAME@SPLIT` (default train), streamed; the layout is told by the columns."""
    try:
        import datasets
        from huggingface_hub.utils import logging
    except ImportError:
        raise ValueError(
            f"hub:{name}: the `datasets` package is not installed; pip install 'rlvr[train]' or give a file"
        ) from None
    dataset, _, split = name.partition("@")
    try:
        with _quietly(logging):
            rows = datasets.load_dataset(dataset, split=split or "train", streaming=True)
    except Exception as error:  # datasets raises a dozen unrelated kinds here; the user needs the first line of any
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"hub:{name}: cannot be loaded: {reason}") from None

    readers: dict[frozenset[str], Reader | None] = {}

    def make(value: Any, row: int | None) -> Problem:
        columns = frozenset(value)
        if columns not in readers:
            readers[columns] = hub_reader(value, Place(dataset))
        reader = readers[columns]
        if reader is not None:
            return reader(value, row or 1)
        if columns >= _PROBLEM_COLUMNS:
            return problem_from_row(f"hub:{name}", row, given(value))
        shown = ", ".join(sorted(value)[:12])
        raise RowError(f"hub:{name}", row, f"unknown layout: neither a problem nor a known set has the columns {shown}")

    yield from convert(iter(enumerate(rows, start=1)), make, f"hub:{name}", rejected)


@contextmanager
def _quietly(logging: Any) -> Iterator[None]:
    """The hub's client tells of every try; what stopped the last one is in the error."""
    told = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(told)
