"""Python, run by the interpreter the package runs on, with the standard library and a few packages by name."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from sandbox.execution.job import Program
from sandbox.isolation import packages
from sandbox.languages.base import NO_FILES, Workshop


class Python:
    name = "python"
    factor = 5.0
    runtime_mb = 0  # the bare interpreter's memory is measured and taken off
    compiled = False

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return ", ".join((f"{platform.python_implementation()} {platform.python_version()}", *packages.versions()))

    def runtime_paths(self) -> tuple[str, ...]:
        return ()

    def prepare(self, code: str, workshop: Workshop, files: Mapping[str, str] = NO_FILES) -> Program:
        return Program("python", source=code.encode("utf-8", "surrogatepass"))
