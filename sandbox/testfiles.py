"""Tests from files as problem setters keep them: a folder of input and answer files, or a JSONL file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sandbox.cases import TestCase
from sandbox.service.wire import WireError, build

LANGUAGE_BY_EXTENSION = {
    ".py": "python", ".py3": "python", ".c": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".c++": "cpp",
    ".java": "java", ".js": "javascript", ".go": "go", ".rs": "rust",
}  # fmt: skip
_INPUT, _ANSWERS = ".in", (".ans", ".out", ".a")


def read_tests(path: str | Path) -> list[TestCase]:
    """The tests in a folder of NAME.in with NAME.ans or NAME.out, looked for in subfolders too, in natural order; or in
    a .jsonl file of objects with `input` and `output`. FileNotFoundError or ValueError in one line otherwise."""
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of tests")
    if path.suffix != ".jsonl":
        raise ValueError(f"{path}: tests come from a folder of .in and .ans files or from a .jsonl file")
    return _read_lines(path)


def text_of(path: Path) -> str:
    """The file's text; bytes that are not UTF-8 are kept as the judge expects them."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A sort key by which test2 comes before test10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"([0-9]+)", name)]


def _read_folder(folder: Path) -> list[TestCase]:
    inputs = sorted(folder.rglob(f"*{_INPUT}"), key=lambda path: natural_order(str(path.relative_to(folder))))
    if not inputs:
        raise FileNotFoundError(f"{folder}: no {_INPUT} files")
    tests = []
    for given in inputs:
        answer = next((given.with_suffix(suffix) for suffix in _ANSWERS if given.with_suffix(suffix).exists()), None)
        if answer is None:
            raise FileNotFoundError(f"{given}: no answer beside it ({' or '.join(given.stem + s for s in _ANSWERS)})")
        name = str(given.relative_to(folder).with_suffix(""))
        tests.append(TestCase(text_of(given), text_of(answer), name=name))
    return tests


def _read_lines(path: Path) -> list[TestCase]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        row = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: row {row}: not UTF-8; keep such tests as .in and .ans files") from None
    tests = []
    for row, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            tests.append(_test_of(line, f"{path}: row {row}", str(row)))
    if not tests:
        raise ValueError(f"{path}: no tests")
    return tests


def _test_of(line: str, where: str, name: str) -> TestCase:
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: expected an object with the strings `input` and `output`")
    for key in ("input", "output"):
        if key not in fields:
            raise ValueError(f"{where}: {key!r} is missing: a test has an `input` and an `output`, empty or not")
    try:
        return build(TestCase, {"name": name, **fields}, "")
    except WireError as error:
        raise ValueError(f"{where}: {error}") from None
