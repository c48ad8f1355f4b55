"""The directory a judge keeps its files in. After a judge that was killed, its keeper or the next judge removes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from sandbox.execution import keeper
from sandbox.isolation import runtime

_PREFIX = "sandbox-judge-"
_UNBORN_S = 3600.0  # a directory without a lock for that long belongs to nobody
_PATIENCE_S = 2.0


class Folder:
    """A private directory, removed by `close()`. A lock in it says that its judge lives; it ends with the process.

    A keeper, a small process beside the judge, waits for that end: it kills what is left of workers and compilers and
    removes the directory and, under `groups`, the control groups called like it. Where it was killed as well, the next
    judge does so.
    """

    def __init__(self, groups: Iterable[str] = ()) -> None:
        _remove_abandoned()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self.programs = os.path.join(self.path, "programs")
        self._keeper: subprocess.Popen[bytes] | None = None
        unready = os.path.join(self.path, ".locking")
        self._lock = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.rename(unready, os.path.join(self.path, keeper.LOCK))  # held before anybody can find it
            os.mkdir(self.programs, 0o700)
            Path(self.path, keeper.GROUPS).write_text("\n".join(groups), encoding="utf-8")
            self._keeper = subprocess.Popen(
                [runtime.interpreter(), "-I", "-S", "-B", keeper.__file__, self.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
            runtime.compiled_box(self.programs)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()
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
            if not (path / keeper.LOCK).exists():
                if time.time() - path.stat().st_mtime > _UNBORN_S:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            lock = os.open(path / keeper.LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError while its judge lives
                keeper.clear(str(path), _PATIENCE_S)
            finally:
                os.close(lock)
