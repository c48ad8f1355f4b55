"""The directory a judge keeps its files in. What judges that were killed left behind is removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "sandbox-judge-"
_LOCK = ".lock"
_UNBORN_S = 3600.0  # a directory without a lock for that long belongs to nobody


class Folder:
    """A private directory, removed by `close()`. A lock in it says that its judge lives; it ends with the process."""

    def __init__(self) -> None:
        _remove_abandoned()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self.programs = os.path.join(self.path, "programs")
        os.mkdir(self.programs, 0o700)
        unready = os.path.join(self.path, ".locking")
        self._lock = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(unready, os.path.join(self.path, _LOCK))  # held before anybody can find it

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.abandon()

    def abandon(self) -> None:
        """For a forked child of the judge's process, in which the lock would live on."""
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _remove_abandoned() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            if not (path / _LOCK).exists():
                if time.time() - path.stat().st_mtime > _UNBORN_S:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError while its judge lives
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
