"""Checkers on bytes: tokens, lines, exact, folded case, any order. Only ASCII white space separates."""

from __future__ import annotations

from collections import Counter


def tokens(output: bytes, expected: bytes) -> str | None:
    """Same sequence of tokens, whatever white space separates them."""
    if output == expected:
        return None
    return _first_difference(output.split(), expected.split(), "token")


def lines(output: bytes, expected: bytes) -> str | None:
    """Same tokens line by line; blank lines at the end are ignored."""
    if output == expected:
        return None
    ours = [line.split() for line in output.replace(b"\r\n", b"\n").rstrip().split(b"\n")]
    theirs = [line.split() for line in expected.replace(b"\r\n", b"\n").rstrip().split(b"\n")]
    return _first_difference(ours, theirs, "line")


def exact(output: bytes, expected: bytes) -> str | None:
    """Same bytes, but for one newline at the end."""
    ours, theirs = output.removesuffix(b"\n"), expected.removesuffix(b"\n")
    if ours == theirs:
        return None
    for position, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            return f"differs at byte {position + 1}"
    return f"{len(ours)} bytes printed, {len(theirs)} expected"


def case_insensitive(output: bytes, expected: bytes) -> str | None:
    """Same sequence of tokens when ASCII letters are folded."""
    return tokens(output.lower(), expected.lower())


def yes_no(output: bytes, expected: bytes) -> str | None:
    """Same sequence of YES and NO in any case. Other tokens must be equal to the letter."""
    ours, theirs = output.split(), expected.split()
    return _first_difference([_fold_answer(t) for t in ours], [_fold_answer(t) for t in theirs], "token")


def unordered_lines(output: bytes, expected: bytes) -> str | None:
    """Same lines (as token sequences), in any order, each as often; blank lines are ignored."""
    ours = Counter(tuple(line.split()) for line in output.splitlines() if line.split())
    theirs = Counter(tuple(line.split()) for line in expected.splitlines() if line.split())
    return _multiset(ours, theirs, "line")


def unordered_tokens(output: bytes, expected: bytes) -> str | None:
    """Same tokens in any order, each as often."""
    return _multiset(Counter(output.split()), Counter(expected.split()), "token")


def _fold_answer(token: bytes) -> bytes:
    folded = token.upper()
    return folded if folded in (b"YES", b"NO") else token


def _first_difference(ours: list, theirs: list, what: str) -> str | None:
    for position, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            return f"{what} {position + 1} differs"
    return count_difference(len(ours), len(theirs), what)


def count_difference(ours: int, theirs: int, what: str) -> str | None:
    """None when the counts agree, else a line that names both."""
    if ours == theirs:
        return None
    if not ours:
        return "no output"
    return f"{ours} {what}s printed, {theirs} expected"


def _multiset(ours: Counter, theirs: Counter, what: str) -> str | None:
    if ours == theirs:
        return None
    if not ours:
        return "no output"
    surplus = (ours - theirs).total()
    missing = (theirs - ours).total()
    return f"{surplus} {what}s too many, {missing} missing"
