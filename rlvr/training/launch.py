"""How many processes a launcher was asked for, and how many it started."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def processes_asked_for(command: list[str]) -> int:
    """What `--num_processes` says in a command line of accelerate, 1 where it says nothing."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name.replace("-", "_") == "__num_processes" and (value or following).isdigit():
            return int(value or following)
    return 1


def say_if_launched_alone() -> None:
    """One line on stderr where `accelerate launch` was asked for several processes and started this one only.

    With --cpu it starts one, whatever --num_processes says, and tells neither the user nor the process.
    """
    if "WORLD_SIZE" in os.environ or "ACCELERATE_USE_CPU" not in os.environ:
        return
    with contextlib.suppress(OSError):  # no /proc, or none of ours
        command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if any("accelerate" in word for word in command) and (asked := processes_asked_for(command)) > 1:
            print(
                f"rlvr: accelerate launch was asked for {asked} processes and started 1, as it does without a GPU;"
                f" for {asked}: ACCELERATE_USE_CPU=true torchrun --nproc_per_node {asked} {' '.join(sys.argv[:1])} ...",
                file=sys.stderr,
            )
