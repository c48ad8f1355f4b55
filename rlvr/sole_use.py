"""One run in a folder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from rlvr.config.load import RecipeError

_LOCK = ".running"


@contextlib.contextmanager
def sole_use(folder: str | os.PathLike[str], key: str = "output_dir") -> Iterator[None]:
    """Keeps other runs out of `folder` while the body runs; a killed run keeps nobody out.

    Of several processes of one launch the first speaks for all. Where the file system has no locks nothing is kept.
    Raises RecipeError naming the process that is there; `key` is what would be changed to go elsewhere.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    path = Path(folder) / _LOCK
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, key) as file:
        os.truncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if made:
                with contextlib.suppress(OSError):  # a run that was refused leaves no folder
                    path.parent.rmdir()


@contextlib.contextmanager
def _locked(path: Path, key: str) -> Iterator[int]:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = path.read_text() if path.exists() else ""
                who = f"process {owner}" if owner else "another process"
                raise RecipeError(
                    f"{path.parent}: {who} is running here; wait for it, or choose another {key}"
                ) from None
            except OSError:  # no locks on this file system
                yield file
                return
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                yield file
                return
        finally:
            os.close(file)  # and with it the lock
