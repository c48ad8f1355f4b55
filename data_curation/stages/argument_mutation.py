"""New calls made from a problem's own call-based tests: other arguments of the same types and structure.

What holds in all known calls is kept, because a statement's constraints cannot be read reliably: types, ranges,
sortedness, distinctness, permutations, equal lengths, which number is the length of which list. Where the statement
states its constraints and every line could be read, those rule instead: values may come from the whole stated range,
and arguments that break a line are not used. Records in a list (tuples, lists of mixed types) keep their lengths.
"""

from __future__ import annotations

import ast
import copy
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from data_curation.schema import Test
from data_curation.sources.calls import source
from data_curation.stages.stated_constraints import Constraints

_CALLED = re.compile(r"^[A-Za-z_][\w.()]*$")
_NO_TARGETS = frozenset(
    "bool int float str len set list tuple dict sorted round abs sum min max type print exec globals isinstance "  # noqa: SIM905
    "frozenset repr".split()
)
_LONGEST, _LONGER = 24, 6  # a list or text is made this much longer than the longest known, up to that
_FAR = 4  # a number from a stated range lies within this many times the largest known one half of the time


@dataclass
class Domain:
    """Values seen at one place of all inputs of a shape, and what holds of all of them."""

    numbers: list[int | float] = field(default_factory=list)
    stated: tuple[float, float] | None = None  # bounds of the numbers, or of the lengths
    is_from_one: bool = False  # counts and sizes may be smaller than any known one
    letters: set[str] = field(default_factory=set)
    lengths: list[int] = field(default_factory=list)
    is_sorted: bool = True
    is_distinct: bool = True
    is_permutation: bool = True
    is_square: bool = True  # as many rows as columns
    is_record: bool = False  # of fields of different types

    def see(self, value: Any) -> None:
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, int | float):
            self.numbers.append(value)
        elif isinstance(value, str):
            self.letters |= set(value)
            self.lengths.append(len(value))
        elif isinstance(value, list | tuple | set | dict):
            self.lengths.append(len(value))
            flat = [item for item in value if isinstance(item, int | float | str)]
            self.is_sorted &= len(flat) == len(value) and is_sorted(flat)
            self.is_distinct &= len(flat) == len(value) and len(set(map(repr, flat))) == len(flat)
            self.is_permutation &= bool(flat) and sorted(map(repr, flat)) == sorted(map(repr, range(1, len(flat) + 1)))
            self.is_square &= all(isinstance(item, list | tuple) and len(item) == len(value) for item in value)
            self.is_record |= len({type(item) for item in value}) > 1

    def number(self, random: Random) -> int | float:
        low, high = min(self.numbers), max(self.numbers)
        if any(isinstance(n, float) for n in self.numbers):
            return round(random.uniform(low, high), 3)
        pools: list[Sequence[int | float]] = []
        if self.stated is not None:
            reach = _FAR * max(abs(low), abs(high), 5)
            least, most = (round(max(min(bound, reach), -reach)) for bound in self.stated)
            pools = [[random.randint(least, most)], [least, min(least + 1, most), most]]
            if random.random() < 0.1 and abs(self.stated[1]) < float("inf"):
                pools = [[round(self.stated[1])]]
        elif self.is_from_one and low > 1:
            low = 1
        near = [n for known in self.numbers for n in (known - 1, known, known + 1) if low <= n <= high]
        pools += [[low, high], near, [random.randint(int(low), int(high))]]
        return random.choice(random.choice(pools))

    def length(self, random: Random) -> int:
        low, high = min(self.lengths), max(self.lengths)
        if self.stated is not None:
            longest = max(self.lengths)
            high = round(min(self.stated[1], max(longest, min(longest + _LONGER, _LONGEST))))
            low = min(round(self.stated[0]), high)
        return random.choice([low, high, random.randint(low, high)])


def is_sorted(values: Sequence[Any]) -> bool:
    """Whether no value is smaller than the one before; False for values that cannot be compared."""
    try:
        return all(a <= b for a, b in itertools.pairwise(values))
    except TypeError:
        return False


class CallMaker:
    """New tests in the shape of one call-based test whose arguments are data."""

    def __init__(self, call: Call, everyone: Sequence[list[Any]], stated: Constraints | None = None) -> None:
        self.call, self.values = call, call.arguments
        self.stated = stated if stated is not None and len(stated.names) == len(call.arguments) else None
        self.domains: dict[tuple[int, int], Domain] = {}
        self.same: list[tuple[int, int]] = []  # arguments of equal length in all tests
        self.counts: list[tuple[int, int]] = []  # (number, list): the number is the list's length in all tests
        alike = [row for row in everyone if len(row) == len(self.values)]
        for row in alike:
            for place, value in enumerate(row):
                self._see(place, 0, value)
        for a in range(len(self.values)):
            for b in range(len(self.values)):
                if a < b and all(_size(row[a]) is not None and _size(row[a]) == _size(row[b]) for row in alike):
                    self.same.append((a, b))
                if len(alike) > 1 and all(_is_int(row[a]) and row[a] == _size(row[b]) for row in alike):
                    self.counts.append((a, b))
        if self.stated is not None:
            self._widen(self.stated)
        else:
            for domain in self.domains.values():
                domain.is_from_one = True

    def _see(self, place: int, depth: int, value: Any) -> None:
        self.domains.setdefault((place, depth), Domain()).see(value)
        if isinstance(value, dict):
            value = [*value, *value.values()]
        if isinstance(value, list | tuple | set):
            for item in value:
                self._see(place, depth + 1, item)

    def _widen(self, stated: Constraints) -> None:
        for (name, depth), bounds in stated.numbers.items():
            domain = self.domains.get((stated.names.index(name), depth))
            if domain is not None and domain.numbers and not domain.lengths:
                domain.stated = (bounds[0], bounds[1])
        for (name, depth), bounds in stated.lengths.items():
            domain = self.domains.get((stated.names.index(name), depth))
            if domain is not None and domain.lengths and not domain.numbers and bounds[0] >= 0:
                domain.stated = (bounds[0], bounds[1])
        for (name, depth), letters in stated.letters.items():
            for (place, deep), domain in self.domains.items():
                if place == stated.names.index(name) and deep >= depth and domain.letters:
                    domain.letters |= letters
        # what is not said may be an accident of the known inputs; what is said is checked
        for domain in self.domains.values():
            domain.is_sorted = domain.is_distinct = False

    def made(self, random: Random) -> Test | None:
        values = [copy.deepcopy(value) for value in self.values]
        changed = random.sample(range(len(values)), random.randint(1, len(values))) if values else []
        fixed = {number for number, _ in self.counts}
        for place in changed:
            if place not in fixed:
                values[place] = self._changed(place, 0, values[place], random)
        for a, b in self.same:
            size = min(len(values[a]), len(values[b]))
            values[a], values[b] = (self._cut(place, values[place], size, random) for place in (a, b))
        for number, counted in self.counts:
            values[number] = len(values[counted])
        if self.stated is not None and not self.stated.hold(values):
            return None
        return self.call.with_arguments(values)

    def _cut(self, place: int, value: Any, size: int, random: Random) -> Any:
        if len(value) > size and isinstance(value, list) and self.domains[place, 0].is_permutation:
            return random.sample(range(1, size + 1), size)
        return value[:size] if isinstance(value, list | tuple | str) else value

    def _changed(self, place: int, depth: int, value: Any, random: Random) -> Any:
        domain = self.domains[place, depth]
        if isinstance(value, bool):
            return random.random() < 0.5
        if isinstance(value, int | float):
            return domain.number(random)
        if isinstance(value, str):
            return _changed_text(value, domain, random)
        if isinstance(value, dict):
            return self._changed_dict(place, depth, value, random)
        if isinstance(value, tuple):
            return tuple(self._changed_list(place, depth, list(value), domain, random))
        if isinstance(value, set):
            try:
                return set(self._changed_list(place, depth, sorted(value, key=repr), domain, random))
            except TypeError:
                return value
        if isinstance(value, list):
            return self._changed_list(place, depth, value, domain, random)
        return value

    def _changed_dict(self, place: int, depth: int, value: dict[Any, Any], random: Random) -> dict[Any, Any]:
        values = list(value.values())
        if random.random() < 0.3:
            random.shuffle(values)
        return {
            key: self._changed(place, depth + 1, item, random) if random.random() < 0.5 else item
            for key, item in zip(value, values, strict=True)
        }

    def _changed_list(self, place: int, depth: int, value: list, domain: Domain, random: Random) -> list:
        if domain.is_record:  # each field its own
            return [self._changed(place, depth + 1, item, random) if random.random() < 0.4 else item for item in value]
        size = domain.length(random)
        if domain.is_permutation:
            return random.sample(range(1, size + 1), size)
        items = list(value)
        if any(isinstance(item, list | tuple) for item in items):
            return self._rows(place, depth, items, domain, size, random)
        while items and len(items) < size:
            items.append(random.choice(value))
        items = items[:size]
        step = random.randrange(4)
        if step == 0:
            random.shuffle(items)
        elif step == 1 and items:
            items = [random.choice(items)] * len(items)
        else:
            for position in range(len(items)):
                if random.random() < (0.3 if step == 2 else 1.0):
                    items[position] = self._changed(place, depth + 1, items[position], random)
        if domain.is_distinct:
            items = list({repr(item): item for item in items}.values())
        if domain.is_sorted or (self.stated is not None and is_sorted(value) and random.random() < 0.3):
            items.sort(key=_sorting_key)
        return items

    def _rows(self, place: int, depth: int, rows: list, domain: Domain, size: int, random: Random) -> list:
        """Rows of a table keep their lengths; there may be fewer or more of them unless the table is square."""
        if not domain.is_square and random.random() < 0.5:
            rows = [random.choice(rows) for _ in range(size)] if random.random() < 0.5 else rows[:size]
        return [self._row(place, depth + 1, row, random) for row in rows]

    def _row(self, place: int, depth: int, row: Any, random: Random) -> Any:
        if not isinstance(row, list | tuple):
            return self._changed(place, depth, row, random)
        made = [self._changed(place, depth + 1, item, random) if random.random() < 0.4 else item for item in row]
        return tuple(made) if isinstance(row, tuple) else made


def _changed_text(value: str, domain: Domain, random: Random) -> str:
    letters = sorted(domain.letters)
    if not letters or random.random() < 0.2:
        return value[::-1]
    if value and random.random() < 0.4:  # a slip in a text that may be a sentence, a date or a formula
        places = list(value)
        places[random.randrange(len(places))] = random.choice(letters)
        return "".join(places)
    few = random.sample(letters, random.randint(1, min(len(letters), 4 if random.random() < 0.7 else len(letters))))
    return "".join(random.choice(few) for _ in range(domain.length(random)))


def _sorting_key(item: Any) -> tuple[bool, Any]:
    return isinstance(item, str), item


def _size(value: Any) -> int | None:
    return len(value) if isinstance(value, list | tuple | str) else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Call:
    """The one call in a test's expression whose arguments are data; what stands around it is kept."""

    test: Test
    arguments: list[Any]
    function: str

    @classmethod
    def of(cls, test: Test) -> Call | None:
        """None where no call can be varied: arguments that are no data, several calls, a wanted value in the call."""
        if test.call is None:
            return None
        try:
            if test.input:
                values = json.loads(test.input)
                name = test.call.partition("(*args)")[0]
                return cls(test, values, name) if isinstance(values, list) and all(map(_is_data, values)) else None
            calls = list(_calls(ast.parse(test.call, mode="eval").body))
            if len(calls) != 1:
                return None
            values = [ast.literal_eval(argument) for argument in calls[0].args]
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
        return cls(test, values, ast.unparse(calls[0].func)) if values and all(map(_is_data, values)) else None

    def with_arguments(self, values: Sequence[Any]) -> Test:
        """The test with other arguments and no output."""
        if self.test.input:
            return Test(input=json.dumps(values), call=self.test.call)
        tree = ast.parse(self.test.call or "", mode="eval")
        (call,) = _calls(tree.body)
        call.args = [ast.parse(source(value), mode="eval").body for value in values]
        return Test(call=ast.unparse(tree))


def _calls(tree: ast.expr) -> Iterator[ast.Call]:
    """The calls of functions that a program may define; none where the expression compares with a wanted value."""
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "bool":
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args or node.keywords:
            continue
        name = ast.unparse(node.func)
        if _CALLED.match(name) and name not in _NO_TARGETS:
            yield node


def _is_data(value: Any) -> bool:
    if isinstance(value, list | tuple | set):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(map(_is_data, [*value, *value.values()]))
    return value is None or isinstance(value, bool | int | float | str)
