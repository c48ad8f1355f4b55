"""Text files that users hand in, packed or not: whatever is wrong with one is a line that names it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_GZIP = b"\x1f\x8b"


def numbered_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every line that is not blank; gzip is told by its first bytes, not by the name.

    FileNotFoundError "no such `what`"; ValueError for a folder, for a file cut short and for one that is not UTF-8.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the {what}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {what}")
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
        encoding = "utf-8-sig"  # a mark of the byte order is no part of the first line
        with gzip.open(path, "rt", encoding=encoding) if packed else path.open(encoding=encoding) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line
    except EOFError:
        raise ValueError(f"{path}: cut short: what is packed ends within line {number + 1}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: packed with gzip, and damaged: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text: {error.reason} near line {number + 1}") from None


def sound(text: str) -> str:
    """`text` with what no UTF-8 file can hold replaced: JSON can name half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def numbered_objects(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file with a JSON object a line; ValueError naming the line for anything else."""
    for number, line in numbered_lines(path, what):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
            raise ValueError(f"{path}:{number}: JSON that cannot be read ({str(error).partition(';')[0]})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: expected an object, got {type(row).__name__}")
        yield number, row
