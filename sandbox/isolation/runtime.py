"""Where the interpreter that runs programs lives, and what programs may read."""

from __future__ import annotations

import os
import py_compile
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
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
    base = {
        "platbase": sysconfig.get_config_var("installed_platbase") or sys.base_exec_prefix
    }  # not a virtual environment
    wanted = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib", vars=base)]
    wanted += [*_SYSTEM_LIBRARIES, *_SMALL_FILES]
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
        "LD_BIND_NOW": "1",  # or every run would look up, and write down, the same functions again
    }


def compiled_box(directory: str) -> str:
    """Path of the box's modules as byte code, made under `directory` if it is not there.

    A warm process that had to parse them itself would keep the parser's memory, and every fork would copy its map.
    """
    box = os.path.join(directory, "box")
    if not os.path.isdir(box):
        partial = tempfile.mkdtemp(prefix="box-", dir=directory)
        os.chmod(partial, 0o755)
        for source in BOX.glob("*.py"):
            made = os.path.join(partial, f"{source.stem}.pyc")
            py_compile.compile(str(source), cfile=made, dfile=f"<box>/{source.name}", doraise=True, optimize=2)
        os.rename(partial, box)
    return box


def zygote_command(control: int, box: str, doors: Sequence[int] = ()) -> list[str]:
    """Command that starts the warm process; `control` is its end of the control socket, `box` the compiled modules,
    `doors` those of control groups it enters."""
    flags = ["-S", "-s", "-P", "-B", "-X", "no_debug_ranges"]
    return [interpreter(), *flags, os.path.join(box, "zygote.pyc"), str(control), ",".join(map(str, doors))]
