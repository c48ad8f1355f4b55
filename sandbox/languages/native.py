"""Languages compiled to a binary by a GCC-like compiler; binaries are kept by content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from functools import cached_property
from pathlib import Path

from sandbox.execution.compile_box import Built, build
from sandbox.execution.job import Program
from sandbox.isolation import runtime
from sandbox.languages.base import CompileError, Workshop

_MAX_SOURCE = 1 << 20
_MAX_BINARY = 200 << 20
_TOOLCHAIN = (
    "/usr/bin", "/usr/include", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/local/include",
    "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives",
)  # fmt: skip
# Precompiling <bits/stdc++.h> takes as long as about three compilations with it and saves two thirds of each later one.
_PRECOMPILE_AT = 4
_EVERYTHING_HEADER = re.compile(r"^\s*#\s*include\s*<bits/stdc\+\+\.h>", re.MULTILINE)


class Native:
    """A language whose programs become binaries."""

    compiled = True
    factor = 1.0

    def __init__(self, name: str, compiler: str, flags: list[str], suffix: str, package: str) -> None:
        self.name = name
        self._compiler = compiler
        self._flags = flags
        self._suffix = suffix
        self._package = package
        self._lock = threading.Lock()
        self._everything_seen: dict[str, int] = {}

    def missing(self) -> str | None:
        if self._path is None:
            return f"{self._compiler} not found: install it (Debian, Ubuntu: apt-get install {self._package})"
        return None

    def version(self) -> str:
        return f"{self._identity} {' '.join(self._all_flags)}"

    def prepare(self, code: str, workshop: Workshop) -> Program:
        """The compiled program. CompileError with the compiler's first lines when the source is at fault."""
        source = code.encode("utf-8", "surrogatepass")
        if len(source) > _MAX_SOURCE:
            raise CompileError(f"source of {len(source)} bytes: at most {_MAX_SOURCE} are compiled")
        digest = hashlib.blake2b(self.version().encode() + b"\0" + source, digest_size=16).hexdigest()
        binary = os.path.join(workshop.directory, f"{self.name}-{digest}")
        if not os.path.exists(binary):
            self._build(source, binary, workshop, self._precompiled(code, workshop))
        return Program("native", path=binary, libraries=() if "-static" in self._all_flags else _loaders())

    def _build(self, source: bytes, binary: str, workshop: Workshop, extra: list[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="build-") as directory:
            Path(directory, f"main{self._suffix}").write_bytes(source)
            command = [str(self._path), *extra, *self._all_flags, f"main{self._suffix}", "-o", "main", "-lm"]
            result = build(command, directory, workshop.level, self._readable(workshop))
            made = Path(directory, "main")
            if result.code != 0 or not made.is_file() or made.is_symlink():
                raise CompileError(_explain(result))
            if made.stat().st_size > _MAX_BINARY:
                raise CompileError(
                    f"binary of {made.stat().st_size >> 20} MiB: at most {_MAX_BINARY >> 20} MiB are run"
                )
            partial = f"{binary}.{threading.get_ident()}"
            shutil.copyfile(made, partial)
            os.chmod(partial, 0o755)
            os.replace(partial, binary)

    def _precompiled(self, code: str, workshop: Workshop) -> list[str]:
        """Options that make the compiler use a precompiled <bits/stdc++.h>, built once it pays."""
        if self._suffix != ".cpp" or not _EVERYTHING_HEADER.search(code):
            return []
        folder = os.path.join(workshop.directory, "precompiled")
        with self._lock:
            seen = self._everything_seen[folder] = self._everything_seen.get(folder, 0) + 1
            if seen == _PRECOMPILE_AT:
                self._precompile(folder, workshop)
        return ["-I", folder] if os.path.isdir(folder) else []

    def _precompile(self, folder: str, workshop: Workshop) -> None:
        with tempfile.TemporaryDirectory(prefix="build-") as directory:
            Path(directory, "all.hpp").write_text("#include <bits/stdc++.h>\n")
            flags = [flag for flag in self._all_flags if flag != "-static"]
            command = [str(self._path), *flags, "-x", "c++-header", "all.hpp", "-o", "all.gch"]
            result = build(command, directory, workshop.level, self._readable(workshop))
            if result.code != 0:
                return  # ordinary compilation goes on without
            partial = f"{folder}.partial"
            os.makedirs(os.path.join(partial, "bits"))
            shutil.copyfile(os.path.join(directory, "all.gch"), os.path.join(partial, "bits", "stdc++.h.gch"))
            os.replace(partial, folder)

    def _readable(self, workshop: Workshop) -> tuple[str, ...]:
        paths = [*_TOOLCHAIN, *runtime.library_paths(), os.path.join(workshop.directory, "precompiled")]
        prefix = Path(str(self._path)).parent.parent
        if str(prefix) not in ("/", "/usr"):
            paths.append(str(prefix))
        return tuple(dict.fromkeys(path for path in paths if os.path.exists(path)))

    @cached_property
    def _path(self) -> str | None:
        found = shutil.which(self._compiler)
        return os.path.realpath(found) if found else None

    @cached_property
    def _identity(self) -> str:
        if self._path is None:
            return f"{self._compiler} (missing)"
        first = subprocess.run([self._path, "--version"], capture_output=True, text=True, check=False)
        return first.stdout.partition("\n")[0]

    @cached_property
    def _all_flags(self) -> list[str]:
        """Static where the static libraries are there: a static binary starts in half the time."""
        libraries = ["libc.a", "libm.a"] + (["libstdc++.a"] if self._suffix == ".cpp" else [])
        if self._path is None:
            return self._flags
        for library in libraries:
            asked = subprocess.run(
                [self._path, f"-print-file-name={library}"], capture_output=True, text=True, check=False
            )
            if not os.path.isabs(asked.stdout.strip()):
                return self._flags
        return [*self._flags, "-static"]


def _loaders() -> tuple[str, ...]:
    return tuple(path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if os.path.exists(path))


def _explain(result: Built) -> str:
    if "CPU time limit exceeded" in result.diagnostics:
        return "compilation took too much time"
    lines = [line for line in result.diagnostics.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"the compiler ended with code {result.code}"])[0][:300]
