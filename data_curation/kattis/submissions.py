"""The example submissions of a package and what is expected of each."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_curation.kattis.bundle import CannotBundle, bundle
from data_curation.kattis.metadata import Metadata, PackageError, load_yaml
from sandbox.testfiles import LANGUAGE_BY_EXTENSION, text_of

ALL = frozenset({"AC", "WA", "TLE", "RTE"})
REJECTED = ALL - {"AC"}

_OTHER_NAMES = {
    "runtime_error": "run_time_error",
    "memory_limit_exceeded": "run_time_error",
    "output_limit_exceeded": "run_time_error",
    "timelimit_exceeded": "time_limit_exceeded",
    "partially_correct": "partially_accepted",
    "presentation_error": "wrong_answer",
}
# DOMjudge's marks in a source file, for submissions that may end in more than one way
_MARK = re.compile(r"@EXPECTED_RESULTS@:\s*([A-Z_, \t-]+)")
_MARKS = {
    "CORRECT": "AC", "ACCEPTED": "AC", "WRONG-ANSWER": "WA", "NO-OUTPUT": "WA", "TIMELIMIT": "TLE",
    "TIME-LIMIT-EXCEEDED": "TLE", "RUN-ERROR": "RTE", "RUN-TIME-ERROR": "RTE", "RUNTIME-ERROR": "RTE",
    "CHECK-MANUALLY": "", "COMPILER-ERROR": "CE",
}  # fmt: skip
_HEADERS = (".h", ".hh", ".hpp", ".hxx", ".inc")


@dataclass(frozen=True, slots=True)
class Expectation:
    """All results on `cases` (a pattern of test or group names; None: all tests) must be `permitted`, and one of them
    `required`. Results are AC, WA, TLE, RTE. `upper` and `lower`: whether its time bounds the time limit."""

    permitted: frozenset[str] = ALL
    required: frozenset[str] = ALL
    cases: str | None = None
    lower: bool = False
    upper: bool = False

    def concerns(self, test: str) -> bool:
        """Whether it speaks of the test of that name, or of a group that holds it."""
        if self.cases is None:
            return True
        parts = test.split("/")
        paths = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        return any(_matches(self.cases, path) for path in paths)

    def fault(self, results: Mapping[str, str]) -> str | None:
        """What is not as expected in the results by test name (those not run left out); None where all is."""
        concerned = {test: result for test, result in results.items() if self.concerns(test)}
        for test, result in concerned.items():
            if result not in self.permitted:
                return f"{result} on {test}, expected {' or '.join(sorted(self.permitted))}"
        if concerned and not self.required & set(concerned.values()):
            where = f" on {self.cases}" if self.cases else ""
            return f"no {' or '.join(sorted(self.required))}{where}"
        return None

    @property
    def whole(self) -> bool:
        """Whether only a run of all tests can tell."""
        return self.cases is not None


@dataclass(frozen=True, slots=True)
class PackageSubmission:
    """One submission: its place below submissions/, language, source as one text, and what is expected of it.

    `problem` says why it cannot be run, where it cannot. No expectations: it is run and shown, nothing more.
    """

    name: str
    category: str
    language: str = ""
    code: str = ""
    expectations: tuple[Expectation, ...] = ()
    problem: str = ""

    @property
    def expected(self) -> str:
        """The expectation in a few letters."""
        if not self.expectations:
            return "any"
        first = self.expectations[0]
        if first.permitted == {"AC"}:
            return "AC"
        needed = first.required if first.required != ALL else first.permitted
        return "/".join(sorted(needed))


def of_category(category: str, legacy: bool) -> tuple[Expectation, ...]:
    """What a folder's name promises; nothing for one that promises nothing."""
    name = _OTHER_NAMES.get(category, category)
    wrong, slow, crash = frozenset({"WA"}), frozenset({"TLE"}), frozenset({"RTE"})
    accepted = frozenset({"AC"})
    found = {
        "accepted": Expectation(accepted, lower=True),
        "slow_accepted": Expectation(accepted | slow),
        "rejected": Expectation(required=REJECTED),
        "wrong_answer": Expectation(accepted | wrong, wrong, lower=not legacy),
        "time_limit_exceeded": Expectation(accepted | slow | (wrong if legacy else frozenset()), slow, upper=True),
        "run_time_error": Expectation(ALL if legacy else accepted | crash, crash, lower=not legacy),
        "partially_accepted": Expectation(required=REJECTED, cases="secret"),
        "brute_force": Expectation(accepted | crash | slow, crash | slow),
    }.get(name)
    return () if found is None else (found,)


def read_submissions(package: Path, metadata: Metadata) -> list[PackageSubmission]:
    """All submissions of all categories, in order of category and name; those that cannot be run say why."""
    folder = package / "submissions"
    if not folder.is_dir():
        raise PackageError(folder, "missing: a problem package has submissions, at least one of them accepted")
    said = load_yaml(folder / "submissions.yaml")[0] if (folder / "submissions.yaml").is_file() else {}
    found = []
    categories = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for category in sorted(categories, key=lambda path: (path.name != "accepted", path.name)):
        for path in sorted(category.iterdir()):
            if not path.name.startswith((".", "__pycache__")):
                found.append(_submission(package, path, metadata, said))
    return found


def _submission(package: Path, path: Path, metadata: Metadata, said: Mapping[str, Any]) -> PackageSubmission:
    category = path.parent.name
    name = f"{category}/{path.name}"
    settings = [value for pattern, value in said.items() if _matches(pattern, name) or _matches(pattern, category)]
    language = entry = ""
    for value in settings:
        if isinstance(value, dict):
            language, entry = str(value.get("language") or language), str(value.get("entrypoint") or entry)
    try:
        files = _files(path)
        language = _language(language, files)
        files = {**files, **_included(package, language)}
        code = bundle(language, files, entry or None)
    except (CannotBundle, OSError) as error:
        return PackageSubmission(name, category, language, problem=str(error))
    expectations = _expectations(category, name, "\n".join(files.values()), metadata.legacy, said)
    return PackageSubmission(name, category, language, code, expectations)


def _files(path: Path) -> dict[str, str]:
    if path.is_file():
        return {path.name: text_of(path)}
    return {
        str(each.relative_to(path)): text_of(each)
        for each in sorted(path.rglob("*"))
        if each.is_file() and not any(part.startswith((".", "__pycache__")) for part in each.relative_to(path).parts)
    }


_NAMES = {"python3": "python", "python3numpy": "python", "cgmp": "c", "cppgmp": "cpp", "javaalgs4": "java"}


def _language(named: str, files: Mapping[str, str]) -> str:
    if named:
        return _NAMES.get(named, named)
    found = {LANGUAGE_BY_EXTENSION.get(Path(name).suffix, LANGUAGE_BY_EXTENSION.get(Path(name).suffix.lower(), ""))
             for name in files if not name.endswith(_HEADERS)} - {""}  # fmt: skip
    if found == {"c", "cpp"}:
        found = {"cpp"}
    if len(found) != 1:
        kinds = ", ".join(sorted({Path(name).suffix or name for name in files})) or "no files"
        raise CannotBundle(f"no language that is known here ({kinds})")
    language = found.pop()
    if language == "python" and any(re.match(r"#!.*python2", text) for text in files.values()):
        raise CannotBundle("Python 2 is not supported")
    return language


def _included(package: Path, language: str) -> dict[str, str]:
    """Files that go with every submission of the language."""
    files: dict[str, str] = {}
    for name in ("default", {"python": "python3"}.get(language, language)):
        folder = package / "include" / name
        if folder.is_dir():
            files.update({path.name: text_of(path) for path in sorted(folder.iterdir()) if path.is_file()})
    return files


def _expectations(
    category: str, name: str, source: str, legacy: bool, said: Mapping[str, Any]
) -> tuple[Expectation, ...]:
    marked = _MARK.search(source)
    if marked:
        results = {_MARKS.get(word.strip().replace("_", "-"), "") for word in marked[1].split(",")} - {""}
        return (Expectation(frozenset(results) | {"AC"}, frozenset(results)),) if results else ()
    expectations = list(of_category(category, legacy))
    for pattern, value in said.items():
        if not isinstance(value, dict):
            continue
        if pattern == category:  # the folder's own name replaces what it promises
            default = expectations[0] if expectations else Expectation()
            expectations = [_stated(value, None, default)]
        elif _matches(pattern, name) and _has_requirement(value):
            expectations.append(_stated(value, None, Expectation()))
        if pattern == category or _matches(pattern, name):
            groups = {key: inner for key, inner in value.items() if isinstance(inner, dict) and _has_requirement(inner)}
            expectations += [_stated(inner, key, Expectation()) for key, inner in groups.items()]
    return tuple(expectations)


def _has_requirement(value: Mapping[str, Any]) -> bool:
    return "permitted" in value or "required" in value


def _stated(value: Mapping[str, Any], cases: str | None, default: Expectation) -> Expectation:
    permitted = frozenset(map(str, value["permitted"])) if "permitted" in value else default.permitted
    required = frozenset(map(str, value["required"])) if "required" in value else default.required
    use = value.get("use_for_time_limit")
    lower = use == "lower" if use is not None else "TLE" not in permitted
    upper = use == "upper" if use is not None else required == {"TLE"}
    return Expectation(permitted, required, cases, lower, upper)


def _matches(pattern: str, name: str) -> bool:
    """Whether the pattern, or one of those its braces stand for, means the name: `*` does not cross a slash."""
    return any(
        one.count("/") == name.count("/")
        and all(fnmatch.fnmatchcase(part, wanted) for part, wanted in zip(name.split("/"), one.split("/"), strict=True))
        for one in _expanded(pattern)
    )


def _expanded(pattern: str) -> Iterator[str]:
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        yield pattern
        return
    for choice in found[1].split(","):
        yield from _expanded(pattern[: found.start()] + choice + pattern[found.end() :])
