"""Where the interpreter that runs programs lives, and what programs may read."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

BOX = Path(__file__).resolve().parent.parent / "box"

_SYSTEM_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/nix/store")
_SMALL_FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


@cache
def interpreter() -> str:
    """Path of the base interpreter: no virtual environment, so that start-up reads no site-packages."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(base)


@cache
def library_paths() -> tuple[str, ...]:
    """Read-only paths a Python program needs: the standard library and shared libraries."""
    wanted = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *_SYSTEM_LIBRARIES, *_SMALL_FILES]
    prefix = Path(interpreter()).parent.parent
    if str(prefix) not in ("/", "/usr"):
        wanted.append(str(prefix / "lib"))
    found: list[str] = []
    for path in wanted:
        if path and os.path.exists(path) and path not in found:
            found.append(path)
    return tuple(found)


def readable_paths() -> tuple[str, ...]:
    """What a run may open for reading besides its own scratch directory."""
    return library_paths() + _DEVICES


def environment() -> dict[str, str]:
    """The whole environment of a worker and its runs."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }


def zygote_command(control: int) -> list[str]:
    """Command that starts the warm process; `control` is its end of the control socket."""
    return [interpreter(), "-S", "-s", "-P", "-B", str(BOX / "zygote.py"), str(control)]
