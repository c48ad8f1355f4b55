"""Which of the hundred attacks each test is about.

1-30 exhaust resources, 31-58 leave the box, 59-88 fake success, 89-100 go through compilers. Every family has a file of
its own; `test_attacks_then_honest` demands that no number is without a test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import pytest

COVERED: dict[int, list[str]] = defaultdict(list)

_Test = TypeVar("_Test", bound=Callable[..., object])


def numbered(table: Mapping[int, str], cases: Iterable[str]) -> list[object]:
    """Parameters, one a case, named "031-kill_parent"; `table` says which cases a number has."""
    numbers = {name: number for number, names in table.items() for name in names.split()}
    missing = numbers.keys() ^ set(cases)
    assert not missing, f"numbered but not there, or there but not numbered: {sorted(missing)}"
    for name, number in numbers.items():
        COVERED[number].append(name)
    return [pytest.param(name, id=f"{number:03d}-{name}") for name, number in sorted(numbers.items(), key=_by_number)]


def _by_number(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def attack(*numbers: int) -> Callable[[_Test], _Test]:
    """Marks a test as being about these attacks."""

    def mark(test: _Test) -> _Test:
        for number in numbers:
            COVERED[number].append(test.__name__)
        return test

    return mark
