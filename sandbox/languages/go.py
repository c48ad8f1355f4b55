"""Go, by the compiler and linker themselves: no modules, no generators, no C, only the standard library."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from functools import cached_property
from pathlib import Path

from sandbox.execution.job import Program
from sandbox.languages.base import Workshop
from sandbox.languages.compiled import Compiled

_PACKAGES = """
bufio bytes container/heap container/list container/ring context errors fmt hash/crc32 hash/fnv hash/maphash
encoding/binary encoding/hex encoding/json index/suffixarray io log math math/big math/bits math/cmplx math/rand os
reflect regexp runtime runtime/debug sort strconv strings sync sync/atomic text/tabwriter time unicode unicode/utf16
unicode/utf8 unsafe
"""
_NEWER_PACKAGES = "cmp iter maps math/rand/v2 slices"  # absent from older releases


class Go(Compiled):
    name = "go"
    factor = 1.5
    runtime_mb = 32
    suffix = ".go"
    tool = "go"
    package = "golang-go"
    managed_compiler = True
    version_arguments = ("version",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def commands(self, source_name: str, code: str, workshop: Workshop) -> list[list[str]]:
        imports = self._standard_library(workshop)
        tools = self._environment["GOTOOLDIR"]
        compiler = [f"{tools}/compile", "-p", "main", "-complete", "-importcfg", imports, "-o", "main.o", source_name]
        linker = [f"{tools}/link", "-importcfg", imports, "-buildmode=exe", "-s", "-w", "-o", self.product, "main.o"]
        return [compiler, linker]

    def program(self, target: str) -> Program:
        return Program("native", path=target, managed=True)

    def readable(self, workshop: Workshop) -> tuple[str, ...]:
        root = self._environment["GOROOT"]
        own = [root, self._environment["GOTOOLDIR"], os.path.join(workshop.directory, "go-std")]
        # distributions spread GOROOT over several directories by links
        own += [os.path.realpath(os.path.join(root, part)) for part in ("pkg", "src")]
        return tuple(dict.fromkeys((*super().readable(workshop), *(path for path in own if os.path.exists(path)))))

    @cached_property
    def _environment(self) -> dict[str, str]:
        said = subprocess.run(
            [str(self.path), "env", "GOROOT", "GOTOOLDIR"], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        return {"GOROOT": said[0], "GOTOOLDIR": said[1]}

    def _standard_library(self, workshop: Workshop) -> str:
        """The compiled standard library, in the form compiler and linker take it; made at first use.

        This is the one time the `go` command runs; it sees no program. Newer releases compile the library here, which
        takes half a minute once per machine, then it lies in the user's build cache.
        """
        folder = Path(workshop.directory, "go-std")
        imports = folder / "importcfg"
        with self._lock:
            if not imports.exists():
                folder.mkdir(exist_ok=True)
                lines = [self._package_line(line, folder) for line in self._compiled_packages()]
                partial = folder / "importcfg.partial"
                partial.write_text("\n".join(lines) + "\n")
                os.replace(partial, imports)
        return str(imports)

    def _compiled_packages(self) -> list[str]:
        command = [str(self.path), "list", "-e", "-deps", "-export", "-f"]
        command += ["{{if .Export}}{{.ImportPath}}={{.Export}}{{end}}", *_PACKAGES.split(), *_NEWER_PACKAGES.split()]
        environment = os.environ | {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": "", "GOPROXY": "off"}
        environment.setdefault("HOME", "/tmp")
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)
        lines = [line for line in done.stdout.splitlines() if "=" in line]
        if not lines:
            raise OSError(f"go list could not compile the standard library: {done.stderr.strip()[:300]}")
        return lines

    def _package_line(self, line: str, folder: Path) -> str:
        package, _, archive = line.partition("=")
        if not os.path.realpath(archive).startswith(os.path.realpath(self._environment["GOROOT"])):
            kept = folder / (package.replace("/", "-") + ".a")  # the build cache itself stays out of the box
            shutil.copyfile(archive, kept)
            archive = str(kept)
        return f"packagefile {package}={archive}"
