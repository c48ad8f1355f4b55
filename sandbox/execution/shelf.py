"""Compiled programs kept for use again, in a bounded number of bytes: a judge lives through millions of them."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

from sandbox.execution.job import Program

_LEAST = 64 << 10  # charged for each, however small: it has an entry here and one in its folder


class Shelf:
    """What lies at paths of their own and is run as a `Program`. Beyond `capacity` bytes those unused for longest are
    removed, but none that a job still holds. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._kept: OrderedDict[str, tuple[int, weakref.ref[Program]]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, path: str, program: Callable[[str], Program]) -> Program | None:
        """The program kept at `path`, None without one. `program` says how what lies there is run."""
        with self._lock:
            if path not in self._kept:
                return None
            size, held = self._kept.pop(path)
            found = held() or program(path)
            self._kept[path] = (size, weakref.ref(found))
            return found

    def add(self, path: str, program: Callable[[str], Program]) -> Program:
        """Keeps what lies at `path` from now on."""
        made, size = program(path), max(_LEAST, _bytes_at(path))
        with self._lock:
            self._kept[path] = (size, weakref.ref(made))
            self.size += size
            self._make_room()
        return made

    @property
    def crowded(self) -> bool:
        """Whether jobs that wait or run hold more than the capacity."""
        with self._lock:
            self._make_room()
            return self.size > self.capacity

    def _make_room(self) -> None:
        for path in list(self._kept) if self.size > self.capacity else ():
            size, held = self._kept[path]
            if held() is None:
                del self._kept[path]
                self.size -= size
                _remove(path)
            if self.size <= self.capacity:
                return


def _bytes_at(path: str) -> int:
    if not os.path.isdir(path):
        return os.path.getsize(path)
    with os.scandir(path) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)
