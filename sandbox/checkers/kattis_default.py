"""The default output validator of the Kattis problem package format.

Tokens, letters in any case, unless flags say otherwise: `case_sensitive`, `space_change_sensitive`, and
`float_tolerance E`, `float_absolute_tolerance E`, `float_relative_tolerance E` (either tolerance is enough where both
are given). Only what the format's grammar calls a number is one: no nan, no infinity.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sandbox.checkers import text

_WORD = re.compile(rb"[^ \t\n\v\f\r]+")
_PIECE = re.compile(rb"[ \t\n\v\f\r]+|[^ \t\n\v\f\r]+")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]*\.[0-9]+|[0-9]+\.?)(?:[eE][+-]?[0-9]+)?")
_EXACT_DIGITS = 15


def comparison(parameter: str) -> Callable[[bytes, bytes], str | None]:
    """The comparison that the flags in `parameter` ask for. ValueError for flags the format does not know."""
    words = parameter.split()
    case_sensitive = space_sensitive = False
    absolute = relative = None
    while words:
        flag = words.pop(0)
        if flag == "case_sensitive":
            case_sensitive = True
        elif flag == "space_change_sensitive":
            space_sensitive = True
        elif flag in ("float_tolerance", "float_absolute_tolerance", "float_relative_tolerance"):
            tolerance = _tolerance(flag, words)
            absolute = tolerance if flag != "float_relative_tolerance" else absolute
            relative = tolerance if flag != "float_absolute_tolerance" else relative
        else:
            raise ValueError(f"checker kattis_default: unknown flag {flag!r}")

    if absolute is None and relative is None and not space_sensitive:
        return text.tokens if case_sensitive else text.case_insensitive

    def same(said: bytes, meant: bytes) -> bool:
        if said == meant:
            return True
        if (absolute is not None or relative is not None) and _NUMBER.fullmatch(meant):
            return _NUMBER.fullmatch(said) is not None and _near(said, meant, absolute or 0.0, relative or 0.0)
        return not case_sensitive and said.lower() == meant.lower()

    pieces = _PIECE if space_sensitive else _WORD

    def compare(output: bytes, expected: bytes) -> str | None:
        if output == expected:
            return None
        said, meant = pieces.findall(output), pieces.findall(expected)
        if said == meant:
            return None
        what = "token or space" if space_sensitive else "token"
        for number, (one, other) in enumerate(zip(said, meant, strict=False), 1):
            if not same(one, other):
                return f"{what} {number} differs"
        if len(said) == len(meant):
            return None
        return f"{'more' if len(said) > len(meant) else 'fewer'} {what}s than expected"

    return compare


def _near(said: bytes, meant: bytes, absolute: float, relative: float) -> bool:
    if _whole(said) and _whole(meant) and max(len(said), len(meant)) > _EXACT_DIGITS:  # beyond what a double holds
        difference = abs(int(said) - int(meant))
        return difference <= absolute or difference <= relative * abs(int(meant))
    one, other = float(said), float(meant)
    return abs(one - other) <= absolute or abs(one - other) <= relative * abs(other)


def _whole(token: bytes) -> bool:
    return len(token) < 4000 and token.lstrip(b"+-").isdigit()


def _tolerance(flag: str, words: list[str]) -> float:
    try:
        value = float(words.pop(0))
    except (IndexError, ValueError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"checker kattis_default: {flag} needs a number of 0 or more behind it")
    return value
