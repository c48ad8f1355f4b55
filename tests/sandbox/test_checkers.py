# ruff: noqa: E501, RUF001, RUF043
"""What each checker accepts and refuses. The first test is the table of what judges accept that docs/sandbox.md has."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import checkers

# What published graders of models' programs pay for and what they refuse, and what is right. Each row:
# (output, expected, accepted) under the default checker and under the one that problems of the kind are given.
GRADERS = {
    "trailing space": (b"1 2 \n3\n", b"1 2\n3\n", {"tokens": 1, "lines": 1, "floats": 1, "kattis_default": 1}),
    "carriage returns": (b"1 2\r\n3\r\n", b"1 2\n3\n", {"tokens": 1, "lines": 1, "floats": 1, "kattis_default": 1}),
    "two spaces inside a line": (b"1  2\n", b"1 2\n", {"tokens": 1, "lines": 1, "floats": 1, "kattis_default": 1}),
    "blank line between lines": (b"1\n\n2\n", b"1\n2\n", {"tokens": 1, "lines": 0, "floats": 1, "unordered_lines": 1}),
    "tokens on other lines": (b"1\n2 3\n", b"1 2\n3\n", {"tokens": 1, "lines": 0, "exact": 0, "floats": 1, "unordered_lines": 0}),
    "0.333333333 for 0.3333333333": (b"0.333333333", b"0.3333333333", {"tokens": 0, "floats": 1, "floats_abs:1e-6": 1, "floats_rel:1e-6": 1, "kattis_default:float_tolerance 1e-6": 1}),
    "1.0 for 1": (b"1.0", b"1", {"tokens": 0, "floats": 1, "kattis_default": 0, "kattis_default:float_tolerance 1e-6": 1}),
    "Yes for YES": (b"Yes\nno\n", b"YES\nNO\n", {"tokens": 0, "lines": 0, "yes_no": 1, "case_insensitive": 1}),
    "1000000008 for 1000000007": (b"1000000008", b"1000000007", {"tokens": 0, "lines": 0, "exact": 0, "floats": 0, "floats_rel:1e-6": 0, "yes_no": 0, "case_insensitive": 0, "unordered_lines": 0, "unordered_tokens": 0, "kattis_default": 0}),
    "1000000008 for 1000000007 beside a fraction": (b"0.5 1000000008", b"0.5 1000000007", {"tokens": 0, "floats": 0}),
    "2^53+1 for 2^53": (b"9007199254740993", b"9007199254740992", {"tokens": 0, "lines": 0, "floats": 0, "case_insensitive": 0, "unordered_tokens": 0, "kattis_default": 0, "kattis_default:float_relative_tolerance 0": 0}),
    "lines permuted": (b"2 3\n1\n", b"1\n2 3\n", {"tokens": 0, "lines": 0, "exact": 0, "floats": 0, "kattis_default": 0}),
    "tokens permuted": (b"2 1", b"1 2", {"tokens": 0, "lines": 0, "exact": 0, "floats": 0, "unordered_lines": 0, "kattis_default": 0}),
    "duplicate dropped": (b"1 2", b"1 1 2", {"tokens": 0, "lines": 0, "floats": 0, "unordered_tokens": 0, "kattis_default": 0}),
    "duplicate line dropped": (b"1\n2\n", b"1\n1\n2\n", {"tokens": 0, "lines": 0, "floats": 0, "unordered_lines": 0, "unordered_tokens": 0}),
    "0.1234 for 0.1231": (b"0.1234", b"0.1231", {"tokens": 0, "lines": 0, "floats": 0, "floats_abs:1e-6": 0, "floats_rel:1e-6": 0, "kattis_default:float_tolerance 1e-6": 0}),
    "only the first of three lines": (b"1\n", b"1\n2\n3\n", {"tokens": 0, "lines": 0, "exact": 0, "floats": 0, "unordered_lines": 0, "unordered_tokens": 0, "kattis_default": 0}),
    "+5 for 5": (b"+5", b"5", {"tokens": 0, "lines": 0, "exact": 0, "case_insensitive": 0, "unordered_tokens": 0, "kattis_default": 0}),
    "1_0 for 10": (b"1_0", b"10", {"tokens": 0, "lines": 0, "floats": 0, "kattis_default": 0, "kattis_default:float_tolerance 1e-6": 0}),
    "1_0.5 for 10.5": (b"1_0.5", b"10.5", {"tokens": 0, "floats": 0, "kattis_default:float_tolerance 1e-6": 0}),
    "arabic digit": ("٥".encode(), b"5", {"tokens": 0, "lines": 0, "floats": 0, "case_insensitive": 0, "kattis_default": 0, "kattis_default:float_tolerance 1e-6": 0}),
    "no-break space": ("1\u00a02".encode(), b"1 2", {"tokens": 0, "lines": 0, "floats": 0, "unordered_tokens": 0, "kattis_default": 0}),
    "nan for nan": (b"nan", b"nan", {"tokens": 1, "floats": 1, "kattis_default:float_tolerance 1e-6": 1}),
}  # fmt: skip
GRADED = [(case, spec, bool(yes)) for case, (_, _, row) in GRADERS.items() for spec, yes in row.items()]


@pytest.mark.parametrize(("case", "spec", "accepted"), GRADED)
def test_what_graders_get_wrong_comes_out_right(case: str, spec: str, accepted: bool) -> None:
    output, expected, _ = GRADERS[case]
    assert (checkers.find(spec).compare(output, expected) is None) is accepted


@pytest.mark.parametrize(
    ("case", "value", "expected"),
    [
        ("a nested tuple", "[[1, 2], [3, [4]]]", "[[1, 2], [3, [4]]]"),
        ("6.0 for 6", "6.0", "6"), ("True for 1", "true", "1"), ("expected[0]", "1", "[1]"), ("rounded", "0.1234", "0.1231"),
        ("2^53+1", "9007199254740993", "9007199254740992"), ("2^53+1 as a float", "9007199254740993", "9007199254740992.0"),
        ("permuted", "[2, 1]", "[1, 2]"), ("a subset", "[1]", "[1, 1]"), ("text", '"1"', "1"),
    ],
)  # fmt: skip
def test_what_graders_of_returned_values_get_wrong_comes_out_right(case: str, value: str, expected: str) -> None:
    message = checkers.find("tokens").compare_values(value.encode(), expected.encode())
    assert (message is None) is (case == "a nested tuple")


# case -> (output, expected, {checker: accepted})
TABLE = {
    "identical": (b"1 2\n3\n", b"1 2\n3\n", {"tokens": 1, "lines": 1, "exact": 1, "floats": 1}),
    "no newline at the end": (b"1 2", b"1 2\n", {"tokens": 1, "lines": 1, "exact": 1, "floats": 1}),
    "blank line between lines": (b"1\n\n2\n", b"1\n2\n", {"tokens": 1, "lines": 0, "exact": 0}),
    "blank lines at the end": (b"1\n\n\n", b"1\n", {"tokens": 1, "lines": 1, "exact": 0}),
    "shorter decimal": (b"0.333333333", b"0.3333333333", {"tokens": 0, "floats": 1, "floats:1e-12": 0}),
    "no for YES": (b"no", b"YES", {"yes_no": 0, "case_insensitive": 0}),
    "other words folded": (b"Abc", b"abc", {"yes_no": 0, "case_insensitive": 1}),
    "lines permuted": (b"2\n1\n", b"1\n2\n", {"tokens": 0, "lines": 0, "unordered_lines": 1, "unordered_tokens": 1}),
    "tokens permuted": (b"2 1", b"1 2", {"tokens": 0, "lines": 0, "unordered_tokens": 1, "unordered_lines": 0}),
    "0.1234 for 0.1231": (b"0.1234", b"0.1231", {"tokens": 0, "floats": 0, "floats:1e-2": 1}),
    "one line too many": (b"1\n2\n", b"1\n", {"tokens": 0, "lines": 0, "floats": 0, "unordered_lines": 0}),
    "hexadecimal": (b"0x10", b"16", {"tokens": 0, "floats": 0}),
    "byte order mark": (b"\xef\xbb\xbf1", b"1", {"tokens": 0}),
    "nan for nan": (b"nan", b"nan", {"tokens": 1, "floats": 1}),
    "nan for a number": (b"nan", b"1.0", {"tokens": 0, "floats": 0}),
    "inf for a number": (b"inf", b"1e300", {"tokens": 0, "floats": 0}),
    "infinity of the other sign": (b"-inf", b"inf", {"floats": 0}),
    "overflowing exponent": (b"1e999999", b"1.0", {"floats": 0}),
    "empty for something": (b"", b"1", {"tokens": 0, "lines": 0, "exact": 0, "floats": 0, "unordered_tokens": 0}),
    "empty for empty": (b"", b"\n", {"tokens": 1, "lines": 1, "exact": 1}),
    "nul byte": (b"1\0", b"1", {"tokens": 0, "exact": 0}),
    "a sign and zeros before an integer": (b"+007 -0", b"7 0", {"tokens": 0, "floats": 1}),
    "an integer that rounds to the expected one": (b"1000001", b"1000000", {"floats": 0, "kattis_default:float_tolerance 1e-3": 1}),
    "an integer for a real number": (b"1000001", b"1000000.0", {"floats": 1}),
    "a real number for an integer": (b"1000000.5", b"1000000", {"floats": 1}),
    "relative error": (b"1000000.1", b"1000000.0", {"floats:1e-6": 1, "floats:1e-8": 0}),
    "absolute error near zero": (b"0.0000001", b"0", {"floats:1e-6": 1}),
    "scientific notation": (b"1e3", b"1000.0", {"tokens": 0, "floats": 1}),
    "absolute error only": (b"1000.5", b"1000.0", {"floats_abs:1e-2": 0, "floats_rel:1e-2": 1}),
    "relative error only": (b"0.0009", b"0.0001", {"floats_abs:1e-2": 1, "floats_rel:1e-2": 0}),
    "form feed and tab": (b"1\f2\t3\v4", b"1 2 3 4", {"tokens": 1, "lines": 1, "floats": 1}),
    "blank line first": (b"\n1\n", b"1\n", {"tokens": 1, "lines": 0}),
    "spaces only on a blank line": (b"1\n  \n2", b"1\n\n2", {"tokens": 1, "lines": 1, "exact": 0}),
    "space before a line": (b"1\n 2\n", b"1\n2\n", {"tokens": 1, "lines": 1, "exact": 0}),
    "longer last token": (b"1 23", b"1 2", {"tokens": 0, "lines": 0, "kattis_default": 0}),
    "kattis: case": (b"yes", b"YES", {"kattis_default": 1, "kattis_default:case_sensitive": 0}),
    "kattis: spaces": (b"1  2\n", b"1 2\n", {"kattis_default": 1, "kattis_default:space_change_sensitive": 0}),
    "kattis: same spaces": (b"A 2\n", b"a 2\n", {"kattis_default:space_change_sensitive": 1}),
    "kattis: floats": (b"x 1.001", b"X 1.0", {"kattis_default": 0, "kattis_default:float_tolerance 1e-2": 1}),
    "kattis: absolute": (b"1000.5", b"1000", {"kattis_default:float_absolute_tolerance 1e-2": 0, "kattis_default:float_relative_tolerance 1e-2": 1}),
    "kattis: nan is no number": (b"nan", b"1.0", {"kattis_default:float_tolerance 1e-2": 0}),
    "kattis: words where a number is due": (b"one", b"1.0", {"kattis_default:float_tolerance 1": 0}),
}  # fmt: skip
CELLS = [(case, spec, bool(yes)) for case, (_, _, row) in TABLE.items() for spec, yes in row.items()]


@pytest.mark.parametrize(("case", "spec", "accepted"), CELLS)
def test_printed_output(case: str, spec: str, accepted: bool) -> None:
    output, expected, _ = TABLE[case]
    message = checkers.find(spec).compare(output, expected)
    assert (message is None) is accepted
    if message is not None and expected.strip():
        assert expected.strip().decode("utf-8", "replace") not in message.split() or expected.strip().isdigit()


VALUES = [
    ("1", "1", "tokens", True), ("1.0", "1", "tokens", False), ("1.0", "1", "floats", True),
    ("true", "1", "tokens", False), ("true", "1", "floats", False), ("null", "false", "tokens", False),
    ("0.30000000000000004", "0.3", "tokens", False), ("0.30000000000000004", "0.3", "floats", True),
    ("[1, [2, 3]]", "[1, [2, 3]]", "tokens", True), ("[2, 1]", "[1, 2]", "tokens", False),
    ("[2, 1]", "[1, 2]", "unordered_lines", True), ("[1, 1, 2]", "[1, 2, 2]", "unordered_lines", False),
    ("[[2, 1], [3]]", "[[3], [1, 2]]", "unordered_within", True), ("[[2, 1], [3]]", "[[3], [1, 2]]", "unordered_tokens", False),
    ("[[1, 1], [3]]", "[[3], [1, 2]]", "unordered_within", False), ("0.009", "0.0", "floats_abs:1e-2", True),
    ("[1, 2]", "[1, 2, 3]", "tokens", False), ("[[1]]", "[1]", "tokens", False),
    ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', "tokens", True), ('{"a": 1}', '{"a": 1, "b": 2}', "tokens", False),
    ('{"__set__": [1, 2]}', '{"__set__": [2, 1]}', "tokens", True),
    ('{"__set__": [1]}', "[1]", "tokens", False),
    ('{"__dict__": [["a", 1]]}', '{"a": 1}', "tokens", True), ('{"__dict__": []}', "{}", "tokens", True),
    ("NaN", "NaN", "tokens", True), ("NaN", "1.0", "floats", False), ("Infinity", "-Infinity", "floats", False),
    ('"YES"', '"Yes"', "tokens", False), ('"YES"', '"Yes"', "yes_no", True), ('"1"', "1", "tokens", False),
    ("1" + "0" * 5000, "1" + "0" * 5000, "tokens", True), ("", "1", "tokens", False), ("{", "1", "tokens", False),
    ("[" * 100000, "1", "tokens", False),
    ('{"__linked_list__": [1, 2]}', "[1, 2]", "linked_list", True), ('{"__linked_list__": [1, 2]}', "[2, 1]", "linked_list", False),
    ('{"__linked_list__": [1, 2]}', "[1, 2]", "tokens", False), ('{"__tree__": [1, 2]}', "[1, 2]", "linked_list", False),
    ("[1, 2]", "[1, 2]", "linked_list", False), ("null", "[]", "linked_list", True), ("null", "null", "tree", True),
    ("null", "[0]", "linked_list", False), ('{"__linked_list__": [0]}', "[]", "linked_list", False),
    ('[{"__linked_list__": [1]}, null]', "[[1], []]", "linked_list", True), ('[{"__linked_list__": [1]}]', "[[1], []]", "linked_list", False),
    ('{"__tree__": [1, null, 2]}', "[1, null, 2, null, null]", "tree", True), ('{"__tree__": [1, null, 2]}', "[1, 2]", "tree", False),
    ('{"__tree__": [1, 2]}', "[1, null, 2]", "tree", False), ('[{"__tree__": [2, 1]}]', "[[2, 1]]", "tree", True),
    ('{"__linked_list__": [true]}', "[1]", "linked_list", False), ("[1, 2]", "[1, 2]", "in_place", True), ("[2, 1]", "[1, 2]", "in_place", False),
]  # fmt: skip


@pytest.mark.parametrize(("output", "expected", "spec", "accepted"), VALUES)
def test_returned_values(output: str, expected: str, spec: str, accepted: bool) -> None:
    message = checkers.find(spec).compare_values(output.encode(), expected.encode())
    assert (message is None) is accepted


def test_a_checker_that_does_not_fit_the_returned_structure_is_named() -> None:
    message = checkers.find("tokens").compare_values(b'{"__tree__": [1]}', b"[1]")
    assert message == "a tree was returned: checker tree compares those"


@pytest.mark.parametrize(
    "spec",
    [
        "token",
        "",
        "floats:x",
        "floats:-1",
        "floats:nan",
        "tokens:1",
        "floats:2",
        "kattis_default:fuzzy",
        "kattis_default:float_tolerance",
    ],
)
def test_unknown_checkers_are_named_with_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match="tokens|tolerance|unknown flag"):
        checkers.find(spec)


def test_the_first_difference_is_located_without_telling_the_answer() -> None:
    assert checkers.find("tokens").compare(b"1 2 9", b"1 2 3") == "token 3 differs"
    assert checkers.find("lines").compare(b"1\n9", b"1\n3") == "line 2 differs"
    assert checkers.find("tokens").compare(b"", b"3") == "no output"


@pytest.mark.parametrize("spec", ["tokens", "lines", "floats", "kattis_default", "yes_no"])
def test_a_difference_far_into_a_large_output_is_found(spec: str) -> None:
    rows = [b"%d %d.5" % (n, n) for n in range(60_000)]
    expected, output = b"\n".join(rows), b" \r\n".join(rows) + b"\n\n"
    compare = checkers.find(spec).compare
    assert compare(output, expected) is None
    place = "line 50001" if spec == "lines" else "token 100001"
    assert compare(output.replace(b"50000 50000.5", b"50007 50000.5"), expected) == f"{place} differs"
    assert compare(output.replace(b"50000 50000.5", b"50000"), expected) is not None
    assert compare(output.replace(b"59999.5", b""), expected) is not None


def _by_the_book(output: bytes, expected: bytes, tolerance: float) -> bool:
    ours, theirs = output.split(), expected.split()
    return len(ours) == len(theirs) and all(
        abs(float(a) - float(b)) <= max(tolerance, tolerance * abs(float(b))) + 1e-15
        for a, b in zip(ours, theirs, strict=True)
    )


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from([0, 1e-9, 1e-5, 1])), min_size=1, max_size=30))
def test_many_numbers_are_compared_as_few_are(pairs: list[tuple[float, float]]) -> None:
    expected = b" ".join(repr(value).encode() for value, _ in pairs)
    output = b" ".join(repr(value + error).encode() for value, error in pairs)
    copies = (1 << 18) // len(expected) + 2
    few = checkers.find("floats:1e-6").compare(output, expected)
    many = checkers.find("floats:1e-6").compare((output + b" ") * copies, (expected + b" ") * copies)
    assert few == many
    assert (few is None) is _by_the_book(output, expected, 1e-6)


_words = st.lists(st.sampled_from([b"1", b"12", b"a", b"-3"]), max_size=6)
_gaps = st.lists(st.sampled_from([b" ", b"\n", b"\r\n", b"  ", b"\t", b" \n "]), min_size=7, max_size=7)


def _spaced(words: list[bytes], gaps: list[bytes]) -> bytes:
    return b"".join(gap + word for gap, word in zip(gaps, words, strict=False))


@given(_words, _gaps, _words, _gaps)
def test_tokens_and_lines_agree_with_their_definitions(a: list, gaps_a: list, b: list, gaps_b: list) -> None:
    output, expected = _spaced(a, gaps_a), _spaced(b, gaps_b)
    assert (checkers.find("tokens").compare(output, expected) is None) is (output.split() == expected.split())
    by_line = [
        [line.split() for line in text.replace(b"\r\n", b"\n").rstrip().split(b"\n")] for text in (output, expected)
    ]
    assert (checkers.find("lines").compare(output, expected) is None) is (by_line[0] == by_line[1])


REAL_CASES = Path(__file__).parents[2].parent / "shared" / "data" / "checker_cases.jsonl.gz"


@pytest.mark.skipif(not REAL_CASES.is_file(), reason=f"no real comparisons at {REAL_CASES}")
def test_real_comparisons_come_out_as_their_judges_had_them() -> None:
    with gzip.open(REAL_CASES, "rt") as lines:
        cases = [json.loads(line) for line in lines]
    decidable = [case for case in cases if case["checker_kind"] == "tokens"]
    assert len(decidable) > 100
    for case in decidable:
        spec = f"kattis_default:{case['checker_flags']}" if case["checker_flags"] else "kattis_default"
        message = checkers.find(spec).compare(case["produced"].encode(), case["expected"].encode())
        assert (message is None) is (case["verdict"] == "AC"), (case["problem"], case["test"], message)


@given(st.lists(st.integers()), st.sampled_from([b" ", b"\n", b"\t", b"\r\n", b"  "]))
def test_tokens_do_not_depend_on_white_space(numbers: list[int], gap: bytes) -> None:
    tokens = [str(number).encode() for number in numbers]
    assert checkers.find("tokens").compare(gap.join(tokens) + gap, b" ".join(tokens)) is None


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_every_checker_accepts_itself_and_never_raises(a: bytes, b: bytes) -> None:
    for name in set(checkers.names()) - set(checkers.user.PROTOCOLS):
        checker = checkers.find(name)
        if checker.returned_only:
            continue
        assert checker.compare(a, a) is None
        checker.compare(a, b)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(min_value=1e-9, max_value=0.1))
def test_floats_within_the_tolerance_are_accepted(value: float, tolerance: float) -> None:
    compare = checkers.find(f"floats:{tolerance!r}").compare
    near = value + 0.5 * max(tolerance, tolerance * abs(value))
    far = value + 4 * max(tolerance, tolerance * abs(value)) + 1e-12
    if math.isfinite(near):
        assert compare(repr(near).encode(), repr(value).encode()) is None
    if math.isfinite(far):
        assert compare(repr(far).encode(), repr(value).encode()) is not None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(_json, _json)
def test_values_are_equal_exactly_when_their_json_is(a: object, b: object) -> None:
    compare = checkers.find("tokens").compare_values
    texts = json.dumps(a, sort_keys=True), json.dumps(b, sort_keys=True)
    assert compare(texts[0].encode(), texts[0].encode()) is None
    if texts[0] != texts[1] and "0.0" not in texts[0] + texts[1]:
        assert compare(texts[0].encode(), texts[1].encode()) is not None
