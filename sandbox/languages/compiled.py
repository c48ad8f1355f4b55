"""What languages have in common whose programs are built or checked once, in the compile box, and kept by content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from sandbox.execution.compile_box import Built, build
from sandbox.execution.job import Program
from sandbox.isolation import runtime
from sandbox.languages.base import NO_FILES, CompileError, Workshop

_MAX_SOURCE = 1 << 20
_MAX_BINARY = 200 << 20
TOOLCHAIN = (
    "/usr/bin", "/usr/include", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/local/include",
    "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives",
)  # fmt: skip


class Compiled(ABC):
    """A language with a tool that must see the program before it runs.

    Subclasses give the tool's name, the package that brings it, the commands to run in the build directory, and the
    program that comes of it. The source lies in `source_name`, the product is expected in `product`.
    """

    name = ""
    factor = 1.0
    runtime_mb = 0
    compiled = True
    managed_compiler = False  # the compiler itself is a program of a managed runtime
    tool = ""
    package = ""
    suffix = ""
    product = "main"

    def missing(self) -> str | None:
        if self.path is None:
            return f"{self.tool} not found: install it (Debian, Ubuntu: apt-get install {self.package})"
        return None

    def version(self) -> str:
        return f"{self.identity} {' '.join(self.options)}"

    def runtime_paths(self) -> tuple[str, ...]:
        return ()

    @property
    def options(self) -> list[str]:
        """Options that decide what a program means; part of the version."""
        return []

    @cached_property
    def path(self) -> str | None:
        """The tool itself, not a link to it."""
        found = shutil.which(self.tool)
        return os.path.realpath(found) if found else None

    @cached_property
    def identity(self) -> str:
        if self.path is None:
            return f"{self.tool} (missing)"
        return said([self.path, *self.version_arguments]).partition("\n")[0]

    version_arguments: tuple[str, ...] = ("--version",)

    def prepare(self, code: str, workshop: Workshop, files: Mapping[str, str] = NO_FILES) -> Program:
        """The program ready to run. CompileError with the compiler's first lines when the source is at fault."""
        source = code.encode("utf-8", "surrogatepass")
        if len(source) > _MAX_SOURCE:
            raise CompileError(f"source of {len(source)} bytes: at most {_MAX_SOURCE} are compiled")
        parts = [self.name, self.version(), *(text for pair in sorted(files.items()) for text in pair)]
        digest = hashlib.blake2b(source, digest_size=16)
        for part in parts:
            digest.update(b"\0" + part.encode("utf-8", "surrogatepass"))
        target = os.path.join(workshop.directory, f"{self.name}-{digest.hexdigest()}{self.kept_suffix}")
        with _alone(target):  # who runs a program has leave for this very file: it is never replaced while it is in use
            found = workshop.shelf.find(target, self.program)
            if found is None:
                self._build(code, source, files, target, workshop)
                found = workshop.shelf.add(target, self.program)
        return found

    kept_suffix = ""  # of the kept product

    def source_name(self, code: str) -> str:
        return f"main{self.suffix}"

    @abstractmethod
    def commands(self, source_name: str, code: str, workshop: Workshop) -> list[list[str]]:
        """What is run one after the other in the build directory. The first that fails ends it."""

    @abstractmethod
    def program(self, target: str) -> Program:
        """How the product at `target` is run."""

    def keep(self, directory: Path, partial: str) -> None:
        """Moves the product to where programs are kept. CompileError when there is none."""
        made = directory / self.product
        if not made.is_file() or made.is_symlink():
            raise CompileError("the compiler made no program")
        if made.stat().st_size > _MAX_BINARY:
            raise CompileError(f"binary of {made.stat().st_size >> 20} MiB: at most {_MAX_BINARY >> 20} MiB are run")
        shutil.copyfile(made, partial)
        os.chmod(partial, 0o755)

    def readable(self, workshop: Workshop) -> tuple[str, ...]:
        """What the compiler may read."""
        paths = [*TOOLCHAIN, *runtime.library_paths()]
        prefix = Path(str(self.path)).parent.parent
        if str(prefix) not in ("/", "/usr"):
            paths.append(str(prefix))
        return tuple(dict.fromkeys(path for path in paths if os.path.exists(path)))

    def _build(self, code: str, source: bytes, files: Mapping[str, str], target: str, workshop: Workshop) -> None:
        with tempfile.TemporaryDirectory(prefix="build-", dir=os.path.dirname(workshop.directory)) as directory:
            name = self.source_name(code)
            for other, text in files.items():
                Path(directory, other).write_text(text, encoding="utf-8")
            Path(directory, name).write_bytes(source)
            for command in self.commands(name, code, workshop):
                result = self.run_tool(command, directory, workshop)
                if result.code != 0:
                    raise CompileError(self.explain(result))
            partial = f"{target}.{threading.get_ident()}"
            self.keep(Path(directory), partial)
            os.rename(partial, target)

    def run_tool(self, command: list[str], directory: str, workshop: Workshop) -> Built:
        """What came of `command` in the compile box; it may write into `directory` only."""
        box, readable = runtime.compiled_box(workshop.directory), self.readable(workshop)
        return build(command, directory, workshop.level, readable, box, workshop.groups, managed=self.managed_compiler)

    def explain(self, result: Built) -> str:
        """The line of the diagnostics that says most."""
        if "CPU time limit exceeded" in result.diagnostics or result.code == 128 + signal.SIGXCPU:
            return "compilation took too much time"
        lines = [line for line in result.diagnostics.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or [f"the compiler ended with code {result.code}"])[0][:300]


_busy: dict[str, tuple[threading.Lock, list[int]]] = {}
_busy_lock = threading.Lock()


@contextlib.contextmanager
def _alone(target: str) -> Iterator[None]:
    """One thread at a time for each `target`; the others wait for what it makes."""
    with _busy_lock:
        lock, waiting = _busy.setdefault(target, (threading.Lock(), [0]))
        waiting[0] += 1
    try:
        with lock:
            yield
    finally:
        with _busy_lock:
            waiting[0] -= 1
            if not waiting[0]:
                del _busy[target]


def said(command: list[str]) -> str:
    """What a trusted command prints; empty when it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout


def loaders() -> tuple[str, ...]:
    """Directories of the shared libraries that a dynamic binary loads."""
    return tuple(path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if os.path.exists(path))
