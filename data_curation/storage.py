"""Writing problems and tables: a file appears whole or not at all, and the same rows give the same bytes."""

from __future__ import annotations

import errno
import gzip
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from data_curation.schema import Problem

T = TypeVar("T")

_TEST = pa.struct(
    [
        ("input", pa.large_string()),
        ("output", pa.large_string()),
        ("call", pa.large_string()),
        ("weight", pa.float64()),
        ("sample", pa.bool_()),
        ("group", pa.string()),
    ]
)
_SOLUTION = pa.struct(
    [("code", pa.large_string()), ("language", pa.string()), ("verdict", pa.string()), ("note", pa.string())]
)
_SUBTASK = pa.struct([("name", pa.string()), ("points", pa.float64()), ("policy", pa.string())])
PROBLEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("statement", pa.large_string()),
        ("starter_code", pa.string()),
        ("preamble", pa.string()),
        ("tests", pa.list_(_TEST)),
        ("generator", pa.struct([("code", pa.large_string()), ("arguments", pa.list_(pa.string()))])),
        ("cpu_s", pa.float64()),
        ("memory_mb", pa.int64()),
        ("checker", pa.large_string()),
        ("input_file", pa.string()),
        ("output_file", pa.string()),
        ("interactor", pa.large_string()),
        ("subtasks", pa.list_(_SUBTASK)),
        ("languages", pa.list_(pa.string())),
        ("solutions", pa.list_(_SOLUTION)),
        ("family", pa.string()),
        ("rating", pa.float64()),
        ("difficulty", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("date", pa.date32()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("url", pa.string()),
    ]
)
ROWS_PER_GROUP, CHARACTERS_PER_GROUP = 512, 8 << 20  # a group is what writing and looking up a row hold at once


def save_problems(problems: Iterable[Problem], path: str | Path) -> None:
    """Writes problems to .parquet, .jsonl or .jsonl.gz, replacing the file in one move; ValueError for other names.

    Parquet is written as the problems come; JSON lines are made whole first.
    """
    target = Path(path)
    if target.suffix == ".parquet":
        save_table((problem.model_dump() for problem in problems), PROBLEM_SCHEMA, target)
    elif target.name.endswith((".jsonl", ".jsonl.gz")):
        lines = "".join(problem.model_dump_json() + "\n" for problem in problems).encode()
        save_bytes(gzip.compress(lines, mtime=0) if target.suffix == ".gz" else lines, target)
    else:
        raise ValueError(f"{target}: problems are saved as .parquet, .jsonl or .jsonl.gz")


def save_table(rows: Iterable[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    """Writes rows of `schema` as parquet, replacing the file in one move."""

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for group in weighed(rows, _characters, ROWS_PER_GROUP, CHARACTERS_PER_GROUP):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))

    replace_with(write, path)


def weighed(items: Iterable[T], weight: Callable[[T], int], most: int, most_weight: int) -> Iterator[list[T]]:
    """Lists of up to `most` items, each ended by the item that brings its weight to `most_weight`."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += weight(item)
        if len(batch) == most or held >= most_weight:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _characters(value: Any) -> int:
    """Characters of all texts in a row."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 8


def save_bytes(content: bytes, path: Path) -> None:
    """Writes `content`, replacing the file in one move."""
    replace_with(lambda temporary: temporary.write_bytes(content), path)


def clear_unfinished(folder: Path) -> None:
    """Removes what a killed `replace_with` left in `folder`; nothing else may be writing there."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def replace_with(write: Callable[[Path], Any], path: Path) -> None:
    """Runs `write` on a temporary file beside `path`, then moves it into place; a failure leaves `path` as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        with naming(path, temporary):
            write(temporary)
            temporary.chmod(0o644)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Gives errors of a disk that is full or failing the name of the file that was written, which libraries leave out.

    What happened to `temporary`, the file's unfinished form, happened to `path`.
    """
    try:
        yield
    except OSError as error:
        nameless = error.filename is None and error.errno in _DISK
        if nameless or (temporary is not None and error.filename == str(temporary)):
            raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error
        raise
