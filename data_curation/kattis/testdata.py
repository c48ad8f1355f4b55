"""The tests of a package: data/sample and data/secret with their groups, links and flags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_curation.kattis.metadata import PackageError, flags_of, load_yaml
from sandbox.testfiles import text_of

_GROUP_FILES = ("test_group.yaml", "testdata.yaml")


@dataclass(frozen=True, slots=True)
class Test:
    """One test. `name` is its path below data/ without extension; `flags` are the output validator's for it."""

    __test__ = False  # not a pytest class

    name: str
    input: Path
    answer: Path
    flags: tuple[str, ...] = ()

    @property
    def sample(self) -> bool:
        return self.name.startswith("sample/")

    @property
    def group(self) -> str:
        """The folder below data/ it lies in, such as "secret/group1"."""
        return self.name.rpartition("/")[0]

    def texts(self) -> tuple[str, str]:
        """Input and answer."""
        return text_of(self.input), text_of(self.answer)


@dataclass(frozen=True, slots=True)
class Group:
    """A folder of tests that has settings of its own: what it is worth and how its results are combined."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> float | None:
        """What passing the group earns, where it says so."""
        scoring = self.settings.get("scoring")
        if isinstance(scoring, dict) and isinstance(scoring.get("score"), int | float):
            return float(scoring["score"])
        if isinstance(self.settings.get("accept_score"), int | float):
            return float(self.settings["accept_score"])
        upper = str(self.settings.get("range", "")).split()[-1:]
        try:
            points = float(upper[0])
        except (IndexError, ValueError):
            return None
        return points if points not in (float("inf"), float("-inf")) else None


def read_tests(package: Path) -> tuple[list[Test], list[Group]]:
    """The tests in the order they are run, samples first, and the groups that say something. PackageError for a link
    out of the package, an input without answer, or no tests at all."""
    data = package / "data"
    root = package.resolve()
    tests: list[Test] = []
    groups: list[Group] = []
    for top in ("sample", "secret"):
        if (data / top).is_dir():
            inherited = _settings(data, {})
            for test, group in _walk(data, top, root, inherited, ()):
                if test is not None:
                    tests.append(test)
                if group is not None:
                    groups.append(group)
    if not any(not test.sample for test in tests) and not tests:
        raise PackageError(data, "no tests: expected NAME.in and NAME.ans in data/secret")
    return tests, groups


def _walk(
    data: Path, name: str, root: Path, inherited: dict[str, Any], above: tuple[Path, ...]
) -> Iterator[tuple[Test | None, Group | None]]:
    folder = data / name
    real = _inside(folder, root)
    if real in above:
        raise PackageError(folder, "a link to a folder that holds it")
    own = _settings(folder, {})
    settings = {**inherited, **own}
    if own:
        yield None, Group(name, own)
    entries = sorted(os.listdir(folder))
    for entry in sorted(entries, key=lambda each: each.removesuffix(".in")):
        path = folder / entry
        if entry.endswith(".in"):
            yield _test(data, f"{name}/{entry.removesuffix('.in')}", root, settings), None
        elif path.is_dir() and not entry.endswith((".files", ".download")):
            yield from _walk(data, f"{name}/{entry}", root, settings, (*above, real))


def _test(data: Path, name: str, root: Path, settings: dict[str, Any]) -> Test:
    given = data / f"{name}.in"
    answer = data / f"{name}.ans"
    for path in (given, answer):
        if path.is_symlink() and not path.exists():
            raise PackageError(path, f"a link to {os.readlink(path)}, which is not there")
        if path.exists():
            _inside(path, root)
    if not answer.is_file():
        raise PackageError(given, f"no answer beside it: expected {answer.name}")
    if (data / f"{name}.files").is_dir():
        raise PackageError(data / f"{name}.files", "tests with files of their own are not supported")
    own = data / f"{name}.yaml"
    if own.is_file():
        settings = {**settings, **load_yaml(own)[0]}
    if settings.get("args"):
        raise PackageError(own, "tests with command-line arguments are not supported")
    flags = settings.get("output_validator_args", settings.get("output_validator_flags"))
    return Test(name, given, answer, tuple(flags_of(flags)))


def _settings(folder: Path, default: dict[str, Any]) -> dict[str, Any]:
    for name in _GROUP_FILES:
        if (folder / name).is_file():
            return load_yaml(folder / name)[0]
    return default


def _inside(path: Path, root: Path) -> Path:
    real = path.resolve()
    if not real.is_relative_to(root):
        raise PackageError(path, f"a link out of the package, to {real}")
    return real
