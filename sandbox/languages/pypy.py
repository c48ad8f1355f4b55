"""Python 3, run by PyPy: slow to start, fast in loops."""

from __future__ import annotations

import os
from functools import cached_property

from sandbox.execution.compile_box import Built
from sandbox.execution.job import Program
from sandbox.languages.base import Workshop
from sandbox.languages.compiled import Compiled, loaders, said

_CHECK = "import sys; compile(open(sys.argv[1], 'rb').read(), 'solution.py', 'exec', dont_inherit=True)"
_OPTIONS = ("-s", "-S", "-B", "-X", "utf8")


class PyPy(Compiled):
    name = "pypy"
    factor = 3.0
    runtime_mb = 96
    suffix = ".py"
    product = "main.py"
    kept_suffix = ".py"
    tool = "pypy3"
    package = "pypy3"
    managed_compiler = True

    @property
    def options(self) -> list[str]:
        return list(_OPTIONS)

    @cached_property
    def identity(self) -> str:
        return "pypy3 (missing)" if self.path is None else " ".join(said([self.path, "--version"]).split())

    def commands(self, source_name: str, code: str, workshop: Workshop) -> list[list[str]]:
        return [[str(self.path), *_OPTIONS, "-c", _CHECK, source_name]]

    def program(self, target: str) -> Program:
        libraries = (*loaders(), *self.runtime_paths(), target)
        return Program("native", path=str(self.path), arguments=(*_OPTIONS, target), libraries=libraries, managed=True)

    def explain(self, result: Built) -> str:
        lines = result.diagnostics.strip().splitlines()
        return lines[-1][:300] if lines else super().explain(result)

    def readable(self, workshop: Workshop) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().readable(workshop), *self.runtime_paths())))

    @cached_property
    def _prefix(self) -> str:
        return said([str(self.path), "-c", "import sys; print(sys.base_prefix)"]).strip() if self.path else ""

    def runtime_paths(self) -> tuple[str, ...]:
        if self.path is None:
            return ()
        prefix = os.path.realpath(self._prefix) if self._prefix else ""
        return (self.path, *([prefix] if prefix not in ("", "/", "/usr") else []))
