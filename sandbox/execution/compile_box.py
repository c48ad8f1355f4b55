"""Runs a compiler on untrusted source: its own container or confinement, few readable paths, hard limits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.isolation import bwrap, runtime, seccomp
from sandbox.isolation.groups import Group, Groups

_CPU_S = 20
_WALL_S = 300.0  # far above the CPU limit: reaching it means that the machine is stuck, not the program
_LIMITS = {"CPU": _CPU_S, "AS": 2 << 30, "FSIZE": 256 << 20, "CORE": 0, "NOFILE": 256, "MEMLOCK": 0, "MSGQUEUE": 0}
_MANAGED_LIMITS = {**{k: v for k, v in _LIMITS.items() if k != "AS"}, "DATA": 4 << 30}
_DIAGNOSTICS = 4096
_GROUP_BYTES = 5 << 30  # of all processes of a tool chain, and of its files in memory


@dataclass(frozen=True, slots=True)
class Built:
    """How a compiler ended: exit code, 128 and the signal's number where one ended it, and the head of what it said."""

    code: int
    diagnostics: str


def build(
    command: list[str],
    directory: str,
    level: str,
    readable: tuple[str, ...],
    box: str,
    groups: Groups | None = None,
    *,
    managed: bool = False,
) -> Built:
    """Result of `command` run in `directory`, the only place it can write, at protection `level`.

    `readable` are the paths of the tool chain, `box` is that of the box's compiled modules. A `managed` compiler
    reserves address space without using it: its writable memory is limited instead. OSError when the box itself cannot
    be set up. With `groups` all its processes together are limited as well.
    """
    group = groups.make(_GROUP_BYTES) if groups is not None else None
    try:
        doors = group.doors() if group is not None else []
        try:
            return _build(command, directory, level, readable, box, doors, group, managed)
        finally:
            for door in doors:
                os.close(door)
    finally:
        if groups is not None and group is not None:
            groups.drop(group)


def _build(
    command: list[str],
    directory: str,
    level: str,
    readable: tuple[str, ...],
    box: str,
    doors: list[int],
    group: Group | None,
    managed: bool,
) -> Built:
    setup = {
        "command": command,
        "directory": directory,
        "level": level,
        "limits": _MANAGED_LIMITS if managed else _LIMITS,
        "readable": readable,
        "directories": managed,
        "filter": seccomp.compile_filter().code.hex() if seccomp.supported() else "",
        "environment": runtime.environment() | {"TMPDIR": directory, "PATH": _search_path(command[0])},
    }
    log = Path(directory, ".diagnostics")
    theirs, ours = os.pipe()  # what we hold open tells the box that we live
    with log.open("wb+") as output, os.fdopen(ours, "wb"):
        launch = [runtime.interpreter(), "-S", "-s", "-P", "-B", os.path.join(box, "launch.pyc"), json.dumps(setup)]
        launch += [str(theirs), *map(str, doors)]
        if level == "namespaced":
            launch = bwrap.command(launch, read_only=(*readable, box), writable=(directory,))
        try:
            process = subprocess.Popen(
                launch,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=runtime.environment(),
                pass_fds=(theirs, *doors),
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        try:
            code = process.wait(_WALL_S)
        except subprocess.TimeoutExpired:
            raise OSError(f"the compiler did not end within {_WALL_S:g} s") from None
        finally:
            # the tool chain cannot leave its process group, or its container: whatever it started ends here
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read(_DIAGNOSTICS).decode("utf-8", "replace")
    if group is not None and group.new_events()[0]:
        return Built(code or 1, f"error: the compiler used more than {_GROUP_BYTES >> 20} MiB of memory")
    if "Killed signal terminated program" in text:
        raise OSError("the compiler was killed from outside, perhaps for lack of memory on this machine")
    return Built(code, text)


def _search_path(compiler: str) -> str:
    return f"{os.path.dirname(compiler)}:/usr/bin:/bin"
