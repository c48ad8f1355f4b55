"""Append-only JSONL files that survive a kill: a header with what they belong to, then one row a line."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Journal:
    """Rows appended whole; a last line that a kill cut short is dropped when the file is opened again.

    Opening a file of another `header` raises ValueError, unless it holds no row: then it is begun anew. So does a file
    that another process has open. Thread-safe.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        try:
            self._lock_file()
            self._rows = list(self._open(header))
        except BaseException:
            self._file.close()
            raise
        if path.stat().st_size == 0:
            self.append([header])

    def _lock_file(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{self.path}: another process is at work on this evaluation; wait for it, or choose another output_dir"
                " (--out)"
            ) from None

    def _open(self, header: dict[str, Any]) -> Iterator[dict[str, Any]]:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        if all(line.startswith(b'{"seconds":') for line in whole.splitlines()[1:]):  # nothing would be lost
            os.truncate(self.path, 0)
            return
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                remedy = "delete this line, and what it held is made again" if number > 1 else "delete the file"
                raise ValueError(f"{self.path}:{number}: damaged; {remedy}")
            if number == 1:
                self._check(row, header)
            else:
                yield row

    def _check(self, found: dict[str, Any], header: dict[str, Any]) -> None:
        wanted = json.loads(json.dumps(header))
        if found == wanted:
            return
        names = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        changed = "; ".join(f"{key} was {_short(found.get(key))}, is {_short(wanted.get(key))}" for key in names)
        raise ValueError(
            f"{self.path}: belongs to another evaluation ({changed}); choose another output_dir (--out), or delete"
            " the file"
        )

    def take(self) -> list[dict[str, Any]]:
        """The rows that were there when it was opened; given out once."""
        rows, self._rows = self._rows, []
        return rows

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Writes the rows in one go and hands them to the system: a killed process loses none of them."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self._lock:
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
