"""Ends vLLM's processes when the process that started them is gone.

vLLM's engine notices nothing when its client is killed: it draws on and keeps the memory of the device, and the
command that would continue the evaluation finds none. Run as a program: `engine_guard.py PID`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_TITLE = b"VLLM::"
_PAUSE_S = 0.25
_LOOK_EVERY = 8  # pauses: looking through all processes costs, asking for one's parent does not


def guard_engine() -> subprocess.Popen[bytes]:
    """A process beside this one that ends vLLM's processes below it as soon as this one is gone, and then itself."""
    command = [sys.executable, "-S", "-I", str(Path(__file__).resolve()), str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def engine_processes(parent: int) -> dict[int, str]:
    """Process id -> when it began, of vLLM's processes that descend from `parent`.

    Those are the ones it has given a title, and all below them: a worker has none until its imports are done.
    """
    began, parents, titled = {}, {}, set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        found = _parent_and_start(pid)
        if found is None:
            continue
        parents[pid], began[pid] = found
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (entry / "cmdline").read_bytes().startswith(_TITLE):
                titled.add(pid)
    lines = ((pid, _line(pid, parent, parents)) for pid in parents)
    return {pid: began[pid] for pid, line in lines if not titled.isdisjoint(line)}


def _line(pid: int, parent: int, parents: dict[int, int]) -> list[int]:
    """`pid` and those between it and `parent`; nothing where it does not descend from that."""
    line: list[int] = []
    while pid not in (0, 1, parent) and len(line) < 64:
        line.append(pid)
        pid = parents.get(pid, 0)
    return line if pid == parent else []


def _parent_and_start(pid: int) -> tuple[int, str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # it has ended
        return None
    return int(fields[1]), fields[19]


def main(parent: int) -> None:
    """Watches `parent` until it is gone."""
    known: dict[int, str] = {}
    for count in itertools.count():
        if os.getppid() != parent:
            break
        if count % _LOOK_EVERY == 0:
            known |= engine_processes(parent)
        time.sleep(_PAUSE_S)
    for pid, began in known.items():
        found = _parent_and_start(pid)
        if found is not None and found[1] == began:  # ids are used again
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
