"""Checkers on bytes: tokens, lines, exact, folded case, any order. Only ASCII white space separates.

Outputs of megabytes are common: tokens and lines are compared as whole texts after their white space has been made
alike, and only the place of the first difference is searched for.
"""

from __future__ import annotations

from collections import Counter

_TO_SPACE = bytes.maketrans(b"\t\n\r\v\f", b"     ")
_TO_SPACE_IN_LINE = bytes.maketrans(b"\t\r\v\f", b"    ")


def tokens(output: bytes, expected: bytes) -> str | None:
    """Same sequence of tokens, whatever white space separates them."""
    if output == expected:
        return None
    return _difference(squeezed(output), squeezed(expected), b" ", "token")


def lines(output: bytes, expected: bytes) -> str | None:
    """Same tokens line by line; blank lines at the end are ignored."""
    if output == expected:
        return None
    return _difference(_squeezed_lines(output), _squeezed_lines(expected), b"\n", "line")


def exact(output: bytes, expected: bytes) -> str | None:
    """Same bytes, but for one newline at the end."""
    ours, theirs = output.removesuffix(b"\n"), expected.removesuffix(b"\n")
    if ours == theirs:
        return None
    position = _first_differing_byte(ours, theirs)
    if position < min(len(ours), len(theirs)):
        return f"differs at byte {position + 1}"
    return f"{len(ours)} bytes printed, {len(theirs)} expected"


def case_insensitive(output: bytes, expected: bytes) -> str | None:
    """Same sequence of tokens when ASCII letters are folded."""
    return tokens(output.lower(), expected.lower())


def yes_no(output: bytes, expected: bytes) -> str | None:
    """Same sequence of YES and NO in any case. Other tokens must be equal to the letter."""
    if output == expected:
        return None
    ours, theirs = (b" ".join(map(_fold_answer, text.split())) for text in (output, expected))
    return _difference(ours, theirs, b" ", "token")


def unordered_lines(output: bytes, expected: bytes) -> str | None:
    """Same lines (as token sequences), in any order, each as often; blank lines are ignored."""
    if output == expected:
        return None
    ours, theirs = (_squeezed_lines(text).split(b"\n") for text in (output, expected))
    return _multiset(Counter(filter(None, ours)), Counter(filter(None, theirs)), "line")


def unordered_tokens(output: bytes, expected: bytes) -> str | None:
    """Same tokens in any order, each as often."""
    if output == expected:
        return None
    return _multiset(Counter(output.split()), Counter(expected.split()), "token")


def squeezed(text: bytes) -> bytes:
    """The tokens of `text` with one space between them."""
    return _single_spaces(text.translate(_TO_SPACE)).strip(b" ")


def count_difference(ours: int, theirs: int, what: str) -> str | None:
    """None when the counts agree, else a line that names both."""
    if ours == theirs:
        return None
    if not ours:
        return "no output"
    return f"{ours} {what}s printed, {theirs} expected"


def _squeezed_lines(text: bytes) -> bytes:
    """The tokens of `text`, one space between those of a line; no blank lines at the end."""
    text = _single_spaces(text.replace(b"\r\n", b"\n").translate(_TO_SPACE_IN_LINE))
    return text.replace(b" \n", b"\n").replace(b"\n ", b"\n").removeprefix(b" ").rstrip(b" \n")


def _single_spaces(text: bytes) -> bytes:
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _difference(ours: bytes, theirs: bytes, separator: bytes, what: str) -> str | None:
    """Where two texts of `separator`-separated parts first differ."""
    if ours == theirs:
        return None
    if not ours:
        return "no output"
    at = _first_differing_byte(ours, theirs)
    shorter, longer = sorted((ours, theirs), key=len)
    if at == len(shorter) and (not shorter or longer[at : at + 1] == separator):
        return count_difference(_count(ours, separator), _count(theirs, separator), what)
    return f"{what} {ours.count(separator, 0, at) + 1} differs"


def _count(text: bytes, separator: bytes) -> int:
    return text.count(separator) + 1 if text else 0


def _first_differing_byte(ours: bytes, theirs: bytes) -> int:
    """Index of the first byte that differs; the shorter length where one text begins the other."""
    low, high = 0, min(len(ours), len(theirs))
    if ours[:high] == theirs[:high]:
        return high
    while high - low > 1:  # halves: all in all no more than twice the text is compared
        middle = (low + high) // 2
        if ours[low:middle] == theirs[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _fold_answer(token: bytes) -> bytes:
    folded = token.upper()
    return folded if folded in (b"YES", b"NO") else token


def _multiset(ours: Counter, theirs: Counter, what: str) -> str | None:
    if ours == theirs:
        return None
    if not ours:
        return "no output"
    surplus = (ours - theirs).total()
    missing = (theirs - ours).total()
    return f"{surplus} {what}s too many, {missing} missing"
