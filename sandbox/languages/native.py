"""Languages compiled to a binary by a GCC-like compiler."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from functools import cached_property
from pathlib import Path

from sandbox.execution.job import Program
from sandbox.languages.base import Workshop
from sandbox.languages.compiled import Compiled, loaders, said

# Precompiling <bits/stdc++.h> takes as long as about three compilations with it and saves two thirds of each later one.
_PRECOMPILE_AT = 4
_EVERYTHING_HEADER = re.compile(r"^\s*#\s*include\s*<bits/stdc\+\+\.h>", re.MULTILINE)


class Native(Compiled):
    """A language whose programs become binaries."""

    def __init__(self, name: str, compiler: str, flags: list[str], suffix: str, package: str) -> None:
        self.name = name
        self.tool = compiler
        self.suffix = suffix
        self.package = package
        self._flags = flags
        self._lock = threading.Lock()
        self._everything_seen: dict[str, int] = {}

    @property
    def options(self) -> list[str]:
        return self._all_flags

    def commands(self, source_name: str, code: str, workshop: Workshop) -> list[list[str]]:
        extra = self._precompiled(code, workshop)
        return [[str(self.path), *extra, *self._all_flags, source_name, "-o", self.product, "-lm"]]

    def program(self, target: str) -> Program:
        return Program("native", path=target, libraries=() if "-static" in self._all_flags else loaders())

    def readable(self, workshop: Workshop) -> tuple[str, ...]:
        folder = self._precompiled_folder(workshop)
        return super().readable(workshop) + ((folder,) if os.path.isdir(folder) else ())

    def _precompiled_folder(self, workshop: Workshop) -> str:
        return os.path.join(workshop.directory, f"precompiled-{self.name}")  # it fits one set of flags only

    def _precompiled(self, code: str, workshop: Workshop) -> list[str]:
        """Options that make the compiler use a precompiled <bits/stdc++.h>, built once it pays."""
        if self.suffix != ".cpp" or not _EVERYTHING_HEADER.search(code):
            return []
        folder = self._precompiled_folder(workshop)
        with self._lock:
            seen = self._everything_seen[folder] = self._everything_seen.get(folder, 0) + 1
            if seen == _PRECOMPILE_AT:
                self._precompile(folder, workshop)
        return ["-I", folder] if os.path.isdir(folder) else []

    def _precompile(self, folder: str, workshop: Workshop) -> None:
        with tempfile.TemporaryDirectory(prefix="build-", dir=os.path.dirname(workshop.directory)) as directory:
            Path(directory, "all.hpp").write_text("#include <bits/stdc++.h>\n")
            flags = [flag for flag in self._all_flags if flag != "-static"]
            command = [str(self.path), *flags, "-x", "c++-header", "all.hpp", "-o", "all.gch"]
            result = self.run_tool(command, directory, workshop)
            if result.code != 0:
                return  # ordinary compilation goes on without
            partial = f"{folder}.partial"
            os.makedirs(os.path.join(partial, "bits"))
            shutil.copyfile(os.path.join(directory, "all.gch"), os.path.join(partial, "bits", "stdc++.h.gch"))
            os.replace(partial, folder)

    @cached_property
    def _all_flags(self) -> list[str]:
        """Static where the static libraries are there: a static binary starts in half the time."""
        libraries = ["libc.a", "libm.a"] + (["libstdc++.a"] if self.suffix == ".cpp" else [])
        if self.path is None:
            return self._flags
        for library in libraries:
            if not os.path.isabs(said([self.path, f"-print-file-name={library}"]).strip()):
                return self._flags
        return [*self._flags, "-static"]
