"""Control groups made for workers and compilers, where that is permitted: they bound memory and number of processes.

One group per worker, not per run: a run costs nothing more. What other limits watch or guess, the kernel here counts:
memory of files in memory, of pipes and of all processes together. Both versions of the interface.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROCESSES = 512  # threads count too; a run may have 256
_CLEAR_S = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups can be made: one directory (version 2), or those of the memory and pids controllers (version 1)."""

    version: int
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking for a place: it, or the reason why there is none."""

    place: Place | None
    reason: str


def find(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Found:
    """A place found by making a group there and limiting it. Nothing is left behind."""
    reason = "no control groups are mounted"
    for place in _candidates(Path(membership), Path(root)):
        try:
            group = Group(place, f"sandbox-probe-{os.getpid()}-{time.monotonic_ns()}", 1 << 30)
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
            continue
        group.remove()
        return Found(place, "")
    return Found(None, reason)


def _candidates(membership: Path, root: Path) -> Iterator[Place]:
    groups = dict[str, str]()
    with contextlib.suppress(OSError):
        for line in membership.read_text(encoding="ascii", errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= dict.fromkeys(controllers.split(","), path)
    if "memory" in groups and "pids" in groups:
        yield Place(1, tuple(_own(root / name, groups[name]) for name in ("memory", "pids")))
    elif "" in groups:
        folder = Path(_own(root, groups[""]))
        while True:  # groups are made beside this process's own, for one with processes has none below it
            enabled = _read(folder / "cgroup.subtree_control").split()
            if "memory" in enabled and "pids" in enabled:
                yield Place(2, (str(folder),))
            if folder == root or root not in folder.parents:
                return
            folder = folder.parent


def _own(mount: Path, path: str) -> str:
    """The directory of the group, or the mount's where the path is that of another view, as in a container."""
    own = mount / path.lstrip("/")
    return str(own if own.is_dir() and ".." not in own.parts else mount)


class Group:
    """A control group with limits. OSError when it cannot be made."""

    def __init__(self, place: Place, name: str, memory_bytes: int) -> None:
        self._version = place.version
        self.folders = [Path(folder, name) for folder in place.folders]
        self._memory, self._pids = self.folders[0], self.folders[-1]
        self.memory_bytes = 0
        made: list[Path] = []
        try:
            for folder in self.folders:
                folder.mkdir()
                made.append(folder)
            _write(self._pids / "pids.max", PROCESSES)
            if self._version == 1:
                _write(self._memory / "memory.swappiness", 0)
            else:
                with contextlib.suppress(OSError):  # no swap accounting
                    _write(self._memory / "memory.swap.max", 0)
            self._set_memory(memory_bytes)
            self._kills, self._refusals = self._counted()
        except OSError:
            for folder in made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise

    def limit(self, memory_bytes: int) -> None:
        """Sets another limit, unless it is the one that holds, or more is in use than it would allow."""
        if memory_bytes != self.memory_bytes:
            with contextlib.suppress(OSError):
                self._set_memory(memory_bytes)

    def doors(self) -> list[int]:
        """Descriptors by which a process joins, writing 0; the caller closes them."""
        opened: list[int] = []
        try:
            for folder in self.folders:
                opened.append(os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def new_events(self) -> tuple[int, int]:
        """Processes killed for memory, and refused as too many, since the last call."""
        before = self._kills, self._refusals
        self._kills, self._refusals = self._counted()
        return self._kills - before[0], self._refusals - before[1]

    def remove(self) -> bool:
        """Whether the group is gone; it cannot go while a process is in it."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self.folders)

    def _set_memory(self, memory_bytes: int) -> None:
        _write(self._memory / ("memory.max" if self._version == 2 else "memory.limit_in_bytes"), memory_bytes)
        self.memory_bytes = memory_bytes

    def _counted(self) -> tuple[int, int]:
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        return _field(self._memory / name, "oom_kill"), _field(self._pids / "pids.events", "max")


class Groups:
    """The groups of one judge, called `name` and a number."""

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self._name = name
        self._numbers = itertools.count()
        self._left: list[Group] = []  # with a process that is still ending

    def make(self, memory_bytes: int) -> Group | None:
        """A new group; None when the machine refuses it now."""
        self._left = [group for group in self._left if not group.remove()]
        with contextlib.suppress(OSError):
            return Group(self.place, f"{self._name}.{next(self._numbers)}", memory_bytes)
        return None

    def drop(self, group: Group) -> None:
        """Removes a group whose processes have ended or are ending."""
        if not group.remove():
            self._left.append(group)

    def close(self) -> None:
        """Removes all that were dropped; waits a little for processes that are ending."""
        deadline = time.monotonic() + _CLEAR_S
        while self._left and time.monotonic() < deadline:
            self._left = [group for group in self._left if not group.remove()]
            if self._left:
                time.sleep(0.01)


def _write(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n", encoding="ascii")
    except OSError as error:
        error.filename = str(path)
        raise


def _field(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
