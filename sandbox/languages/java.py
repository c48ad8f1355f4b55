"""Java, by the JDK's javac and java."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from sandbox.execution.job import Program
from sandbox.languages.base import NO_FILES, CompileError, Workshop
from sandbox.languages.compiled import Compiled, loaders

_COMMENT_OR_TEXT = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_PUBLIC_TYPE = re.compile(
    r"\bpublic\s+(?:(?:final|abstract|strictfp|sealed)\s+)*(?:class|record|enum|interface)\s+(\w+)"
)
_PACKAGE = re.compile(r"^\s*package\s+[\w.]+\s*;")
_STACK = "-Xss128m"  # of the main thread; only what is used becomes memory
_QUIET = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto", "-XX:ErrorFile=/dev/null"]


class Java(Compiled):
    name = "java"
    factor = 2.0
    runtime_mb = 128  # code cache, class data, collector: more than an empty program's 40 MiB once a program is hot
    suffix = ".java"
    tool = "javac"
    package = "default-jdk-headless"
    managed_compiler = True

    @property
    def options(self) -> list[str]:
        return [_STACK, *_QUIET]

    def source_name(self, code: str) -> str:
        found = _PUBLIC_TYPE.search(_COMMENT_OR_TEXT.sub(" ", code))
        return f"{found[1] if found else 'Main'}.java"

    def commands(self, source_name: str, code: str, workshop: Workshop) -> list[list[str]]:
        machine = ["-J-Xmx768m", "-J-Xss16m", "-J-XX:TieredStopAtLevel=1", *(f"-J{option}" for option in _QUIET)]
        flags = ["-proc:none", "-implicit:none", "-encoding", "UTF-8", "-nowarn", "-g:none", "-Xmaxerrs", "5"]
        return [[str(self.path), *machine, *flags, source_name]]

    def prepare(self, code: str, workshop: Workshop, files: Mapping[str, str] = NO_FILES) -> Program:
        # a package would want a directory of its own; contest programs have one file
        return super().prepare(_PACKAGE.sub("", code, count=1), workshop, files)

    def keep(self, directory: Path, partial: str) -> None:
        classes = sorted(path for path in directory.glob("*.class") if path.is_file() and not path.is_symlink())
        entry = self._entry(directory, classes)
        os.mkdir(partial)
        for path in classes:
            shutil.copyfile(path, os.path.join(partial, path.name))
        Path(partial, "entry").write_text(entry)

    @staticmethod
    def _entry(directory: Path, classes: list[Path]) -> str:
        """The class to start: of those with a `main(String[])`, the one the file is named after, else the first."""
        signature = (b"\4main", b"([Ljava/lang/String;)V")
        starting = [path.stem for path in classes if all(part in path.read_bytes() for part in signature)]
        named = [path.stem for path in directory.glob("*.java")]
        for name in [*named, "Main", "Solution", *starting]:
            if name in starting:
                return name
        raise CompileError("no class with a method main(String[])")

    def program(self, target: str) -> Program:
        entry = Path(target, "entry").read_text()
        arguments = ("-Xmx{memory_mb}m", _STACK, *_QUIET, "-cp", target, entry)
        libraries = (*loaders(), *self.runtime_paths(), target)
        return Program("native", path=str(self._machine), arguments=arguments, libraries=libraries, managed=True)

    def missing(self) -> str | None:
        if self.path is not None and self._machine is None:
            return f"no java beside {self.path}: install a JDK (Debian, Ubuntu: apt-get install {self.package})"
        return super().missing()

    @cached_property
    def _machine(self) -> str | None:
        path = os.path.join(os.path.dirname(str(self.path)), "java")
        return os.path.realpath(path) if os.access(path, os.X_OK) else None

    def readable(self, workshop: Workshop) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().readable(workshop), *self.runtime_paths())))

    def runtime_paths(self) -> tuple[str, ...]:
        """The JDK and the directories outside it that its configuration is linked to."""
        if self.path is None:
            return ()
        home = Path(self.path).parent.parent
        outside = {str(home)}
        for folder in (home, home / "conf", home / "lib", home / "lib" / "security"):
            for path in folder.glob("*") if folder.is_dir() else ():
                real = path.resolve()
                if path.is_symlink() and real.is_relative_to("/etc"):
                    outside.add("/".join(real.parts[:3]).replace("//", "/"))
        return tuple(sorted(path for path in outside if os.path.exists(path)))
