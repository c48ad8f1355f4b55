"""The fast checkers against their definitions written down naively, on outputs that differ by a few bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox import checkers
from sandbox.checkers import numbers

_WIDE = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN)  # for exponents such as 1e9007199254740993

SPACES = b" \t\n\r\v\f"


def split(text: bytes) -> list[bytes]:
    return re.findall(rb"[^ \t\n\r\v\f]+", text)


def lines(text: bytes) -> list[list[bytes]]:
    found = [split(line) for line in text.split(b"\n")]
    while found and not found[-1]:
        found.pop()
    return found


def lower(text: bytes) -> bytes:
    return bytes(code + 32 if 65 <= code <= 90 else code for code in text)


def answer(token: bytes) -> bytes:
    return lower(token) if lower(token) in (b"yes", b"no") else token


def close(ours: bytes, theirs: bytes, tolerance: Decimal = Decimal("0.001")) -> bool:
    """Within an absolute or relative tolerance; integers to the digit, as are those of more than 15 digits."""
    plain = rb"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
    if ours == theirs:
        return True
    if not re.fullmatch(plain, ours) or not re.fullmatch(plain, theirs):
        return False
    if re.fullmatch(rb"[+-]?[0-9]+", theirs) and re.fullmatch(rb"[+-]?[0-9]+", ours):
        return int(ours) == int(theirs)
    if re.fullmatch(rb"[+-]?[0-9]{16,}", theirs):
        return False
    a, b = Decimal(ours.decode()), Decimal(theirs.decode())
    with localcontext(_WIDE):
        return abs(a - b) <= max(tolerance, tolerance * abs(b))


def floats(ours: bytes, theirs: bytes) -> bool:
    a, b = split(ours), split(theirs)
    return len(a) == len(b) and all(map(close, a, b))


BY_THE_BOOK: dict[str, Callable[[bytes, bytes], bool]] = {
    "tokens": lambda a, b: split(a) == split(b),
    "lines": lambda a, b: lines(a) == lines(b),
    "exact": lambda a, b: (a[:-1] if a.endswith(b"\n") else a) == (b[:-1] if b.endswith(b"\n") else b),
    "case_insensitive": lambda a, b: split(lower(a)) == split(lower(b)),
    "yes_no": lambda a, b: list(map(answer, split(a))) == list(map(answer, split(b))),
    "unordered_tokens": lambda a, b: Counter(split(a)) == Counter(split(b)),
    "unordered_lines": lambda a, b: (
        Counter(tuple(line) for line in lines(a) if line) == Counter(tuple(line) for line in lines(b) if line)
    ),
    "kattis_default": lambda a, b: split(lower(a)) == split(lower(b)),
    "kattis_default:case_sensitive": lambda a, b: split(a) == split(b),
    "floats:0.001": floats,
}

_PIECES = [
    b"0", b"1", b"-1", b"+1", b"1.0", b"1.", b".5", b"0.5005", b"1e3", b"1000", b"1000.9", b"1001.1", b"1_0", b"01",
    b"YES", b"Yes", b"no", b"nO", b"maybe", b"x", b"X", b"9007199254740993", b"9007199254740992", b"0x10", b"\xff",
    b"\0", b"\xc2\xa0", b"\xd9\xa5", b"\xc3\x89", b"\xc3\xa9", b"e", b".", b"-", b"1e", b"00.50",
]  # fmt: skip
_GAPS = [b" ", b"\n", b"\r\n", b"  ", b"\t", b" \n", b"\n ", b"\n\n", b"\v", b"\f", b"\r", b""]
_text = st.lists(st.tuples(st.sampled_from(_PIECES), st.sampled_from(_GAPS)), max_size=6).map(
    lambda pairs: b"".join(piece + gap for piece, gap in pairs)
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two texts, of which the second is the first with up to two pieces replaced, dropped, moved or put in."""
    expected = draw(_text)
    output = expected
    for _ in range(draw(st.integers(0, 2))):
        at, upto = sorted((draw(st.integers(0, len(output))), draw(st.integers(0, len(output)))))
        put = draw(st.sampled_from([*_PIECES, *_GAPS, output[at:upto].swapcase()]))
        output = output[:at] + put + output[draw(st.sampled_from([at, upto])) :]
    return output, expected


@settings(deadline=None, max_examples=400)
@given(pairs())
@example((b"1\r2", b"1\n2"))
@example((b"1 \r\n\r\n", b"1"))
@example((b"", b"\n\n"))
@example((b"1e9007199254740993", b"1"))
@example((b"1", b"1e9007199254740993"))
def test_checkers_accept_what_their_definitions_accept(pair: tuple[bytes, bytes]) -> None:
    output, expected = pair
    for spec, accepts in BY_THE_BOOK.items():
        message = checkers.find(spec).compare(output, expected)
        assert (message is None) is accepts(output, expected), (spec, message)
        assert message is None or ("\n" not in message and len(message) < 100)


@settings(deadline=None, max_examples=200)
@given(pairs())
def test_numbers_compared_all_at_once_come_out_as_one_by_one(pair: tuple[bytes, bytes]) -> None:
    output, expected = pair
    compare = checkers.find("floats:0.001").compare
    few = compare(output, expected)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(numbers, "_MANY", 0)
        assert compare(output, expected) == few


@settings(deadline=None, max_examples=200)
@given(pairs())
def test_a_stricter_checker_accepts_nothing_that_a_looser_one_refuses(pair: tuple[bytes, bytes]) -> None:
    def accepts(spec: str) -> bool:
        return checkers.find(spec).compare(*pair) is None

    for strict, loose in (
        ("exact", "tokens"), ("lines", "tokens"), ("tokens", "floats"), ("tokens", "yes_no"), ("tokens", "floats:0"),
        ("yes_no", "case_insensitive"), ("tokens", "unordered_tokens"), ("lines", "unordered_lines"),
        ("unordered_lines", "unordered_tokens"), ("tokens", "kattis_default"), ("floats:1e-9", "floats:1e-3"),
        ("floats_abs:1e-3", "floats:1e-3"), ("floats_rel:1e-3", "floats:1e-3"),
        ("kattis_default:space_change_sensitive case_sensitive", "kattis_default"),
    ):  # fmt: skip
        assert not accepts(strict) or accepts(loose), (strict, loose)
