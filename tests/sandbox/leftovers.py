"""What runs could leave behind, counted from outside: processes, files, shared memory, locks, descriptors, memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

_OURS = ("sandbox-judge-", "pytest-")  # directories of judges, perhaps of others, and of tests


@dataclass(frozen=True)
class Census:
    """Things found at one moment. `resident_kb` and `descriptors` are by process: the controller and its workers."""

    processes: frozenset[int]
    files: frozenset[str]
    shared_memory: frozenset[str]
    locks: frozenset[str]
    descriptors: dict[int, int]
    resident_kb: dict[int, int]

    def more_than(self, earlier: Census, grown_kb: int, descriptors: int) -> list[str]:
        """What is there now and was not before; memory and descriptors beyond the growth allowed."""
        found = []
        for field in fields(self)[:4]:
            new = getattr(self, field.name) - getattr(earlier, field.name)
            found += [f"{field.name}: {thing}" for thing in sorted(map(str, new))]
        for name, allowed in (("descriptors", descriptors), ("resident_kb", grown_kb)):
            now, before = getattr(self, name), getattr(earlier, name)
            found += [
                f"{name} of {pid}: {before[pid]} -> {value}"
                for pid, value in now.items()
                if pid in before and value > before[pid] + allowed
            ]
        return found


def census(controller: int, workers: list[int]) -> Census:
    """The state around a judge whose controller and workers these are. Only what belongs to its user is looked at."""
    roots = [psutil.Process(pid) for pid in workers]
    tree = {process.pid for root in roots for process in [root, *root.children(recursive=True)]}
    user = psutil.Process(controller).uids().real
    descriptors: dict[int, int] = {}
    resident_kb: dict[int, int] = {}
    for pid in (controller, *tree):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            process = psutil.Process(pid)
            descriptors[pid], resident_kb[pid] = process.num_fds(), process.memory_info().rss >> 10
    tree &= resident_kb.keys()
    if any("bwrap" in root.name() for root in roots):  # outside the containers others' files come and go
        contained = [pid for pid in tree if _has_own_root(pid)]
        places = [f"/proc/{pid}/root{place}" for pid in contained for place in ("/tmp", "/tmp/run/scratch", "/dev/shm")]
    else:
        places = ["/dev/shm", "/dev/mqueue", "/var/tmp", tempfile.gettempdir()]
    places += [f"/proc/{pid}/cwd" for pid in tree]
    tables = [_lines(f"/proc/sysvipc/{name}", user) for name in ("shm", "msg", "sem")]
    return Census(
        frozenset(tree),
        frozenset(path for place in places for path in _listing(place, user)),
        frozenset[str]().union(*tables),
        frozenset(line for line in _text("/proc/locks") if tree & {int(w) for w in line.split() if w.isdigit()}),
        descriptors,
        resident_kb,
    )


def _has_own_root(pid: int) -> bool:
    """Whether a process sees files of its own, and we may look at them."""
    try:
        return not os.path.samefile(f"/proc/{pid}/root", "/")
    except OSError:
        return False


def _listing(place: str, user: int) -> list[str]:
    found = []
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                owner = entry.stat(follow_symlinks=False).st_uid
                inside = place.startswith("/proc/")
                if (owner == user or inside) and not entry.name.startswith(_OURS) and entry.name != "run":
                    found.append(f"{place}/{entry.name}")
    except OSError:  # not there, or not ours to look into
        return found
    return found


def _text(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _lines(path: str, user: int) -> set[str]:
    """Entries of a table of System V objects that the user owns."""
    head, *rows = _text(path) or [""]
    at = head.split().index("uid") if "uid" in head.split() else -1
    return {f"{Path(path).name} {row.split()[1]}" for row in rows if at >= 0 and row.split()[at] == str(user)}
