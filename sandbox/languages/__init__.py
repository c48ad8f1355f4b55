"""The languages programs may be written in, by name."""

from __future__ import annotations

from sandbox.languages.base import CompileError, Language, ToolchainMissing, Workshop
from sandbox.languages.c import C
from sandbox.languages.cpp import CPP
from sandbox.languages.python import Python

_LANGUAGES: dict[str, Language] = {language.name: language for language in (Python(), CPP, C)}
_ALIASES = {"python3": "python", "py": "python", "c++": "cpp", "cxx": "cpp", "cpp17": "cpp", "cpp20": "cpp"}


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


def available() -> dict[str, str | None]:
    """For every known language None when it can be used here, else what to install."""
    return {name: _LANGUAGES[name].missing() for name in names()}


__all__ = ["CompileError", "Language", "ToolchainMissing", "Workshop", "available", "find", "names"]
