"""New test inputs made from a problem's own: other values in the same shape.

What holds in every input at hand is kept, because a statement's constraints cannot be read reliably: which tokens are
numbers, the range of values, sortedness, distinctness, equal lengths, and which number is the length of which list.
So the inputs are likely to be valid, never certain to be; `strengthen` asks accepted solutions and their agreement.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from data_curation.schema import Test

_INTEGER = re.compile(r"-?\d{1,18}")
_CALL = re.compile(r"^[A-Za-z_][\w.()]*$")


def mutated_inputs(tests: Sequence[Test], count: int, seed: int = 0) -> list[Test]:
    """Up to `count` new tests without an expected output, none with the input of a test at hand."""
    random = Random(seed)
    known = {_key(test) for test in tests}
    found: list[Test] = []
    makers = [maker for test in tests if (maker := _maker(test, tests)) is not None]
    for _ in range(4 * count):
        if not makers or len(found) == count:
            break
        new = random.choice(makers).made(random)
        if new is not None and _key(new) not in known:
            known.add(_key(new))
            found.append(new)
    return found


def _key(test: Test) -> tuple[str, str | None]:
    return " ".join(test.input.split()), test.call


@dataclass
class _Domain:
    """Values seen at one place of all inputs of a shape, and what holds of all of them."""

    numbers: list[int | float] = field(default_factory=list)
    letters: set[str] = field(default_factory=set)
    lengths: list[int] = field(default_factory=list)
    is_sorted: bool = True
    is_distinct: bool = True
    is_permutation: bool = True

    def see(self, value: Any) -> None:
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, int | float):
            self.numbers.append(value)
        elif isinstance(value, str):
            self.letters |= set(value)
            self.lengths.append(len(value))
        elif isinstance(value, list):
            self.lengths.append(len(value))
            flat = [item for item in value if isinstance(item, int | float | str)]
            self.is_sorted &= len(flat) == len(value) and _sorted(flat)
            self.is_distinct &= len(flat) == len(value) and len(set(map(repr, flat))) == len(flat)
            self.is_permutation &= bool(flat) and sorted(map(repr, flat)) == sorted(map(repr, range(1, len(flat) + 1)))

    def number(self, random: Random) -> int | float:
        low, high = min(self.numbers), max(self.numbers)
        if any(isinstance(n, float) for n in self.numbers):
            return round(random.uniform(low, high), 3)
        near = [n for known in self.numbers for n in (known - 1, known, known + 1) if low <= n <= high]
        pools: list[Sequence[int | float]] = [[low, high], near, [random.randint(int(low), int(high))]]
        return random.choice(random.choice(pools))

    def length(self, random: Random) -> int:
        return random.choice(
            [min(self.lengths), max(self.lengths), random.randint(min(self.lengths), max(self.lengths))]
        )


def _sorted(values: Sequence[Any]) -> bool:
    try:
        return all(a <= b for a, b in itertools.pairwise(values))
    except TypeError:
        return False


class _Arguments:
    """Call-based tests whose arguments are data: `f(*args)` with a JSON list, or a call with literal arguments."""

    def __init__(self, test: Test, values: list[Any], everyone: Sequence[list[Any]]) -> None:
        self.test, self.values = test, values
        self.domains: dict[tuple[int, int], _Domain] = {}
        self.same: list[tuple[int, int]] = []  # arguments of equal length in all tests
        self.counts: list[tuple[int, int]] = []  # (number, list): the number is the list's length in all tests
        alike = [row for row in everyone if len(row) == len(values)]
        for row in alike:
            for place, value in enumerate(row):
                self._see(place, 0, value)
        for a in range(len(values)):
            for b in range(len(values)):
                if a < b and all(_size(row[a]) is not None and _size(row[a]) == _size(row[b]) for row in alike):
                    self.same.append((a, b))
                if len(alike) > 1 and all(_is_int(row[a]) and row[a] == _size(row[b]) for row in alike):
                    self.counts.append((a, b))

    def _see(self, place: int, depth: int, value: Any) -> None:
        self.domains.setdefault((place, depth), _Domain()).see(value)
        if isinstance(value, list):
            for item in value:
                self._see(place, depth + 1, item)

    def made(self, random: Random) -> Test | None:
        values = list(self.values)
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
        return self._test(values)

    def _cut(self, place: int, value: Any, size: int, random: Random) -> Any:
        if len(value) > size and isinstance(value, list) and self.domains[place, 0].is_permutation:
            return random.sample(range(1, size + 1), size)
        return value[:size]

    def _changed(self, place: int, depth: int, value: Any, random: Random) -> Any:
        domain = self.domains[place, depth]
        if isinstance(value, bool):
            return random.random() < 0.5
        if isinstance(value, int | float):
            return domain.number(random)
        if isinstance(value, str):
            letters = sorted(domain.letters)
            if not letters or random.random() < 0.2:
                return value[::-1]
            few = random.sample(letters, random.randint(1, len(letters)))
            return "".join(random.choice(few) for _ in range(domain.length(random)))
        if isinstance(value, list):
            return self._changed_list(place, depth, value, domain, random)
        return value

    def _changed_list(self, place: int, depth: int, value: list, domain: _Domain, random: Random) -> list:
        size = domain.length(random)
        if domain.is_permutation:
            return random.sample(range(1, size + 1), size)
        items = list(value)
        if any(isinstance(item, list) for item in items):  # rows of a table keep their lengths
            return [self._row(place, depth + 1, item, random) for item in items]
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
        if domain.is_sorted:
            items.sort()
        return items

    def _row(self, place: int, depth: int, row: Any, random: Random) -> Any:
        if not isinstance(row, list):
            return self._changed(place, depth, row, random)
        return [self._changed(place, depth + 1, item, random) if random.random() < 0.4 else item for item in row]

    def _test(self, values: list[Any]) -> Test:
        if self.test.input:
            return Test(input=json.dumps(values), call=self.test.call)
        tree = ast.parse(self.test.call or "", mode="eval").body
        assert isinstance(tree, ast.Call)
        text = f"{ast.unparse(tree.func)}({', '.join(map(repr, values))})"
        return Test(call=text)


def _size(value: Any) -> int | None:
    return len(value) if isinstance(value, list | str) else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _arguments(test: Test) -> list[Any] | None:
    """The arguments of a call-based test as data; None if they are not plain lists, numbers and texts."""
    if test.call is None:
        return None
    try:
        if test.input:
            values = json.loads(test.input)
        else:
            tree = ast.parse(test.call, mode="eval").body
            if not isinstance(tree, ast.Call) or tree.keywords or not _CALL.match(ast.unparse(tree.func)):
                return None
            values = [ast.literal_eval(argument) for argument in tree.args]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return values if isinstance(values, list) and all(map(_is_plain, values)) else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


class _Lines:
    """Standard input as lines of tokens; a number that always counts a line's tokens or the lines below stays true."""

    def __init__(self, test: Test, everyone: Sequence[list[list[str]]]) -> None:
        self.lines = _token_lines(test.input)
        self.domains: dict[tuple[int, int], _Domain] = {}
        alike = [lines for lines in everyone if _shape(lines) == _shape(self.lines)] or [self.lines]
        for lines in everyone:
            for row, tokens in enumerate(lines):
                for column, token in enumerate(tokens):
                    if _INTEGER.fullmatch(token):
                        self._domain(row, column, len(tokens)).see(int(token))
                    else:
                        self._domain(row, column, len(tokens)).see(token)
        self.fixed = {
            (row, column)
            for row, tokens in enumerate(self.lines)
            for column, token in enumerate(tokens)
            if _INTEGER.fullmatch(token) and all(_is_count(lines, row, column) for lines in alike)
        }

    def _domain(self, row: int, column: int, width: int) -> _Domain:
        # a long line is a list: its tokens share a domain; below the first lines, lines are rows of a table
        return self.domains.setdefault((min(row, 3), column if width <= 3 else -1), _Domain())

    def made(self, random: Random) -> Test | None:
        lines = [list(tokens) for tokens in self.lines]
        share = random.choice((0.15, 0.5, 1.0))
        for row, tokens in enumerate(lines):
            if len(tokens) > 3 and random.random() < 0.3:  # a list: in another order, or all alike
                if random.random() < 0.5:
                    random.shuffle(tokens)
                else:
                    tokens[:] = [random.choice(tokens)] * len(tokens)
                if len(self.lines[row]) > 3 and _sorted([_value(t) for t in self.lines[row]]):
                    tokens.sort(key=_value)
                continue
            for column, token in enumerate(tokens):
                if (row, column) not in self.fixed and random.random() < share:
                    tokens[column] = self._token(row, column, len(tokens), token, random)
        return Test(input="\n".join(" ".join(tokens) for tokens in lines) + "\n")

    def _token(self, row: int, column: int, width: int, token: str, random: Random) -> str:
        domain = self._domain(row, column, width)
        if _INTEGER.fullmatch(token):
            return str(domain.number(random))
        letters = sorted(domain.letters)
        few = random.sample(letters, random.randint(1, len(letters)))
        return "".join(random.choice(few) for _ in token)


def _value(token: str) -> Any:
    return int(token) if _INTEGER.fullmatch(token) else token


def _shape(lines: Sequence[Sequence[str]]) -> tuple[int, ...]:
    return tuple(map(len, lines))


def _is_count(lines: Sequence[Sequence[str]], row: int, column: int) -> bool:
    if not _INTEGER.fullmatch(lines[row][column]):
        return False
    value = int(lines[row][column])
    below = len(lines) - row - 1
    widths = {len(tokens) for tokens in lines[row + 1 : row + 3]}
    lengths = {len(token) for tokens in lines[row + 1 : row + 3] for token in tokens}
    return value in {below, *widths} or (value in lengths and value > 1) or (value > 1 and below % value == 0 == column)


def _token_lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip("\n").split("\n")]


def _maker(test: Test, tests: Sequence[Test]) -> _Arguments | _Lines | None:
    if test.call is None:
        everyone = [_token_lines(other.input) for other in tests if other.call is None]
        return _Lines(test, everyone) if test.input.strip() else None
    values = _arguments(test)
    if not values:
        return None
    return _Arguments(test, values, list(_other_arguments(test, tests)))


def _other_arguments(test: Test, tests: Sequence[Test]) -> Iterator[list[Any]]:
    name = (test.call or "").partition("(")[0]
    for other in tests:
        if (other.call or "").partition("(")[0] == name and (values := _arguments(other)) is not None:
            yield values
