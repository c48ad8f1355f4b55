"""Python, run by the interpreter the package runs on, without site-packages."""

from __future__ import annotations

import platform

from sandbox.execution.job import Program
from sandbox.languages.base import Workshop


class Python:
    name = "python"
    factor = 5.0
    compiled = False

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"{platform.python_implementation()} {platform.python_version()}"

    def prepare(self, code: str, workshop: Workshop) -> Program:
        return Program("python", source=code.encode("utf-8", "surrogatepass"))
