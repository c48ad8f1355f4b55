"""Checker for real numbers: tokens, of which those that are decimal numbers may differ by a tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.checkers.text import count_difference, squeezed

# No underscores, no Unicode digits, no hexadecimal: what a printf would write.
NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_LONG_INTEGER = re.compile(rb"(?:^| )[+-]?[0-9]{16,}(?: |$)")  # more digits than a double holds
_SPECIAL = {b"inf": math.inf, b"+inf": math.inf, b"-inf": -math.inf, b"infinity": math.inf, b"-infinity": -math.inf}
_LONGEST = 400  # characters of a number worth converting
_MANY = 1 << 18  # bytes from which numbers are compared all at once


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Two numbers agree within `absolute`, or within `relative` times the expected one."""

    absolute: float
    relative: float

    def allows(self, ours: float, theirs: float) -> bool:
        """NaN agrees with NaN only, an infinity with itself."""
        if math.isnan(ours) or math.isnan(theirs):
            return math.isnan(ours) and math.isnan(theirs)
        if math.isinf(ours) or math.isinf(theirs):
            return ours == theirs
        # 1e-15 forgives the rounding of the subtraction itself
        return abs(ours - theirs) <= max(self.absolute, self.relative * abs(theirs)) + 1e-15


def floats(tolerance: Tolerance) -> Callable[[bytes, bytes], str | None]:
    """Checker that accepts tokens equal as text, or numbers within `tolerance`.

    Two integers must be the same integer: a count beside real numbers has no rounding to forgive. An integer too long
    for a double to hold (over 15 digits) is matched by an integer only.
    """

    def compare(output: bytes, expected: bytes) -> str | None:
        if output == expected:
            return None
        output, expected = squeezed(output), squeezed(expected)
        ours, theirs = output.split(), expected.split()
        if len(expected) > _MANY and len(ours) == len(theirs):
            found = _first_difference_of_many(output, expected, ours, theirs, tolerance)
            if found is not None:
                return f"token {found + 1} differs" if found >= 0 else None
        for position, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b and not _close_tokens(a, b, tolerance):
                return f"token {position + 1} differs"
        return count_difference(len(ours), len(theirs), "token")

    return compare


def _first_difference_of_many(
    output: bytes, expected: bytes, ours: list[bytes], theirs: list[bytes], tolerance: Tolerance
) -> int | None:
    """Index of the first difference, -1 if there is none; None unless both are plain decimal numbers throughout."""
    if output.translate(None, b"0123456789+-.eE ") or expected.translate(None, b"0123456789+-.eE "):
        return None
    if _LONG_INTEGER.search(expected):
        return None
    import numpy as np

    try:
        a, b = (np.fromiter(map(float, tokens), np.float64, len(tokens)) for tokens in (ours, theirs))
    except ValueError:
        return None
    with np.errstate(invalid="ignore"):
        allowed = np.maximum(tolerance.absolute, tolerance.relative * np.abs(b)) + 1e-15
        differs = (a != b) & ~(np.isfinite(b) & (np.abs(a - b) <= allowed))
        whole = (a != b) & (a == np.floor(a)) & (b == np.floor(b)) & ~differs
    for place in np.nonzero(whole)[0]:
        if _INTEGER.fullmatch(ours[place]) and _INTEGER.fullmatch(theirs[place]):
            differs[place] = True
            break
    return int(differs.argmax()) if differs.any() else -1


def _close_tokens(ours: bytes, theirs: bytes, tolerance: Tolerance) -> bool:
    if _INTEGER.fullmatch(theirs):
        if _INTEGER.fullmatch(ours):
            return _canonical(ours) == _canonical(theirs)
        if len(theirs.lstrip(b"+-")) > 15:
            return False
    a, b = _value(ours), _value(theirs)
    return a is not None and b is not None and tolerance.allows(a, b)


def _canonical(integer: bytes) -> bytes:
    """An integer without leading zeros and plus signs; no number is made of it, whatever its length."""
    digits = integer.lstrip(b"+-").lstrip(b"0")
    return b"-" + digits if digits and integer.startswith(b"-") else digits


def _value(token: bytes) -> float | None:
    if len(token) <= _LONGEST and NUMBER.fullmatch(token):
        return float(token)
    folded = token.lower()
    if folded in _SPECIAL:
        return _SPECIAL[folded]
    return math.nan if folded in (b"nan", b"-nan", b"+nan") else None
