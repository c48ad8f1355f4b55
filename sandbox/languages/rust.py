"""Rust, by rustc alone: no cargo, so no build scripts and no crates but the standard library."""

from __future__ import annotations

import os
import shutil
from functools import cached_property

from sandbox.execution.job import Program
from sandbox.languages.base import Workshop
from sandbox.languages.compiled import Compiled, loaders, said


class Rust(Compiled):
    name = "rust"
    suffix = ".rs"
    tool = "rustc"
    package = "rustc"
    managed_compiler = True  # LLVM's threads and maps reserve much

    def missing(self) -> str | None:
        if self.path is None:
            return "rustc not found: install it (https://rustup.rs, or Debian, Ubuntu: apt-get install rustc)"
        if self._linker is None:
            return "rustc needs gcc to link: install it (Debian, Ubuntu: apt-get install gcc)"
        return None

    @property
    def options(self) -> list[str]:
        return ["--edition=2021", "-Copt-level=3", "-Cdebuginfo=0", "-Awarnings", "--cfg=online_judge"]

    @cached_property
    def path(self) -> str | None:
        """The compiler of the default tool chain; what `rustup` puts in the search path only looks it up."""
        found = shutil.which(self.tool) or shutil.which(os.path.expanduser("~/.cargo/bin/rustc"))
        root = said([found, "--print", "sysroot"]).strip() if found else ""
        compiler = os.path.join(root, "bin", "rustc")
        return compiler if root and os.access(compiler, os.X_OK) else None

    @cached_property
    def _linker(self) -> str | None:
        found = shutil.which("gcc") or shutil.which("cc")
        return os.path.realpath(found) if found else None

    def commands(self, source_name: str, code: str, workshop: Workshop) -> list[list[str]]:
        return [[str(self.path), *self.options, f"-Clinker={self._linker}", "-o", self.product, source_name]]

    def program(self, target: str) -> Program:
        return Program("native", path=target, libraries=loaders())
