"""What the judge knows of a language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from sandbox.execution.job import Program
from sandbox.execution.shelf import Shelf
from sandbox.isolation.groups import Groups

NO_FILES: Mapping[str, str] = MappingProxyType({})


class ToolchainMissing(RuntimeError):
    """A language's compiler or runtime is not installed; the message says what to install."""


class CompileError(Exception):
    """The program does not compile; the message is the compiler's, shortened."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and how a compiled language may build: a directory workers can read, what keeps the programs there, the
    protection level, and where control groups for compilers are to be had."""

    directory: str
    shelf: Shelf
    level: str
    groups: Groups | None = None


class Language(Protocol):
    """One language. `compiled` ones are prepared in a thread of their own, which may take seconds."""

    name: str
    factor: float  # multiplies a problem's CPU limit
    runtime_mb: int  # memory of the runtime itself, not charged to the program
    compiled: bool

    def missing(self) -> str | None:
        """None when usable, else the remedy."""

    def version(self) -> str:
        """What a cached verdict depends on besides the code."""

    def runtime_paths(self) -> tuple[str, ...]:
        """What of the runtime must be visible where programs run, beyond the system's libraries."""

    def prepare(self, code: str, workshop: Workshop, files: Mapping[str, str] = NO_FILES) -> Program:
        """The program ready to run; it may include `files`. CompileError when `code` is at fault."""
