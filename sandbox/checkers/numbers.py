"""Checker for real numbers: tokens, of which those that are decimal numbers may differ by a tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from sandbox.checkers.text import count_difference

# No underscores, no Unicode digits, no hexadecimal: what a printf would write.
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_SPECIAL = {b"inf": math.inf, b"+inf": math.inf, b"-inf": -math.inf, b"infinity": math.inf, b"-infinity": -math.inf}
_LONGEST = 400  # characters of a number worth converting


def floats(tolerance: float) -> Callable[[bytes, bytes], str | None]:
    """Checker that accepts tokens equal as text, or numbers within `tolerance`, absolute or relative.

    A token expected as an integer is matched exactly when it is too long for a double to hold (over 15 digits).
    NaN matches only an expected NaN, infinity only the infinity of the same sign.
    """

    def compare(output: bytes, expected: bytes) -> str | None:
        if output == expected:
            return None
        ours, theirs = output.split(), expected.split()
        for position, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b and not _close_tokens(a, b, tolerance):
                return f"token {position + 1} differs"
        return count_difference(len(ours), len(theirs), "token")

    return compare


def close(ours: float, theirs: float, tolerance: float) -> bool:
    """Whether two numbers agree within an absolute or relative tolerance; NaN agrees with NaN only."""
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    if math.isinf(ours) or math.isinf(theirs):
        return ours == theirs
    # 1e-15 forgives the rounding of the subtraction itself
    return abs(ours - theirs) <= max(tolerance, tolerance * abs(theirs)) + 1e-15


def _close_tokens(ours: bytes, theirs: bytes, tolerance: float) -> bool:
    if _INTEGER.fullmatch(theirs) and len(theirs.lstrip(b"+-")) > 15:
        return False
    a, b = _value(ours), _value(theirs)
    return a is not None and b is not None and close(a, b, tolerance)


def _value(token: bytes) -> float | None:
    if len(token) <= _LONGEST and _NUMBER.fullmatch(token):
        return float(token)
    folded = token.lower()
    if folded in _SPECIAL:
        return _SPECIAL[folded]
    return math.nan if folded in (b"nan", b"-nan", b"+nan") else None
