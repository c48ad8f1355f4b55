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
BUFFER_BYTES = 1 << 20  # of each column, or of a text, read ahead
_JSON_ENDINGS = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
_DECODER = json.JSONDecoder()
_LONGEST_WORD = 16  # more than "-Infinity" or an escape, which may be cut at the end of what was read
_REST_LOST = "what follows cannot be read"
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
        yield from _json_stream(cast(io.BufferedReader, stack.enter_context(gzip.open(raw)) if packed else raw), path)


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
            unpacked = cast(
                io.BufferedReader, stack.enter_context(gzip.open(packed)) if name.endswith(".gz") else packed
            )
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


def _json_stream(stream: io.BufferedReader, path: Path) -> Rows:
    row = 0
    try:
        if stream.peek(3).startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        if stream.peek(1).lstrip()[:1] == b"[":
            for row, value in array_items(stream, path):
                yield row, value
            return
        for line in stream:
            row += 1
            if line.strip():
                yield row, _parsed(path, row, line)
    except (OSError, EOFError, zlib.error) as error:
        raise RowError(path, row + 1, f"cannot be unpacked after this row: {error}") from None


def array_items(stream: io.BufferedReader, path: Path) -> Iterator[tuple[int, Any]]:
    """(row number from 1, item) of a JSON array; at most one item and a buffer are held, whatever the file's size.

    After an item that is no JSON nothing more can be told apart: RowError ends the reading. The standard decoder reads
    each item, so that numbers of any length, NaN and messages are those of JSON lines.
    """
    text = _Text(stream)
    row = 0
    try:
        text.take("[")
        if text.take("]"):
            return
        while True:
            row += 1
            with long_integers():
                item = text.item()
            yield row, item
            if not text.take(","):
                break
        if not text.take("]"):
            raise RowError(path, row + 1, f"not JSON: expected , or ] after row {row}; {_REST_LOST}")
        if not text.ended():
            raise RowError(path, row + 1, "more after the array's end; rows are one array, or a line each")
    except UnicodeDecodeError as error:
        wrong = f"not UTF-8 text: byte 0x{error.object[error.start]:02x}; {_REST_LOST}"
        raise RowError(path, max(1, row), wrong) from None
    except json.JSONDecodeError as error:
        raise RowError(path, row, f"not JSON: {error.msg}; {_REST_LOST}") from None
    except RowError:
        raise
    except (RecursionError, ValueError) as error:
        raise RowError(path, row, f"not usable JSON: {error}; {_REST_LOST}") from None


class _Text:
    """The text of a stream, from the place reached so far; more of it is read when it is needed."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._fault: Exception | None = None  # comes up when all before it has been used
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._held, self._at = "", 0

    def ended(self) -> bool:
        """Whether only blanks are left."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._held):
                return False
            if not self._more(BUFFER_BYTES):
                return True

    def take(self, sign: str) -> bool:
        """Whether the next sign is this one, which is then passed."""
        found = not self.ended() and self._held[self._at] == sign
        self._at += found
        return found

    def item(self) -> Any:
        """The JSON value that begins here; JSONDecodeError if it is none."""
        self.ended()
        wanted = BUFFER_BYTES
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
                length = end - self._at
                # 1 may be the beginning of 1.5
                cut = isinstance(value, int | float) and end > len(self._held) - _LONGEST_WORD
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._held) - _LONGEST_WORD
                if not cut or not self._more(wanted):
                    raise
            else:
                if not cut or not self._more(wanted):
                    self._at += length
                    return value
            wanted = 2 * wanted  # so that a long item is looked at few times

    def _more(self, size: int) -> bool:
        """Reads `size` bytes more; False at the end of the stream. Raises what is wrong with the bytes that follow."""
        body = bytearray()
        try:
            while not self._fault and len(body) < size and (part := self._stream.read1(size - len(body))):
                body += part
        except (OSError, EOFError, zlib.error) as error:
            self._fault = error
        try:
            text = self._decoder.decode(body, final=not body and not self._fault)
        except UnicodeDecodeError as error:
            self._fault, text = error, error.object[: error.start].decode("utf-8")
        if self._fault and not text:
            raise self._fault
        self._held, self._at = self._held[self._at :] + text, 0
        return bool(body)


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
