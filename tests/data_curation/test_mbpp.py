"""MBPP rows become call-based tests."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_curation import RowError, load_problems
from data_curation.prompts import chat_prompt, filled
from data_curation.sources.calls import assert_test, encoded

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "mbpp.jsonl.gz"
ROW = {
    "task_id": 5,
    "text": "Add up.",
    "code": "def add(a, b=1):\r\n  return a+b",
    "test_list": ["assert add(1, 2) == 3"],
    "test_setup_code": "",
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
hashable = st.integers() | st.text()
literals = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(hashable, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=8,
)


def write(tmp_path: Path, *rows: dict) -> str:
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"mbpp:{path}"


@pytest.mark.parametrize(
    ("text", "call", "output"),
    [
        ("assert f(1) == 2", "f(1)", "2"),
        ("assert (f(1)) == [1, (2, 3)] ", "f(1)", "[1, [2, 3]]"),
        ("assert set(f([1, 2])) == {2, 1}", "set(f([1, 2]))", '{"__set__": [1, 2]}'),
        ("assert f('a') == {1: 'b'}", "f('a')", '{"__dict__": [[1, "b"]]}'),
        ('assert f("x") == {"a": None}, "said why"', 'f("x")', '{"a": null}'),
        ("assert f(1) == True", "[v == 1 if type(v) is int and v in (0, 1) else v for v in [f(1)]][0]", "true"),
        ("assert not f(1)", "bool(not f(1))", "true"),
        ("assert f(1)", "bool(f(1))", "true"),
        ("assert f(1) == g(2)", "bool(f(1) == g(2))", "true"),
        ("assert f(1) == (1+2j)", "bool(f(1) == (1+2j))", "true"),
        ("assert f(1) == 1e999", "bool(f(1) == 1e999)", "true"),
        ("assert 0 < f(1) < 2", "bool(0 < f(1) < 2)", "true"),
    ],
)
def test_an_assert_becomes_a_call_and_a_value(text, call, output):
    test = assert_test(text)
    assert (test.call, test.output) == (call, output)


@given(literals)
def test_every_literal_has_a_json_form(value):
    text = assert_test(f"assert f() == {value!r}")
    assert "bool(" not in str(text.call)
    assert json.loads(text.output) == encoded(value)


@pytest.mark.parametrize(
    "text",
    ["assert f(1) == (1, [2])", "assert not f(1)", "assert f(1)==True, 'no'", "assert [v for v in [f(1)]][0] == True"],
)
def test_a_prompt_shows_the_assert_as_published(tmp_path, text):
    (problem,) = load_problems(write(tmp_path, {**ROW, "test_list": [text], "test_setup_code": "x = 1"}))
    assert filled("{asserts}", problem, "python") == text
    again = tmp_path / "again.jsonl"
    again.write_text(problem.model_dump_json(exclude_defaults=True) + "\n", encoding="utf-8")
    assert filled("{asserts}", load_problems(again)[0], "python") == text


def test_what_is_shown_changes_no_fingerprint(tmp_path):
    (problem,) = load_problems(write(tmp_path, ROW))
    hidden = [test.model_copy(update={"shown": ""}) for test in problem.tests]
    assert problem.model_copy(update={"tests": hidden}).fingerprint == problem.fingerprint


def test_a_prompt_shows_preamble_and_asserts_where_its_template_asks_for_them(tmp_path):
    (problem,) = load_problems(write(tmp_path, {**ROW, "test_list": [f"assert add({n}) == {n + 1}" for n in range(5)]}))
    problem = problem.model_copy(update={"preamble": "import math\n"})
    template = "{statement}|{preamble}{starter_code}|{asserts}"
    assert filled(template, problem, "python").split("|") == [
        "Add up.",
        "import math\n\n\ndef add(a, b=1):\n",
        "assert add(0) == 1\nassert add(1) == 2\nassert add(2) == 3",
    ]
    assert "import" not in chat_prompt(problem)[0]["content"]


def test_setup_code_runs_in_the_namespace_before_the_call():
    test = assert_test("assert height(root) == 2", "root = Node(1)\nroot.left = Node(2)")
    names = {
        "Node": type("Node", (), {"__init__": lambda self, value: None}),
        "height": lambda node: len(vars(node)) + 1,
    }
    assert eval(test.call or "", names) == json.loads(test.output)


def test_the_starter_names_the_function_that_is_tested(tmp_path):
    (problem,) = load_problems(write(tmp_path, ROW))
    assert problem.starter_code == "def add(a, b=1):\n"
    assert problem.id == "mbpp-5"
    assert "split:train" in problem.tags


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_list": []}, "row 1: no tests: `test_list` is empty"),
        ({"test_list": ["print(1)"]}, "row 1: a test is not an assert statement"),
        ({"test_list": ["assert f(1) =="]}, "row 1: a test is not an assert statement"),
    ],
)
def test_a_bad_row_is_one_line(tmp_path, change, message):
    with pytest.raises(RowError, match=message):
        load_problems(write(tmp_path, {**ROW, **change}))


def test_a_row_of_another_layout_names_the_missing_column(tmp_path):
    with pytest.raises(RowError, match="`code` is missing"):
        load_problems(write(tmp_path, {"text": "a", "test_list": []}))


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not at hand")
def test_the_published_file_is_read_whole():
    problems = load_problems(f"mbpp:{REAL}")
    assert len(problems) == 974
    assert all(problem.starter_code for problem in problems)
    assert sum(test.output == "true" and str(test.call).startswith("bool(") for p in problems for test in p.tests) < 20
    for problem in problems:
        for test in problem.tests:
            ast.parse(test.call or "", mode="eval")
            json.loads(test.output)
