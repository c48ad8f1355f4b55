"""Comparison of returned values in call-based tests: JSON data against JSON data.

Equality is exact in type: True is not 1, and 1.0 is 1 only for a checker with a tolerance. Tuples have become lists.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import Any

from sandbox.checkers.numbers import Tolerance

_MAX_DEPTH = 250
LINKED_LIST, TREE = "__linked_list__", "__tree__"  # how the box marks what it has written out
_NODES = {LINKED_LIST: "linked list", TREE: "tree"}


@dataclass(frozen=True, slots=True)
class Equality:
    """What counts as equal. `tolerance` also lets ints and floats meet.

    `unordered` takes the outermost list as a multiset, `unordered_within` every list inside it as well. `nodes` is the
    kind of structure that is returned, LINKED_LIST or TREE, where plain lists are expected in its place.
    """

    tolerance: Tolerance | None = None
    fold_case: bool = False
    unordered: bool = False
    unordered_within: bool = False
    nodes: str = ""

    def compare(self, output: bytes, expected: bytes) -> str | None:
        """None when the values agree, else one line that names the first differing place."""
        if not output:
            return "no value returned"
        try:
            ours = _decode(output)
        except (ValueError, RecursionError):
            return "the returned value is not plain data"
        theirs = _decode(expected)
        if self.nodes:
            ours, found = _opened(ours, self.nodes)
            if not found and theirs not in (None, []):
                return f"no {_NODES[self.nodes]} returned"
            theirs, _ = _opened(theirs, self.nodes)
        elif isinstance(ours, dict) and (kind := next(iter(ours), "")) in _NODES:
            return f"a {_NODES[kind]} was returned: checker {kind.strip('_')} compares those"
        if self.unordered_within:
            ours, theirs = _sorted_within(ours), _sorted_within(theirs)
        elif self.unordered and isinstance(ours, list) and isinstance(theirs, list):
            ours, theirs = sorted(ours, key=_sort_key), sorted(theirs, key=_sort_key)
        place = self._difference(ours, theirs, "", 0)
        return None if place is None else f"the value differs{' at ' + place if place else ''}"

    def _difference(self, ours: Any, theirs: Any, place: str, depth: int) -> str | None:
        if depth > _MAX_DEPTH:
            return place
        if isinstance(ours, list) and isinstance(theirs, list):
            return self._list_difference(ours, theirs, place, depth)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            return self._dict_difference(ours, theirs, place, depth)
        return None if self._equal(ours, theirs) else place

    def _list_difference(self, ours: list, theirs: list, place: str, depth: int) -> str | None:
        for position, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            found = self._difference(a, b, f"{place}[{position}]", depth + 1)
            if found is not None:
                return found
        return None if len(ours) == len(theirs) else place

    def _dict_difference(self, ours: dict, theirs: dict, place: str, depth: int) -> str | None:
        for marker in ("__set__", "__dict__"):
            if (marker in ours) != (marker in theirs):
                return place
            if marker in ours:
                a, b = ours[marker], theirs[marker]
                if not isinstance(a, list) or not isinstance(b, list):
                    return place
                found = self._list_difference(sorted(a, key=_sort_key), sorted(b, key=_sort_key), "", depth + 1)
                return None if found is None else place
        if ours.keys() != theirs.keys():
            return place
        for key, value in ours.items():
            found = self._difference(value, theirs[key], f"{place}[...]", depth + 1)
            if found is not None:
                return found
        return None

    def _equal(self, ours: Any, theirs: Any) -> bool:
        if isinstance(ours, bool) or isinstance(theirs, bool) or ours is None or theirs is None:
            return ours is theirs
        if isinstance(ours, str) and isinstance(theirs, str):
            return ours == theirs or (self.fold_case and ours.casefold() == theirs.casefold())
        if isinstance(ours, int | float) and isinstance(theirs, int | float):
            return self._equal_numbers(ours, theirs)
        return False

    def _equal_numbers(self, ours: float, theirs: float) -> bool:
        if self.tolerance is not None and (isinstance(ours, float) or isinstance(theirs, float)):
            try:
                return self.tolerance.allows(float(ours), float(theirs))
            except OverflowError:
                return False
        if type(ours) is not type(theirs):
            return False
        return ours == theirs or (ours != ours and theirs != theirs)


def _opened(value: Any, nodes: str, depth: int = 0) -> tuple[Any, int]:
    """`value` with its marked structures as plain lists, and how many there were.

    An empty one is None in a program and [] in a test: None stands for both. Trees end with their last node.
    """
    found = 0
    if isinstance(value, dict) and value.keys() == {nodes} and isinstance(value[nodes], list):
        value, found = value[nodes], 1
    if not isinstance(value, list) or depth > _MAX_DEPTH:
        return value, found
    items = []
    for item in value:
        item, inside = _opened(item, nodes, depth + 1)
        items.append(item)
        found += inside
    while nodes == TREE and items and items[-1] is None:
        items.pop()
    return items or None, found


def _sorted_within(value: Any, depth: int = 0) -> Any:
    if not isinstance(value, list) or depth > _MAX_DEPTH:
        return value
    return sorted((_sorted_within(item, depth + 1) for item in value), key=_sort_key)


def _sort_key(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and math.isfinite(value):
        value = int(value)  # 1.0 must sort beside 1 where a tolerance lets them meet
    return json.dumps(value, sort_keys=True)


def _decode(text: bytes) -> Any:
    return json.loads(text, parse_int=_integer, object_hook=_revive)


def _revive(found: dict) -> Any:
    if found.keys() == {"__int__"} and isinstance(found["__int__"], str):
        return int(found["__int__"], 16)
    pairs = found.get("__dict__")
    if found.keys() == {"__dict__"} and isinstance(pairs, list) and all(_plain_pair(pair) for pair in pairs):
        return dict(pairs)  # the short form of the same value
    return found


def _plain_pair(pair: Any) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        return False
    return not pair[0].startswith("__")


def _integer(digits: str) -> int:
    limit = sys.get_int_max_str_digits()
    if not limit or len(digits) <= limit:
        return int(digits)
    if len(digits) > 200_000:
        raise ValueError("integer too long")
    sign, body = (-1, digits[1:]) if digits[0] == "-" else (1, digits)
    return sign * _join(body)


def _join(digits: str) -> int:
    """Integer of a decimal text of any length, by halves."""
    if len(digits) <= 600:
        return int(digits)
    cut = len(digits) // 2
    return _join(digits[:-cut]) * 10**cut + _join(digits[-cut:])
