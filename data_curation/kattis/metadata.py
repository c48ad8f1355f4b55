"""problem.yaml: name, limits, validation; also where it is not quite YAML."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_PLAIN_LINE = re.compile(r"^(?P<key>[A-Za-z_][\w-]*):[ \t]+(?P<value>[^\s\"'\[{|>&*!#].*?)[ \t]*$")


class PackageError(ValueError):
    """A package that cannot be used; one line that names the file, what is wrong and what would be right."""

    def __init__(self, file: Path, what: str) -> None:
        self.file, self.what = file, what
        super().__init__(f"{file}: {what}")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What problem.yaml says, with the format's defaults. Times in seconds, sizes in MiB; None where not said."""

    name: str = ""
    legacy: bool = True
    kinds: frozenset[str] = frozenset({"pass-fail"})  # and scoring, interactive, multi-pass, submit-answer
    custom_validator: bool | None = None  # None: told by whether the package has one
    validator_flags: tuple[str, ...] = ()
    time_limit_s: float | None = None
    time_multiplier: float = 5.0  # legacy: limit = multiplier x slowest accepted
    ac_to_time_limit: float = 2.0  # 2023-07: limit >= this x slowest accepted
    time_limit_to_tle: float = 1.5  # and fastest too slow >= this x limit
    time_resolution_s: float = 1.0
    memory_mb: int = 2048
    output_mb: float = 8.0
    source: str = ""
    license: str = ""
    keywords: tuple[str, ...] = ()
    repaired: bool = False  # the file was no YAML as it stood
    unsupported: tuple[str, ...] = field(default=())

    @property
    def interactive(self) -> bool:
        return "interactive" in self.kinds

    @property
    def scoring(self) -> bool:
        return "scoring" in self.kinds


def read_metadata(folder: Path) -> Metadata:
    """The metadata of the package in `folder`. PackageError when problem.yaml is missing or past repair."""
    path = folder / "problem.yaml"
    if not path.is_file():
        raise PackageError(path, "missing: a problem package has one")
    values, repaired = load_yaml(path)
    try:
        return _metadata(folder, values, repaired)
    except (TypeError, ValueError) as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(path, str(error)) from None


def load_yaml(path: Path) -> tuple[dict[str, Any], bool]:
    """The file's keys and values, and whether it had to be repaired: values of one line such as `name: A: B` are taken
    as they stand. PackageError when that does not help."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PackageError(path, f"not UTF-8 text: byte 0x{error.object[error.start]:02x} at {error.start}") from None
    try:
        values, repaired = yaml.safe_load(text), False
    except yaml.YAMLError:
        try:
            values, repaired = yaml.safe_load(_quoted(text)), True
        except yaml.YAMLError as error:
            raise PackageError(path, f"not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise PackageError(path, f"expected keys and values, got {type(values).__name__}")
    return values, repaired


def _quoted(text: str) -> str:
    lines = []
    for line in text.splitlines():
        found = _PLAIN_LINE.match(line.expandtabs(2))
        if found and not _is_yaml(found["value"]):
            line = f"{found['key']}: {json.dumps(found['value'], ensure_ascii=False)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _is_yaml(value: str) -> bool:
    try:
        return not isinstance(yaml.safe_load(value), dict | list)
    except yaml.YAMLError:
        return False


def _metadata(folder: Path, values: dict[str, Any], repaired: bool) -> Metadata:
    version = str(values.get("problem_format_version", "legacy"))
    legacy = version.startswith("legacy")
    limits = values.get("limits") or {}
    if not isinstance(limits, dict):
        raise ValueError("`limits`: expected keys and values")
    kinds = {"pass-fail"} if values.get("type") is None else set(_words(values["type"]))
    validation = str(values.get("validation", "")).split()
    if "interactive" in validation:
        kinds.add("interactive")
    if "score" in validation:
        kinds.add("scoring")
    multipliers = limits.get("time_multipliers") or {}
    return Metadata(
        name=_name(values.get("name"), folder),
        legacy=legacy,
        kinds=frozenset(kinds),
        custom_validator=bool(validation) and validation[0].startswith("custom") if legacy else None,
        validator_flags=tuple(flags_of(values.get("validator_flags"))),
        time_limit_s=_time_limit(folder, limits),
        time_multiplier=_positive(limits, "time_multiplier", 5.0),
        ac_to_time_limit=_positive(multipliers, "ac_to_time_limit", 2.0),
        time_limit_to_tle=_positive(multipliers, "time_limit_to_tle", 1.5),
        time_resolution_s=_positive(limits, "time_resolution", 1.0),
        memory_mb=int(_positive(limits, "memory", 2048)),
        output_mb=_positive(limits, "output", 8.0),
        source=_source(values.get("source")),
        license=str(values.get("license") or ""),
        keywords=tuple(_words(values.get("keywords"))),
        repaired=repaired,
        unsupported=tuple(sorted(kinds & {"multi-pass", "submit-answer"})),
    )


def flags_of(value: Any) -> list[str]:
    """Arguments given as one string or as a list; None gives none."""
    if value is None:
        return []
    if isinstance(value, list):
        return [str(item) for item in value]
    if isinstance(value, dict):  # legacy: name of the validator and its flags
        return flags_of(value.get("flags"))
    return shlex.split(str(value))


def _time_limit(folder: Path, limits: dict[str, Any]) -> float | None:
    """In problem.yaml, or a file .timelimit, or DOMjudge's own file beside it."""
    if limits.get("time_limit") is not None:
        return _positive(limits, "time_limit", 0.0)
    path = folder / ".timelimit"
    if path.is_file():
        text = path.read_text(encoding="utf-8").strip()
        try:
            return _positive({"time": float(text)}, "time", 0.0)
        except ValueError:
            raise PackageError(path, f"expected a number of seconds, got {text[:40]!r}") from None
    path = folder / "domjudge-problem.ini"
    if path.is_file():
        found = re.search(r"^\s*timelimit\s*=\s*['\"]?([0-9.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        return float(found[1]) if found else None
    return None


def _positive(values: dict[str, Any], key: str, default: float) -> float:
    value = values.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"`{key}`: expected a number above 0, got {value!r}")
    return float(value)


def _name(value: Any, folder: Path) -> str:
    if isinstance(value, dict):
        value = value.get("en") or next(iter(value.values()), None)
    return str(value) if value is not None else folder.name


def _source(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(filter(None, map(_source, value)))
    if isinstance(value, dict):
        return str(value.get("name") or "")
    return str(value or "")


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value or "").split()
