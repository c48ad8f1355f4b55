"""The languages programs may be written in, by name."""

from __future__ import annotations

import os

from sandbox.languages.base import CompileError, Language, ToolchainMissing, Workshop
from sandbox.languages.c import C
from sandbox.languages.cpp import CPP, CPP17
from sandbox.languages.go import Go
from sandbox.languages.java import Java
from sandbox.languages.javascript import JavaScript
from sandbox.languages.pypy import PyPy
from sandbox.languages.python import Python
from sandbox.languages.rust import Rust

_LANGUAGES: dict[str, Language] = {
    language.name: language for language in (Python(), PyPy(), C, CPP, CPP17, Java(), JavaScript(), Go(), Rust())
}
_ALIASES = {
    "python3": "python", "py": "python", "pypy3": "pypy", "gcc": "c", "c++": "cpp", "cxx": "cpp", "cc": "cpp",
    "cpp20": "cpp", "c++20": "cpp", "c++17": "cpp17", "js": "javascript", "node": "javascript", "nodejs": "javascript",
    "golang": "go", "rs": "rust",
}  # fmt: skip


def names() -> list[str]:
    """Names of the known languages."""
    return sorted(_LANGUAGES)


def find(name: str) -> Language:
    """The language called `name`. ValueError with the known names otherwise."""
    key = name.lower()
    language = _LANGUAGES.get(_ALIASES.get(key, key))
    if language is None:
        raise ValueError(f"unknown language {name!r}: known are {', '.join(names())}")
    return language


def spellings(name: str) -> frozenset[str]:
    """The names a language goes by, its own included."""
    own = find(name).name
    return frozenset([own, *(alias for alias, meant in _ALIASES.items() if meant == own)])


def available() -> dict[str, str | None]:
    """For every known language None when it can be used here, else what to install."""
    return {name: _LANGUAGES[name].missing() for name in names()}


def runtime_paths() -> tuple[str, ...]:
    """What must be visible where programs run so that every language here can be used."""
    usable = [language for language in _LANGUAGES.values() if language.missing() is None]
    paths = dict.fromkeys(path for language in usable for path in language.runtime_paths())
    return tuple(path for path in paths if os.path.exists(path))


__all__ = [
    "CompileError",
    "Language",
    "ToolchainMissing",
    "Workshop",
    "available",
    "find",
    "names",
    "runtime_paths",
    "spellings",
]
