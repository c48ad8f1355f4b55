"""JavaScript, run by Node as a CommonJS script."""

from __future__ import annotations

from sandbox.execution.compile_box import Built
from sandbox.execution.job import Program
from sandbox.languages.base import Workshop
from sandbox.languages.compiled import Compiled, loaders

_CONFIG = "--openssl-config=/dev/null"  # the system's cannot be read
_OPTIONS = (_CONFIG, "--stack-size=65500", "--max-old-space-size={memory_mb}")


class JavaScript(Compiled):
    name = "javascript"
    factor = 3.0
    runtime_mb = 96
    suffix = ".js"
    product = "main.js"
    kept_suffix = ".js"
    tool = "node"
    package = "nodejs"
    managed_compiler = True

    @property
    def options(self) -> list[str]:
        return list(_OPTIONS)

    def commands(self, source_name: str, code: str, workshop: Workshop) -> list[list[str]]:
        return [[str(self.path), _CONFIG, "--check", source_name]]

    def program(self, target: str) -> Program:
        libraries = (*loaders(), *self.runtime_paths(), target)
        return Program("native", path=str(self.path), arguments=(*_OPTIONS, target), libraries=libraries, managed=True)

    def explain(self, result: Built) -> str:
        lines = [line for line in result.diagnostics.splitlines() if line.startswith("SyntaxError")]
        return lines[0][:300] if lines else super().explain(result)

    def runtime_paths(self) -> tuple[str, ...]:
        # distributions keep parts of Node's own library there
        return () if self.path is None else (self.path, "/usr/share/nodejs", "/usr/share/node_modules")
