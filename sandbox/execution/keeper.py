"""Ends what a judge that was killed has left behind: its processes, then its folder.

Runs as a process of its own beside each judge, started with the folder as its only argument. It waits for the lock that
the judge holds on its folder: the kernel gives it up however the judge ends. Nothing but the standard library, and of
that only what is needed, is imported.
"""

import contextlib
import fcntl
import os
import signal
import sys
import time

LOCK = ".lock"
GROUPS = ".groups"  # names the directories in which the judge's control groups lie
_PAUSE_S = 0.1
_PATIENCE_S = 60.0


def clear(folder: str, patience_s: float = _PATIENCE_S) -> None:
    """Kills every process started from `folder` and removes it, for as long as either comes back."""
    import shutil

    deadline = time.monotonic() + patience_s
    quiet = 0
    places = _places(folder)
    while quiet < 2 and time.monotonic() < deadline:  # a process just being started may show only the second time
        killed = _kill(folder) + _clear_groups(places, f"{os.path.basename(folder)}.")
        if not killed:  # the list of places goes last: who comes after may need it
            shutil.rmtree(folder, ignore_errors=True)
        quiet = quiet + 1 if not killed and not os.path.lexists(folder) else 0
        if quiet < 2:
            time.sleep(_PAUSE_S)
    shutil.rmtree(folder, ignore_errors=True)


def _places(folder: str) -> list[str]:
    try:
        with open(os.path.join(folder, GROUPS), encoding="utf-8") as listing:
            return listing.read().split("\n")
    except OSError:
        return []


def _clear_groups(places: list[str], prefix: str) -> int:
    """Kills what is in the groups whose names begin so and removes them; returns how many are still there."""
    left = 0
    for place in filter(None, places):
        for name in os.listdir(place) if os.path.isdir(place) else ():
            if not name.startswith(prefix):
                continue
            group = os.path.join(place, name)
            with contextlib.suppress(OSError):
                with open(os.path.join(group, "cgroup.procs"), "rb") as members:
                    for pid in map(int, members.read().split()):
                        if pid:  # 0 stands for one that cannot be seen from here
                            os.kill(pid, signal.SIGKILL)
                os.rmdir(group)
            left += os.path.isdir(group)
    return left


def _kill(folder: str) -> int:
    """Kills workers and compilers of the judge, told by the modules they were started with; returns how many."""
    modules = os.path.join(folder, "programs", "box", "").encode()
    killed = 0
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as line:
                if not any(word.startswith(modules) for word in line.read().split(b"\0")):
                    continue
            pid = int(name)
            if os.getpgid(pid) == pid:  # with all it has started
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def main() -> None:
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # may reach a whole group, of which the judge ends last
        signal.signal(number, signal.SIG_IGN)
    folder = sys.argv[1]
    try:
        lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    fcntl.flock(lock, fcntl.LOCK_EX)
    clear(folder)


if __name__ == "__main__":
    main()
