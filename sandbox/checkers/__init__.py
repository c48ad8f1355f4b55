"""Comparison of a program's output with the expected one. Pure functions of the controller.

A checker is named by a string, with a parameter after a colon where it takes one: "tokens", "floats:1e-9". A checker
of the problem's own is "python:", "testlib:" or "kattis:" followed by its source (`sandbox.checkers.user`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from sandbox.checkers import kattis_default, numbers, text, user, values

# None accepts; else one line that names the first difference, never the expected value.
Compare = Callable[[bytes, bytes], str | None]


@dataclass(frozen=True, slots=True)
class Checker:
    """`compare(output, expected)` for printed output, `compare_values` for values of call-based tests.

    `referee` is set instead for a problem's own checker, which runs in the sandbox. `returned_only` marks one that
    compares returned values only; with `in_place`, what the call has made of its first argument counts as the value.
    """

    spec: str
    compare: Compare
    compare_values: Compare
    referee: user.Referee | None = None
    returned_only: bool = False
    in_place: bool = False


_PLAIN: dict[str, tuple[Compare, values.Equality]] = {
    "tokens": (text.tokens, values.Equality()),
    "lines": (text.lines, values.Equality()),
    "exact": (text.exact, values.Equality()),
    "case_insensitive": (text.case_insensitive, values.Equality(fold_case=True)),
    "yes_no": (text.yes_no, values.Equality(fold_case=True)),
    "unordered_lines": (text.unordered_lines, values.Equality(unordered=True)),
    "unordered_tokens": (text.unordered_tokens, values.Equality(unordered=True)),
    "unordered_within": (text.unordered_tokens, values.Equality(unordered=True, unordered_within=True)),
}

_RETURNED = {
    "linked_list": values.Equality(nodes=values.LINKED_LIST),
    "tree": values.Equality(nodes=values.TREE),
    "in_place": values.Equality(),
}

# which of absolute and relative error a tolerance bounds
_TOLERANT = {"floats": (True, True), "floats_abs": (True, False), "floats_rel": (False, True)}
_DEFAULT_TOLERANCE = 1e-6


def names() -> list[str]:
    """Names of the known checkers."""
    return sorted([*_PLAIN, *_RETURNED, *_TOLERANT, "kattis_default", *user.PROTOCOLS])


@lru_cache(maxsize=256)
def find(spec: str) -> Checker:
    """The checker that `spec` names. ValueError with the known names otherwise."""
    referee = user.parse(spec)
    if referee is not None:
        return Checker(spec, _not_here, _not_here, referee)
    name, colon, parameter = spec.partition(":")
    if name in _TOLERANT:
        size = _tolerance(spec, parameter) if colon else _DEFAULT_TOLERANCE
        absolute, relative = _TOLERANT[name]
        tolerance = numbers.Tolerance(size if absolute else 0.0, size if relative else 0.0)
        return Checker(spec, numbers.floats(tolerance), values.Equality(tolerance=tolerance).compare)
    if name == "kattis_default":
        return Checker(spec, kattis_default.comparison(parameter), values.Equality(fold_case=True).compare)
    if name in _PLAIN and not colon:
        compare, equality = _PLAIN[name]
        return Checker(spec, compare, equality.compare)
    if name in _RETURNED and not colon:
        return Checker(spec, _not_printed, _RETURNED[name].compare, returned_only=True, in_place=name == "in_place")
    shown = spec if len(spec) < 80 else f"{spec[:80]}..."
    raise ValueError(f"unknown checker {shown!r}: known are {', '.join(names())} (floats:1e-6, python:SOURCE)")


def _not_printed(output: bytes, expected: bytes) -> str | None:
    raise RuntimeError("a checker of returned values, on printed output")


def _not_here(output: bytes, expected: bytes) -> str | None:
    raise RuntimeError("a problem's own checker runs in the sandbox, not in this process")


def _tolerance(spec: str, parameter: str) -> float:
    try:
        tolerance = float(parameter)
    except ValueError:
        tolerance = -1.0
    if not 0 <= tolerance < 1:
        raise ValueError(f"checker {spec!r}: the tolerance must be a number in [0, 1), as in floats:1e-6")
    return tolerance
