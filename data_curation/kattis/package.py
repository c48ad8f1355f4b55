"""A problem package read from its folder: metadata, tests, how outputs are checked, submissions."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_curation.kattis.bundle import CannotBundle, bundle
from data_curation.kattis.metadata import Metadata, PackageError, read_metadata
from data_curation.kattis.submissions import PackageSubmission, read_submissions
from data_curation.kattis.testdata import Group, Test, read_tests
from sandbox.checkers import user
from sandbox.testfiles import LANGUAGE_BY_EXTENSION, text_of

_VALIDATOR_LANGUAGES = {"python", "cpp", "c"}


@dataclass(frozen=True, slots=True)
class Validator:
    """A custom output validator: its source as one text. `flags` of a test come after its fixed arguments."""

    language: str
    source: str

    def spec(self, flags: Iterable[str]) -> str:
        """How the judge is told of it, as checker or as interactor."""
        return user.spec("kattis", self.source, self.language, tuple(flags))


@dataclass(frozen=True, slots=True)
class Package:
    """A problem package. Tests keep the paths of their files, which are read when they are needed."""

    folder: Path
    metadata: Metadata
    tests: list[Test]
    groups: list[Group]
    validator: Validator | None  # None: the format's default validator
    submissions: list[PackageSubmission]

    @property
    def name(self) -> str:
        return self.folder.name

    def flags(self, test: Test) -> tuple[str, ...]:
        """Arguments of the output validator for a test: its own, or else those of problem.yaml."""
        return test.flags or self.metadata.validator_flags

    def checker(self, test: Test) -> str:
        """How the judge checks an output of `test`."""
        if self.validator is not None:
            return self.validator.spec(self.flags(test))
        return "kattis_default" + (f":{' '.join(self.flags(test))}" if self.flags(test) else "")

    def interactor(self, test: Test) -> str:
        """The problem's side of the conversation on `test`; empty for problems that are not interactive."""
        if self.validator is None or not self.metadata.interactive:
            return ""
        return self.validator.spec(self.flags(test))


def find_packages(path: str | Path) -> list[Path]:
    """The package folders at `path`: itself, or those below it. FileNotFoundError when there is none."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of problem packages")
    if (path / "problem.yaml").exists():
        return [path]
    found = sorted(each.parent for each in path.rglob("problem.yaml"))
    if not found:
        raise FileNotFoundError(f"{path}: no problem.yaml here or below: not a problem package")
    return found


def read_package(folder: str | Path) -> Package:
    """The package in `folder`. PackageError naming the file that is at fault."""
    folder = Path(folder)
    metadata = read_metadata(folder)
    if metadata.unsupported:
        raise PackageError(folder / "problem.yaml", f"{', '.join(metadata.unsupported)} problems are not supported")
    validator = _validator(folder, metadata)
    if metadata.interactive and validator is None:
        raise PackageError(folder / "problem.yaml", "an interactive problem needs an output validator")
    tests, groups = read_tests(folder)
    return Package(folder, metadata, tests, groups, validator, read_submissions(folder, metadata))


def _validator(folder: Path, metadata: Metadata) -> Validator | None:
    if metadata.custom_validator is False:
        return None
    places = [place for place in (folder / "output_validator", folder / "output_validators") if place.is_dir()]
    if not places:
        if metadata.custom_validator:
            raise PackageError(folder / "output_validators", "missing: problem.yaml says `validation: custom`")
        return None
    place = places[0]
    entries = sorted(path for path in place.iterdir() if not path.name.startswith((".", "__pycache__")))
    programs = [path for path in entries if path.is_dir()]
    if place.name == "output_validator" or not programs:
        files = _sources(place, entries)
    elif len(programs) == 1 and len(entries) == 1:
        files = _sources(programs[0], sorted(programs[0].iterdir()))
    else:
        raise PackageError(place, f"several output validators ({', '.join(p.name for p in entries)}): one is supported")
    if not files:
        raise PackageError(place, "holds no output validator")
    return _built(place, files)


def _sources(place: Path, entries: list[Path]) -> dict[str, str]:
    files = {}
    for path in entries:
        if path.name in ("build", "run") and path.stat().st_mode & stat.S_IXUSR:
            raise PackageError(path, "validators with a build or run script are not supported: a single program is")
        if path.is_file():
            files[path.name] = text_of(path)
    return files


def _built(place: Path, files: dict[str, str]) -> Validator:
    found = {LANGUAGE_BY_EXTENSION[Path(name).suffix] for name in files if Path(name).suffix in LANGUAGE_BY_EXTENSION}
    if found == {"c", "cpp"} or found == {"c"}:
        found = {"cpp"}
        files = {f"{name[:-2]}.cpp" if name.endswith(".c") else name: text for name, text in files.items()}
    if len(found) != 1 or not found <= _VALIDATOR_LANGUAGES:
        raise PackageError(
            place, f"output validators in Python, C and C++ are supported, not {', '.join(sorted(files))}"
        )
    language = found.pop()
    try:
        return Validator(language, bundle(language, files))
    except CannotBundle as error:
        raise PackageError(place, str(error)) from None
