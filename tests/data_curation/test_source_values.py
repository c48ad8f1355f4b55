"""Values as published sets spell them: durations, sizes, dates, packed tests, literals, long integers, arguments."""

from __future__ import annotations

import base64
import datetime
import json
import pickle
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandbox
from data_curation import Test
from data_curation.sources.calls import call_test, keyword_arguments, source, target, unwrapped
from data_curation.sources.decoding import (
    Unreadable,
    decoded,
    literal,
    long_integers,
    objects,
    optional,
    packed_json,
    strings,
    unfenced,
)
from data_curation.sources.testcases import argument_list, checker_for, paired_tests, printed_text
from data_curation.sources.units import day, megabytes, number, seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2.5, 2.5),
        (1, 1.0),
        ({"seconds": 2, "nanos": 500_000_000}, 2.5),
        ({"seconds": 1, "nanos": None}, 1.0),
        ("{'seconds': 2, 'nanos': 0}", 2.0),
        ("2.0 seconds", 2.0),
        ("1 second", 1.0),
        ("500 ms", 0.5),
        ("Time limit: 30 seconds per test set.", 30.0),
        ("0.4", 0.4),
        *[(nothing, None) for nothing in (None, "", "-", 0, "0", "None", {"seconds": 0, "nanos": 0}, float("nan"))],
    ],
)
def test_durations_come_in_many_forms(value, expected):
    assert seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (256.0, "mb", 256),
        (256_000_000, "bytes", 256),
        (268_435_456, "bytes", 256),
        (100_000_001, "bytes", 96),
        ("256.0 megabytes", "mb", 256),
        ("Memory limit: 1GB.", "mb", 1024),
        ("65536 KB", "mb", 64),
        ("64 MB", "mb", 64),
        *[(nothing, "mb", None) for nothing in (None, "", "-", 0, "nan")],
    ],
)
def test_memory_comes_in_three_units(value, unit, expected):
    assert megabytes(value, unit=unit) == expected


@pytest.mark.parametrize("value", ["a while", "2 moons", 10_000.0])
def test_a_duration_that_is_none_is_named_with_its_column(value):
    with pytest.raises(Unreadable, match="`time_limit`"):
        seconds(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-08-04T00:00:00", datetime.date(2024, 8, 4)),
        ("2024-08-04", datetime.date(2024, 8, 4)),
        (datetime.datetime(2024, 8, 4, 5), datetime.date(2024, 8, 4)),
        (1_705_804_200, datetime.date(2024, 1, 21)),
        ("2008", datetime.date(2008, 1, 1)),
        (2008, datetime.date(2008, 1, 1)),
        *[(nothing, None) for nothing in (None, "", "-", 0)],
    ],
)
def test_dates_come_as_text_times_and_years(value, expected):
    assert day(value) == expected


@pytest.mark.parametrize("nothing", [None, "", "-", " None ", "null", float("nan")])
def test_none_has_many_spellings(nothing):
    assert optional(nothing) == ""
    assert number(nothing) is None
    assert strings(nothing, "x") == []


def pack(value: object, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


@given(st.recursive(st.integers() | st.text() | st.booleans(), lambda inner: st.lists(inner), max_leaves=5))
def test_packed_and_plain_json_are_the_same_value(value):
    body = json.dumps([value])
    assert packed_json(body, "x") == packed_json(pack(body), "x") == packed_json(pack(body, 2), "x") == [value]


class Harmful:
    def __reduce__(self):
        return (exec, ("import sys; sys.harmed = True",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Harmful(), "it asks for builtins.exec"),
        ([1, 2], "holds a pickled list; only a str is legal"),
        (b"[]", "only a str is legal"),
        (datetime.date(2020, 1, 1), "it asks for datetime.date"),
    ],
)
def test_a_pickle_of_anything_but_text_is_refused_and_runs_nothing(value, message):
    with pytest.raises(Unreadable, match=message):
        packed_json(pack(value), "private_test_cases")
    assert not hasattr(sys, "harmed")


@pytest.mark.parametrize("value", ["eJ+broken", "!!!", base64.b64encode(b"plain").decode(), pack("[1")])
def test_broken_packing_is_one_line(value):
    with pytest.raises(Unreadable, match="`private_test_cases`") as caught:
        packed_json(value, "private_test_cases")
    assert "\n" not in str(caught.value)


def test_literals_are_parsed_and_never_executed():
    assert literal("{'a': (1, None), 'b': True}", "x") == {"a": (1, None), "b": True}
    assert literal('{"a": null}', "x") == {"a": None}
    with pytest.raises(Unreadable, match="`x` is neither a Python literal nor JSON"):
        literal("__import__('os').getcwd()", "x")


def test_structs_of_lists_and_lists_of_structs_are_the_same():
    rows = [{"input": "1", "output": "2"}, {"input": "3", "output": "4"}]
    assert objects({"input": ["1", "3"], "output": ["2", "4"]}, "x") == objects(rows, "x") == rows
    assert objects({"input": "1", "output": "2"}, "x") == rows[:1]
    assert objects(None, "x") == objects({"input": [], "output": []}, "x") == []
    with pytest.raises(Unreadable, match="different lengths"):
        objects({"input": ["1"], "output": []}, "x")


def test_fences_are_taken_off():
    assert unfenced("```python\nprint(1)\n```") == ("print(1)\n", "python")
    assert unfenced("So:\n```cpp\nint x;\n```\nthen\n```py\npass") == ("pass\n", "py")
    assert unfenced("print(1)\n") == ("print(1)\n", "")


def test_integers_beyond_the_digit_limit_are_read_judged_and_the_limit_is_restored():
    digits = "7" * 6000
    limit = sys.get_int_max_str_digits()
    (value,) = decoded(f"[{digits}]", "x")
    assert value % 10 == 7 and sys.get_int_max_str_digits() == limit
    tests = paired_tests({"inputs": [[value]], "outputs": [[value + 1]], "fn_name": "following"}, "x")
    with sandbox.Judge(workers=1) as judge:
        assert judge.judge("def following(n): return n + 1", [test.case() for test in tests]).accepted
        assert not judge.judge("def following(n): return n", [test.case() for test in tests]).accepted


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("[1, 2]\n3", [[1, 2], 3]),
        ('"a"\ntrue', ["a", True]),
        ("n = 7\nqueries = [[0,5],[1,6]]", {"n": 7, "queries": [[0, 5], [1, 6]]}),
        ("nums = [3,3], target = 6", {"nums": [3, 3], "target": 6}),
        ('s = "a, b = 1", ok = false', {"s": "a, b = 1", "ok": False}),
        ("(1, 'a')", [1, "a"]),
        ("'a'", ["a"]),
        ([1, [2]], [1, [2]]),
    ],
)
def test_arguments_come_as_lists_json_lines_and_named_literals(given_text, expected):
    assert argument_list(given_text) == expected


@pytest.mark.parametrize("bad", ["nums = open('x')", "a = 1, 2", "**x", "f(1)"])
def test_named_arguments_are_literals_only(bad):
    with pytest.raises(Unreadable):
        keyword_arguments(bad)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(plain, max_size=3))
def test_a_call_rebuilds_its_arguments_exactly(arguments):
    test = call_test("echo", arguments, 1)
    seen: list = []
    names = {"echo": lambda *args: seen.append(list(args)), "args": json.loads(test.input) if test.input else []}
    eval(test.call or "", names)
    assert seen == [arguments] and eval(source(arguments)) == arguments


def test_one_call_serves_a_function_and_a_method():
    test = call_test(target("twice"), [4], 8).case()
    with sandbox.Judge(workers=1) as judge:
        assert judge.judge("def twice(n): return 2 * n", [test]).accepted
        assert judge.judge("class Solution:\n  def twice(self, n): return 2 * n", [test]).accepted
        assert judge.judge("def thrice(n): return 3 * n", [test]).verdict is sandbox.Verdict.RE


def test_wrapped_outputs_are_unwrapped_only_if_all_are():
    assert unwrapped([[1], [[2]]]) == [1, [2]]
    assert unwrapped([[1], [2, 3]]) == [[1], [2, 3]]
    assert unwrapped([1, 2]) == [1, 2]


def test_integer_keys_of_json_become_integers():
    test = paired_tests({"inputs": [[{"1": "a"}]], "outputs": [[{"2": "b"}]], "fn_name": "f"}, "x")[0]
    assert str(test.call).endswith("({1: 'a'})")
    assert json.loads(test.output) == {"__dict__": [[2, "b"]]}


def test_lines_given_as_a_list_are_joined():
    assert printed_text(["1 2", "3\n"]) == "1 2\n3\n"
    assert printed_text("a\r\nb") == "a\nb"
    with pytest.raises(Unreadable):
        printed_text({"a": 1})


@pytest.mark.parametrize(
    ("outputs", "statement", "checker"),
    [
        (["1 2", "abc"], "", "tokens"),
        (["0.5", "1"], "", "floats:1e-6"),
        (["YES\nNO"], "Print each letter in any case.", "yes_no"),
        (["YES\nNO"], "Print YES or NO.", "tokens"),
    ],
)
def test_the_checker_follows_the_outputs(outputs, statement, checker):
    assert checker_for([Test(output=output) for output in outputs], statement) == checker


def test_uneven_pairs_are_refused():
    with pytest.raises(Unreadable, match="2 inputs and 1 outputs"):
        paired_tests({"inputs": ["1", "2"], "outputs": ["1"]}, "input_output")


def test_the_digit_limit_context_nests():
    before = sys.get_int_max_str_digits()
    with long_integers(), long_integers():
        int("1" * 5000)
    assert sys.get_int_max_str_digits() == before
