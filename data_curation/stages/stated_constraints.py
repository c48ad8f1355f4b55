"""What a statement's "Constraints:" section says of a function's arguments, as checks that can be run.

Read are comparisons over the parameters (`1 <= nums.length <= 10^5`, `0 <= edges[i][j] < n`, `n == grid[i].length`)
and the usual sentences (letters, digits, one of some values, distinct, sorted). What cannot be read is kept as text:
whoever makes inputs must know that there is something they may break. Published copies often lose the height of
exponents (10^4 becomes 104), which makes upper bounds too small and never too large.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
import string
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

Arguments = Mapping[str, Any]
Check = Callable[[Arguments], bool]

_SECTION = re.compile(r"^\W*Constraints?\b\W*$(.*?)(?=^\W*(?:Follow.?up|Notes?|Example)\b|\Z)", re.M | re.S | re.I)
_PROMISE = re.compile(
    r"guarantee|(?:may|can) assume|generated (?:such|so) that|there (?:is|will be) (?:always|exactly)|"
    r"always (?:exists?|possible)",
    re.I,
)
_HARMLESS = re.compile(r"\bfits?\b", re.I)  # of the answer into a type
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}
_SIGNS = {"\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "\u2212": "-", "\u00d7": "*", "^": "**"}
_LOST_HEIGHT = re.compile(r"\b10([1-9])\b")
_COMPARISON = re.compile(r"(<=|>=|==|!=|<|>)")
_COMMA = re.compile(r",(?![^\[(]*[\])])")
_LARGEST_POWER = 64
_NAME = r"[A-Za-z_]\w*(?:\[\w+\])*(?:\.length)?"
_NAMES = rf"{_NAME}(?:,? (?:and )?{_NAME})*"
_LOWER, _UPPER = "lower-? ?case", "upper-? ?case"
_ALPHABETS = (
    (rf"{_LOWER} English letters|English {_LOWER} letters", string.ascii_lowercase),
    (rf"{_UPPER} English letters|English {_UPPER} letters", string.ascii_uppercase),
    (
        rf"(?:{_UPPER} (?:and|or) {_LOWER} |{_LOWER} (?:and|or) {_UPPER} )?English letters",
        string.ascii_letters,
    ),
    ("digits", string.digits),
    (rf"{_LOWER} English letters and digits", string.ascii_lowercase + string.digits),
)
_ONLY = "(?:only )?"
_LETTERS = [
    (
        re.compile(
            rf"(?P<names>{_NAMES}) {_ONLY}(?:consists?|contains?) {_ONLY}(?:of )?{_ONLY}(?:{form})(?: only|)",
        ),
        set(alphabet),
    )
    for form, alphabet in _ALPHABETS
]
_LETTER = re.compile(rf"(?P<names>{_NAMES}) (?:is|are) (?:a )?lower-? ?case English letters?")
_ONE_OF = re.compile(rf"(?P<names>{_NAMES}) (?:is|are) (?:either )?(?P<values>\S+(?:, \S+)*,? or \S+)")
_DISTINCT = (
    re.compile(
        rf"All (?:the |of the )?(?:values|integers|elements|strings|numbers|words|characters)? ?(?:of|in)? ?"
        rf"(?P<names>{_NAMES}) are (?:unique|distinct|pairwise distinct)"
    ),
    re.compile(
        rf"(?:The )?(?:values|integers|elements|strings|numbers|words) (?:of|in) (?P<names>{_NAMES}) are "
        r"(?:unique|distinct)"
    ),
    re.compile(rf"(?P<names>{_NAMES}) (?:contains|consists of) (?:only )?(?:distinct|unique) \w+"),
)
_SORTED = re.compile(
    rf"(?P<names>{_NAMES}) (?:is|are) (?:sorted in )?(?:an? )?(?P<how>ascending|non-decreasing|increasing|"
    r"strictly increasing)(?: order)?"
)
_PARITY = re.compile(rf"(?P<names>{_NAMES}) is (?:an? )?(?P<which>even|odd)(?: number)?")
_PARTS = re.compile(r"(\w+)\[[ij]\] = [\[(](\w+(?:, ?\w+)+)[\])]")

_ROWS = re.compile(r"(\w+)\[[ij]\] == [\[(](\w+(?:, ?\w+)+)[\])]")


class _Unread(ValueError):
    """A constraint that is not of the forms read here."""


@dataclass(frozen=True)
class _Values:
    """What a term stands for: one value, or all that stand at an index of the list `along` (None: one value)."""

    values: list[Any]
    along: tuple[str, int] | None = None


@dataclass
class Constraints:
    """The checks of a section, the bounds that are plain numbers, and the lines that could not be read."""

    names: tuple[str, ...]
    checks: list[Check] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    numbers: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # (name, depth) -> [least, largest]
    lengths: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    letters: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    def hold(self, values: Sequence[Any]) -> bool:
        """Whether arguments (in the order of `names`) keep what was read."""
        arguments = dict(zip(self.names, values, strict=True))
        try:
            return all(check(arguments) for check in self.checks)
        except (TypeError, IndexError, ZeroDivisionError, OverflowError, _Unread):
            return False


def stated_constraints(statement: str, names: Sequence[str], known: Sequence[Sequence[Any]] = ()) -> Constraints | None:
    """The constraints a statement sets its function's parameters; None if it has no such section.

    `known` are arguments that are certain to be right: a line that they break was misread and counts as unread.
    """
    sections = _SECTION.findall(statement)
    if not sections:
        return None
    found = Constraints(tuple(names))
    lines = [_plain(line) for line in sections[-1].split("\n")]
    aliases = _aliases([line for line in lines if line], names)
    parts = {
        part: (base, place)
        for base, row in _PARTS.findall(statement)
        if base in names
        for place, part in enumerate(re.split(r", ?", row))
    }
    for line in filter(None, lines):
        # a bound that known arguments break has lost the height of its exponent
        for reading in dict.fromkeys((line, _LOST_HEIGHT.sub(r"10**\1", line))):
            if _is_read(reading, found, aliases, parts, known):
                break
        else:
            found.unread.append(line)
    return found


def _is_read(
    line: str,
    found: Constraints,
    aliases: dict[str, str],
    parts: dict[str, tuple[str, int]],
    known: Sequence[Sequence[Any]],
) -> bool:
    """Whether the line could be read and known arguments keep it; its checks and bounds are then in `found`."""
    new = Constraints(found.names)
    try:
        _read(line, new, aliases, parts)
    except (_Unread, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if not all(len(row) == len(found.names) and new.hold(row) for row in known):
        return False
    found.checks += new.checks
    found.letters |= new.letters
    for mine, others in ((found.numbers, new.numbers), (found.lengths, new.lengths)):
        for place, (least, largest) in others.items():
            before = mine.setdefault(place, [least, largest])
            before[:] = [max(before[0], least), min(before[1], largest)]
    return True


def promises(statement: str) -> list[str]:
    """Sentences outside the examples that promise something of the inputs which no check here can keep."""
    text = re.split(r"^\W*Example\b", statement, maxsplit=1, flags=re.M)[0]
    tail = "".join(_SECTION.findall(statement)[-1:])
    sentences = re.split(r"(?<=[.!?])\s+|\n", f"{text}\n{tail}")
    return [s.strip() for s in sentences if _PROMISE.search(s) and not _HARMLESS.search(s)]


def _plain(line: str) -> str:
    text = re.sub(r"^(?:[-*•] )+", "", line.strip()).rstrip(".").replace("`", "")
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    text = re.sub(r"(?<![<>=!])=(?!=)", "==", text)
    return " ".join(text.split())


def _aliases(lines: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Names that a line such as `n == nums.length` introduces -> what they stand for."""
    found: dict[str, str] = {}
    for line in lines:
        sides = [side.strip() for side in line.split("==")]
        if len(sides) < 2 or _COMPARISON.search("".join(sides)):
            continue
        new = [side for side in sides if side.isidentifier() and side not in names]
        known = [side for side in sides if re.match(r"\w+", side) and re.match(r"\w+", side)[0] in names]  # type: ignore[index]
        for name in new:
            if known:
                found.setdefault(name, known[0])
    return found


def _read(line: str, found: Constraints, aliases: dict[str, str], parts: dict[str, tuple[str, int]]) -> None:
    if (match := _ROWS.fullmatch(line)) and match[1] in found.names:
        base, width = match[1], match[2].count(",") + 1
        found.checks.append(lambda arguments: all(len(row) == width for row in arguments[base]))
        return
    pieces = _COMPARISON.split(line)
    if len(pieces) > 1:
        sides = [[_term(text, found.names, aliases, parts) for text in _COMMA.split(side)] for side in pieces[::2]]
        for place, sign in enumerate(pieces[1::2]):
            for left, right in itertools.product(sides[place], sides[place + 1]):
                found.checks.append(_comparison(left, sign, right))
                _note_bounds(found, left, sign, right)
        return
    for names, check, letters in _sentences(line):
        for name in re.split(r",? and |, ", names):
            term = _term(name, found.names, aliases, parts)
            found.checks.append(_each(term, check))
            where = _place(term.node)
            if letters is not None and where is not None:
                found.letters[where] = letters
        return
    raise _Unread(line)


def _sentences(line: str) -> Iterator[tuple[str, Callable[[Any], bool], set[str] | None]]:
    for pattern, alphabet in _LETTERS:
        if match := pattern.fullmatch(line):
            yield match["names"], partial(_consists, alphabet), alphabet
    if match := _LETTER.fullmatch(line):
        lower = set(string.ascii_lowercase)
        yield match["names"], lambda value: _consists(lower, value) and len(value) == 1, lower
    if match := _ONE_OF.fullmatch(line):
        values = [ast.literal_eval(text) for text in re.split(r",? or |, ", match["values"])]
        texts = {value for value in values if isinstance(value, str)}
        yield match["names"], lambda value: value in values, texts if len(texts) == len(values) else None
    for pattern in _DISTINCT:
        if match := pattern.fullmatch(line):
            yield match["names"], _is_distinct, None
    if match := _SORTED.fullmatch(line):
        compare = operator.lt if match["how"].startswith(("strictly", "increasing")) else operator.le
        yield match["names"], lambda value: all(compare(a, b) for a, b in itertools.pairwise(value)), None
    if match := _PARITY.fullmatch(line):
        rest = int(match["which"] == "odd")
        yield match["names"], lambda value: value % 2 == rest, None


def _consists(alphabet: set[str], value: Any) -> bool:
    if isinstance(value, list):
        return all(_consists(alphabet, item) for item in value)
    return isinstance(value, str) and set(value) <= alphabet


def _is_distinct(value: Any) -> bool:
    if not isinstance(value, list | str):
        raise _Unread("distinct what?")
    return len(set(map(repr, value))) == len(value)


@dataclass(frozen=True)
class _Term:
    node: ast.expr
    names: tuple[str, ...]
    aliases: Mapping[str, str]
    parts: Mapping[str, tuple[str, int]]

    def of(self, arguments: Arguments) -> _Values:
        return self._value(self.node, arguments, 0)

    def _value(self, node: ast.expr, arguments: Arguments, deep: int) -> _Values:
        if deep > 20:
            raise _Unread("defined by itself")
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return _Values([node.value])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = self._value(node.operand, arguments, deep + 1)
            return _Values([-value for value in inner.values], inner.along)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            left, right = (self._value(side, arguments, deep + 1) for side in (node.left, node.right))
            if left.along or right.along or (isinstance(node.op, ast.Pow) and abs(right.values[0]) > _LARGEST_POWER):
                raise _Unread("arithmetic of lists")
            return _Values([_ARITHMETIC[type(node.op)](left.values[0], right.values[0])])
        if isinstance(node, ast.Name):
            if node.id in self.names:
                return _Values([arguments[node.id]])
            if node.id in self.parts:
                base, place = self.parts[node.id]
                return _Values([row[place] for row in arguments[base]], (base, 1))
            if node.id in self.aliases:
                inner = self._value(_parsed(self.aliases[node.id]), arguments, deep + 1)
                if inner.along and len(set(map(repr, inner.values))) == 1:
                    return _Values(inner.values[:1])  # n == grid[i].length
                return inner
        if isinstance(node, ast.Attribute) and node.attr == "length":
            inner = self._value(node.value, arguments, deep + 1)
            return _Values([len(value) for value in inner.values], inner.along)
        if isinstance(node, ast.Subscript):
            inner = self._value(node.value, arguments, deep + 1)
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
                return _Values([value[node.slice.value] for value in inner.values], inner.along)
            if isinstance(node.slice, ast.Name) and node.slice.id in ("i", "j", "k", "l", "r"):
                base, depth = inner.along or (ast.unparse(node.value), 0)
                return _Values([item for value in inner.values for item in value], (base, depth + 1))
        raise _Unread(ast.unparse(node))


def _term(text: str, names: tuple[str, ...], aliases: Mapping[str, str], parts: Mapping[str, tuple[str, int]]) -> _Term:
    node = _parsed(text)
    for inner in ast.walk(node):
        is_index = isinstance(inner, ast.Name) and inner.id in ("i", "j", "k", "l", "r")
        if isinstance(inner, ast.Name) and not is_index and inner.id not in {*names, *aliases, *parts}:
            raise _Unread(text)
    return _Term(node, names, aliases, parts)


def _parsed(text: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text.strip(), mode="eval").body


def _comparison(left: _Term, sign: str, right: _Term) -> Check:
    compare = _OPERATORS[sign]

    def check(arguments: Arguments) -> bool:
        a, b = left.of(arguments), right.of(arguments)
        if a.along is not None and b.along is not None:
            if a.along != b.along or len(a.values) != len(b.values):
                raise _Unread("two lists")
            return all(map(compare, a.values, b.values))
        return all(compare(x, y) for x in a.values for y in b.values)

    return check


def _each(term: _Term, check: Callable[[Any], bool]) -> Check:
    return lambda arguments: all(check(value) for value in term.of(arguments).values)


def _place(node: ast.expr) -> tuple[str, int] | None:
    """(parameter, depth) of a plain term such as `nums[i]`; None for others."""
    depth = 0
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name):
        node, depth = node.value, depth + 1
    return (node.id, depth) if isinstance(node, ast.Name) else None


def _note_bounds(found: Constraints, left: _Term, sign: str, right: _Term) -> None:
    """Keeps the bound of a term beside a number that needs no arguments."""
    if sign in ("==", "!="):
        return
    small, large = (left, right) if sign[0] == "<" else (right, left)
    _note(found, large, small, 0, len(sign) == 1)
    _note(found, small, large, 1, len(sign) == 1)


def _note(found: Constraints, term: _Term, other: _Term, side: int, is_strict: bool) -> None:
    try:
        (bound,) = other.of({}).values
    except (KeyError, _Unread):
        return
    node = term.node
    if isinstance(node, ast.Name) and node.id in term.aliases and node.id not in found.names:
        node = _parsed(term.aliases[node.id])
    is_length = isinstance(node, ast.Attribute) and node.attr == "length"
    place = _place(node.value if isinstance(node, ast.Attribute) else node)
    if place is None or place[0] not in found.names:
        return
    bounds = (found.lengths if is_length else found.numbers).setdefault(place, [float("-inf"), float("inf")])
    if side == 0:
        bounds[0] = max(bounds[0], bound + is_strict)
    else:
        bounds[1] = min(bounds[1], bound - is_strict)
