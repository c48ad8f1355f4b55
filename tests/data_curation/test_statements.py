"""Statements: markup to plain text, and what makes one unusable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_curation import Problem, Test
from data_curation.config import FilterOptions
from data_curation.stages.filter import FAULT, filter_problems, statement_faults
from data_curation.stages.markup import IMAGE, plain_text
from data_curation.stages.normalise import clean_statement
from data_curation.stages.result import Workplace

SOUND = (
    "You are given an array of n integers. Find the largest number that is not in the array and print it on one line. "
    "The first line of the input has the integer n and the second line has the n integers of the array."
)


def problem(statement: str, **fields) -> Problem:
    return Problem(id="p", statement=statement, tests=[Test(input="1", output="1")], **fields)


@pytest.mark.parametrize(
    ("marked_up", "plain"),
    [
        (
            "<p>Given <code>n</code> (1 &le; n &lt; 10<sup>5</sup>),<br/>print a<sub>i</sub>.</p><p>Twice.</p>",
            "Given n (1 \u2264 n < 10^5),\nprint a_i.\n\nTwice.",
        ),
        ("<b>Input:</b> s = 1<pre>3 4\n5   6</pre>end", "Input: s = 1\n3 4\n5   6\nend"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ('<p>See <img src="x.png" alt="y"/> there.</p><script>alert(1)</script>', f"See {IMAGE} there."),
        ("a ![tree](https://x.org/t.png) here", f"a {IMAGE} here"),
        ("$1 \\le n \\leq 10^{5}$ and $$$a_{i+1} \\ne \\frac{a}{b}$$$", "1 <= n <= 10^5 and a_(i+1) != (a)/(b)"),
        ("\\textbf{Input} has \\texttt{n}", "Input has n"),
        ("\\begin{itemize}\n\\item one\n\\item two\n\\end{itemize}\n", "- one\n- two\n"),
    ],
)
def test_markup_becomes_text(marked_up, plain):
    assert clean_statement(plain_text(marked_up)) == clean_statement(plain)


@pytest.mark.parametrize(
    "text",
    [
        "If a < b and b > c, print <name> of the vector<int> v; it costs $5 and $7.",
        "1 <= n <= 10 ** 5\n    for i in range(n): print(i & 1)",
        "Run `echo $HOME` and print {a_1}^2.",
        "x<y>z or a<b</c",
    ],
)
def test_text_without_markup_is_not_touched(text):
    assert plain_text(text) == text


@given(st.text(alphabet="ab <>/p$\\{}^_&;![]()\n", max_size=80))
def test_any_text_comes_through(text):
    assert isinstance(plain_text(text), str)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (f"{SOUND} {IMAGE}", "images"),
        (f"{SOUND} The graph is shown in the figure below.", "images"),
        (f"{SOUND} The first line has", ""),
        (f"{SOUND} The first line has the", "truncated"),
        (f"{SOUND} It also has to be...", "truncated"),
        (f"{SOUND} The sequence is 1, 2, 3, ...", ""),
        (f"{SOUND}\n```\n1 2\n", "truncated"),
        ("\u7ed9\u5b9a\u4e00\u4e2a\u6574\u6570\u6570\u7ec4\u3002 Print the answer.", "foreign"),
        (
            "Se te da un arreglo de n enteros. Encuentra el numero mayor que no se encuentra en el arreglo. "
            "La primera linea de la entrada contiene el entero n y la segunda linea contiene los n enteros separados "
            "por espacios. Imprime una sola linea con la respuesta. El tiempo limite es de dos segundos por caso.",
            "foreign",
        ),
        (f"This is an interactive problem. {SOUND}", "interactive"),
        (f"{SOUND} If there are several answers, print any of them.", "many_answers"),
        (SOUND, ""),
    ],
)
def test_faults_of_a_statement_are_named(statement, fault):
    assert list(statement_faults(problem(statement))) == ([fault] if fault else [])


def test_a_fault_drops_marks_or_is_left_as_the_recipe_says(tmp_path):
    work = Workplace(tmp_path)
    faulty = problem(f"{SOUND} If there are several answers, print any of them. {IMAGE}")
    result = filter_problems([faulty], FilterOptions(), work)
    assert [(d.reason, d.detail) for d in result.dropped] == [
        ("many answers, no checker", "it says 'print any of them'; the checker is tokens")
    ]
    (kept,) = filter_problems([faulty], FilterOptions(many_answers="mark"), work).problems
    assert kept.tags == [f"{FAULT}images", f"{FAULT}many_answers"]
    assert filter_problems([faulty], FilterOptions(many_answers="keep", images="keep"), work).problems == [faulty]
    custom = faulty.model_copy(update={"checker": "python:print(1)"})
    assert filter_problems([custom], FilterOptions(), work).dropped == []


def test_links_and_licences(tmp_path):
    work = Workplace(tmp_path)
    link = problem("Solve the problem at https://example.org/contest/1/problem/a please")
    found = filter_problems([link], FilterOptions(minimum_statement_words=6), work).dropped
    assert [d.reason for d in found] == ["statement is only a link"]
    options = FilterOptions(licenses=("mit", "cc-by"))
    for license, reasons in (
        ("MIT", []),
        ("CC-BY-4.0", []),
        ("", ["licence not allowed"]),
        ("GPL", ["licence not allowed"]),
    ):
        found = filter_problems([problem(SOUND, license=license)], options, work).dropped
        assert [d.reason for d in found] == reasons
