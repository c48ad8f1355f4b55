"""Rows of data files as a stream: JSON lines, JSON arrays, parquet, Arrow; plain, gzipped or in zip archives."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from data_curation.sources.decoding import long_integers
from data_curation.sources.rows import RowError, existing

Rows = Iterator[tuple[int | None, Any]]  # (row number from 1, value, or the RowError of a row that cannot be read)

_GZIP = b"\x1f\x8b"
BATCH_ROWS = 64  # of parquet files decoded at a time, at most
BATCH_BYTES = 16 << 20
BUFFER_BYTES = 1 << 20  # of each column read ahead
_JSON_ENDINGS = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
ENDINGS = (*_JSON_ENDINGS, ".parquet", ".arrow", ".zip")


def is_table(name: str) -> bool:
    """Whether a file of this name holds rows we can read."""
    return name.casefold().endswith(ENDINGS)


def rows_of(path: Path) -> Rows:
    """The rows of one file, told apart by its name. RowError for a file that is not what its name says."""
    name = existing(path).name.casefold()
    if name.endswith(_JSON_ENDINGS):
        return json_rows(path)
    if name.endswith(".parquet"):
        return parquet_rows(path)
    if name.endswith(".arrow"):
        return arrow_rows(path)
    if name.endswith(".zip"):
        return zip_rows(path)
    raise ValueError(f"{path}: not a data file; known are {', '.join(ENDINGS)}")


def json_rows(path: Path) -> Rows:
    """(row number from 1, value) of every line of a JSON lines file, or of every item of a JSON array, maybe gzipped.

    A line that is no JSON comes as its RowError, so that the rows after it can be read.
    """
    existing(path)
    with path.open("rb") as raw, ExitStack() as stack:
        packed = raw.read(len(_GZIP)) == _GZIP  # the name may say otherwise: the bytes decide
        raw.seek(0)
        if not packed and path.name.casefold().endswith(".gz") and path.stat().st_size:
            raise RowError(path, None, "its name ends in .gz, but it is not a gzip file")
        yield from _json_stream(cast(IO[bytes], stack.enter_context(gzip.open(raw)) if packed else raw), path)


def parquet_rows(path: Path, source: Any = None) -> Rows:
    """(row number from 1, row) of a parquet file, read batch by batch; RowError if it is none."""
    existing(path)
    try:
        with pq.ParquetFile(path if source is None else source, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            yield from _batched(file.iter_batches(batch_size=_batch_rows(file), use_threads=False))
    except (pa.ArrowInvalid, OSError) as error:
        raise RowError(path, None, f"not a readable parquet file: {str(error).splitlines()[0]}") from None


def arrow_rows(path: Path, source: Any = None) -> Rows:
    """(row number from 1, row) of an Arrow file, in the streaming format that `datasets` writes or the file format."""
    existing(path)
    try:
        with pa.memory_map(str(path)) if source is None else pa.PythonFile(source) as file:
            if file.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(file)
                yield from _batched(reader.get_batch(n) for n in range(reader.num_record_batches))
            else:
                file.seek(0)
                yield from _batched(pa.ipc.open_stream(file))
    except (pa.ArrowInvalid, OSError) as error:
        raise RowError(path, None, f"not a readable Arrow file: {str(error).splitlines()[0]}") from None


def zip_rows(path: Path) -> Rows:
    """The rows of all data files in a zip archive, in the order of their names, numbered through."""
    existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if is_table(n) and not n.endswith(".zip"))
            if not names:
                raise RowError(path, None, f"no data file in this archive; known are {', '.join(ENDINGS[:-1])}")
            count = 0
            for name in names:
                with archive.open(name) as packed:
                    for _, value in _member_rows(packed, path, name.casefold()):
                        count += 1
                        yield count, value
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise RowError(path, None, f"not a readable zip archive: {error}") from None


def _member_rows(packed: IO[bytes], path: Path, name: str) -> Rows:
    if name.endswith(_JSON_ENDINGS):
        with ExitStack() as stack:
            unpacked = cast(IO[bytes], stack.enter_context(gzip.open(packed)) if name.endswith(".gz") else packed)
            yield from _json_stream(unpacked, path)
        return
    read: Callable[[Path, Any], Rows] = parquet_rows if name.endswith(".parquet") else arrow_rows
    with tempfile.TemporaryFile() as file:  # both need to seek
        shutil.copyfileobj(packed, file)
        file.seek(0)
        yield from read(path, file)


def _batch_rows(file: pq.ParquetFile) -> int:
    """Rows to decode at a time, so that they take about BATCH_BYTES: a row may hold many megabytes of tests."""
    groups = (file.metadata.row_group(n) for n in range(file.metadata.num_row_groups))
    size = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, size)))


def _batched(batches: Iterator[pa.RecordBatch]) -> Rows:
    row = 0
    for batch in batches:
        for start in range(batch.num_rows):  # one by one: as Python objects a row takes several times its bytes
            row += 1
            yield row, batch.slice(start, 1).to_pylist()[0]


def _json_stream(stream: IO[bytes], path: Path) -> Rows:
    row = 0
    try:
        first = stream.readline().removeprefix(codecs.BOM_UTF8)
        if first.lstrip()[:1] == b"[":  # one array in the file: there is no streaming it with the standard library
            yield from _array(first + stream.read(), path)
            return
        line = first
        while line:
            row += 1
            if line.strip():
                yield row, _parsed(path, row, line)
            line = stream.readline()
    except (OSError, EOFError, zlib.error) as error:
        raise RowError(path, row + 1, f"cannot be unpacked after this row: {error}") from None


def _array(body: bytes, path: Path) -> Rows:
    value = _parsed(path, 1, body)
    if isinstance(value, RowError):
        # lines that are arrays themselves: not rows of any known layout, but each is named
        for row, line in enumerate(io.BytesIO(body), start=1):
            if line.strip():
                yield row, _parsed(path, row, line)
    elif all(isinstance(item, dict) for item in value):
        yield from enumerate(value, start=1)
    else:
        yield 1, value


def _parsed(path: Path, row: int, line: bytes) -> Any:
    try:
        with long_integers():
            return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowError(path, row, f"not UTF-8 text: byte 0x{line[error.start]:02x} at position {error.start}")
    except json.JSONDecodeError as error:
        return RowError(path, row, f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:
        return RowError(path, row, f"not usable JSON: {error}")
