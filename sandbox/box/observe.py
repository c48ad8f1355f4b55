"""What is seen from outside of a run under way, and of the working directory it leaves."""

import os
import resource
import stat

from channel import DISK, FINISHED, MEMORY, THREADS

_MAX_THREADS = 256
_MAX_FILES = 1000
_PAGE_KB = resource.getpagesize() // 1024


def idle(pid: int, wall: float, wall_limit: float) -> bool:
    """Whether the wall limit is used up by the run itself; a crowded machine is given patience, not for ever."""
    return wall > 4 * wall_limit or wall - _waited(pid) > wall_limit


def _waited(pid: int) -> float:
    """Seconds the run's threads stood ready while other processes had the CPU: not idleness of theirs."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as line:
                total += int(line.read().split()[1])
    except (OSError, IndexError):
        return 0.0
    return total / 1e9


def usage(pid: int, memory_kb: int) -> int:
    """MEMORY when more than `memory_kb` KiB are resident, THREADS when there are too many."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as line:
            fields = line.read().rpartition(b")")[2].split()
    except OSError:
        return FINISHED
    if int(fields[21]) * _PAGE_KB > memory_kb:
        return MEMORY
    return THREADS if int(fields[17]) > _MAX_THREADS else FINISHED


def crowded() -> int:
    """DISK when the scratch directory holds more than a program may write."""
    count = total = 0
    with os.scandir(".") as entries:
        for entry in entries:
            count += 1
            if count > _MAX_FILES:
                return DISK
            total += entry.stat(follow_symlinks=False).st_size
    return DISK if total > 256 << 20 else FINISHED


def clear_scratch() -> bool:
    """Empties the working directory; whether it held too many files."""
    names = os.listdir(".")
    for name in names:
        try:
            os.unlink(name)
        except IsADirectoryError:
            remove_tree(name)
    return len(names) > _MAX_FILES


def left_behind(name: str) -> list[int]:
    """The plain file of that name in the working directory, opened; nothing where the run left none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return [fd]
    os.close(fd)
    return []


def remove_tree(path: str) -> None:
    import shutil  # only without Landlock can a program make directories

    shutil.rmtree(path, ignore_errors=True)
