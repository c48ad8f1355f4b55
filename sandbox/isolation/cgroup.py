"""What control groups leave to this process: CPUs and memory. Read only; both versions of the interface."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 1 << 60  # version 1 writes "none" as a number near 2^63


@dataclass(frozen=True, slots=True)
class Allowance:
    """The tightest limits found on the way from this process's group to the root; None where there are none."""

    cpus: float | None
    memory_bytes: int | None


def allowance(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Allowance:
    """What the groups named in `membership`, mounted under `root`, allow."""
    cpus: list[float] = []
    memory: list[int] = []
    for controllers, path in _groups(Path(membership)):
        for group in _upwards(Path(root), controllers, path):
            if not controllers:
                quota, _, period = _read(group / "cpu.max").partition(" ")
                memory += _number(_read(group / "memory.max"))
            else:
                quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
                memory += _number(_read(group / "memory.limit_in_bytes"))
            cpus += [q / p for q in _number(quota) for p in _number(period)]
    return Allowance(min(cpus, default=None), min(memory, default=None))


def usable_cpus() -> int:
    """CPUs this process may keep busy: those it may run on, cut to its group's quota, at least 1."""
    present = len(os.sched_getaffinity(0))
    quota = allowance().cpus
    return present if quota is None else max(1, min(present, math.ceil(quota)))


def available_memory() -> int | None:
    """Bytes that may still be used: the machine's, or what the group leaves if that is less; None where unknown."""
    fields = (line.split() for line in _read(Path("/proc/meminfo")).splitlines())
    free = next((int(words[1]) << 10 for words in fields if words[0] == "MemAvailable:"), None)
    known = [amount for amount in (free, allowance().memory_bytes) if amount is not None]
    return min(known, default=None)


def _groups(membership: Path) -> Iterator[tuple[str, str]]:
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory") or "cpu" in controllers.split(","):
            yield controllers, path


def _upwards(root: Path, controllers: str, path: str) -> Iterator[Path]:
    """The group's directory and those above it. Inside a container only the mount's own root may be there."""
    mounts = [root / name for name in (controllers, *controllers.split(",")) if name] if controllers else [root]
    for mount in mounts:
        group = mount / path.lstrip("/")
        while True:
            yield group
            if group == mount or mount not in group.parents:
                break
            group = group.parent


def _number(text: str) -> list[int]:
    return [int(text)] if text.isdecimal() and int(text) < _NO_LIMIT else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
