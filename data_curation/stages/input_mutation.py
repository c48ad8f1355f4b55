"""New test inputs made from a problem's own: other values in the same shape.

What holds in every input at hand is kept, because a statement's constraints cannot be read reliably: which tokens are
numbers, the range of values, sortedness, distinctness, equal lengths, and which number is the length of which list.
So the inputs are likely to be valid, never certain to be; `strengthen` asks accepted solutions and their agreement.
Call-based tests are varied by `argument_mutation`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Any

from data_curation.schema import Test
from data_curation.stages.argument_mutation import Call, CallMaker, Domain, is_sorted
from data_curation.stages.stated_constraints import Constraints

_INTEGER = re.compile(r"-?\d{1,18}")


def mutated_inputs(tests: Sequence[Test], count: int, seed: int = 0, stated: Constraints | None = None) -> list[Test]:
    """Up to `count` new tests without an expected output, none with the input of a test at hand.

    `stated` are constraints of a function's arguments that the statement sets and that could all be read.
    """
    random = Random(seed)
    known = {_key(test) for test in tests}
    found: list[Test] = []
    makers = [maker for test in tests if (maker := _maker(test, tests, stated)) is not None]
    for _ in range((20 if stated is not None else 4) * count):
        if not makers or len(found) == count:
            break
        new = random.choice(makers).made(random)
        if new is not None and _key(new) not in known:
            known.add(_key(new))
            found.append(new)
    return found


def _key(test: Test) -> tuple[str, str | None]:
    return " ".join(test.input.split()), test.call


class _Lines:
    """Standard input as lines of tokens; a number that always counts a line's tokens or the lines below stays true."""

    def __init__(self, test: Test, everyone: Sequence[list[list[str]]]) -> None:
        self.lines = _token_lines(test.input)
        self.domains: dict[tuple[int, int], Domain] = {}
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

    def _domain(self, row: int, column: int, width: int) -> Domain:
        # a long line is a list: its tokens share a domain; below the first lines, lines are rows of a table
        return self.domains.setdefault((min(row, 3), column if width <= 3 else -1), Domain())

    def made(self, random: Random) -> Test | None:
        lines = [list(tokens) for tokens in self.lines]
        share = random.choice((0.15, 0.5, 1.0))
        for row, tokens in enumerate(lines):
            if len(tokens) > 3 and random.random() < 0.3:  # a list: in another order, or all alike
                if random.random() < 0.5:
                    random.shuffle(tokens)
                else:
                    tokens[:] = [random.choice(tokens)] * len(tokens)
                if len(self.lines[row]) > 3 and is_sorted([_value(t) for t in self.lines[row]]):
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


def _maker(test: Test, tests: Sequence[Test], stated: Constraints | None) -> CallMaker | _Lines | None:
    if test.call is None:
        everyone = [_token_lines(other.input) for other in tests if other.call is None]
        return _Lines(test, everyone) if test.input.strip() else None
    call = Call.of(test)
    if call is None:
        return None
    others = [other for other in map(Call.of, tests) if other is not None and other.function == call.function]
    return CallMaker(call, [other.arguments for other in others], stated)
