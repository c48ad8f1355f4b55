"""The report page: charts that count, texts of what was dropped, copies side by side, hostile texts, and no data."""

from __future__ import annotations

import datetime
import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_curation import CurationConfig, Problem, Solution, Test, curate
from data_curation.excerpts import SHOWN_CHARACTERS, duplicate_pairs, excerpt, side_by_side
from data_curation.facts import Fact
from data_curation.pipeline import NothingLeft
from data_curation.report import charts
from data_curation.stages.split import HELDOUT

LONG = "Given are two whole numbers on one line, separated by a blank. " * 4
HOSTILE = "<script>alert('statement')</script> </pre></body>"


def problem(name: str, **changes) -> Problem:
    values = {"id": name, "statement": "Print a sum.", "tests": [Test(input="1 2\n", output="3\n")], **changes}
    return Problem.model_validate(values)


class _Page(HTMLParser):
    """Tags that are open at the end of a page, attributes that load something, and the text."""

    void = ("meta", "br", "link", "img", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [(name, value) for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open[-1] != tag and self.open[-1] in ("p", "td", "tr"):
            self.open.pop()
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over a copy, a near copy, an evaluation problem, a broken row and hostile texts."""
    folder = tmp_path_factory.mktemp("report")
    added = Solution(code="a, b = map(int, input().split())\nprint(a + b)\n")
    rows = [
        problem("sum", statement=LONG + "Print their sum.", solutions=[added], difficulty="easy", rating=900),
        problem("sum-again", statement=LONG + "Print their  sum."),
        problem("sum-near", statement=LONG + "Print the sum of both.", title="A near copy"),
        problem(
            "hostile", title=HOSTILE, tests=[Test(input=HOSTILE, output=HOSTILE)], statement=f"Say it. {LONG[:60]}"
        ),
        problem("known", statement="Count the storks that nest on chimneys between the mill and the old harbour."),
        problem("short", statement="Too short."),
    ]
    source, evaluation = folder / "problems.jsonl", folder / "evaluation.jsonl"
    lines = [row.model_dump(mode="json") for row in rows]
    source.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"id": "bad", "statement": "no tests"}]))
    evaluation.write_text(json.dumps({**lines[4], "id": "eval-1"}) + "\n")
    config = CurationConfig.model_validate(
        {
            "sources": [str(source)],
            "filter": {"samples_in_statement": False},
            "decontaminate": {"against": [str(evaluation)]},
            "split": {"heldout": 0.0},
        }
    )
    curate(config, folder / "out", show_progress=False)
    return (folder / "out" / "report.html").read_text()


def test_the_page_is_well_formed_and_loads_nothing(run):
    page = _Page(run)
    assert page.open == [] and page.loads == []
    assert "script" not in page.tags and page.words.count("alert('statement')") >= 2


def test_dropped_problems_are_shown_with_their_text_and_reason(run):
    words = _Page(run).words
    assert "Too short." in words
    assert "problems.jsonl row 7" in words and "no tests: give `tests`" in words
    assert "Count the storks" in words and "eval-1" in words


def test_copies_stand_beside_what_was_kept(run):
    section = run.split('id="copies"')[1].split("<h2")[0]
    assert "2 of 2 problems dropped as copies" in section
    assert section.index("sum-near") < section.index("sum-again"), "the least alike come first"
    assert "<mark>the</mark> sum" in section and "<mark>their</mark> sum" in section


def test_a_page_of_nothing_can_be_read(tmp_path):
    source = tmp_path / "problems.jsonl"
    source.write_text(problem("short", statement="Too short.").model_dump_json() + "\n")
    with pytest.raises(NothingLeft):
        curate(CurationConfig(sources=(str(source),)), tmp_path / "out", show_progress=False)
    page = _Page((tmp_path / "out" / "report.html").read_text())
    assert page.open == []
    assert "Not known: no solution that is labelled wrong was run." in page.words
    for said in ("No problem was kept.", "No copies were found.", "Not checked: the recipe names no evaluation set"):
        assert said in page.words


def test_charts_count_every_problem_once_and_hold_out_apart():
    problems = [
        problem("a", difficulty="hard", rating=1650, date=datetime.date(2020, 5, 1)),
        problem("b", difficulty="easy", rating=799, date=datetime.date(2022, 1, 1), tags=[HELDOUT]),
        problem("c", difficulty="3", rating=9000),
        problem("d", tests=[{"input": "x" * 5000, "output": "y"}] * 3, date=datetime.date(2023, 3, 1)),
    ]
    found = dict(charts([Fact.of(problem) for problem in problems]))
    assert found["Difficulty"] == [("3", 1, 0), ("easy", 0, 1), ("hard", 1, 0), ("not stated", 1, 0)]
    assert found["Contest year"] == [("2020", 1, 0), ("2022", 0, 1), ("2023", 1, 0)]
    assert dict(charts([Fact.of(problem) for problem in problems[:2]]))["Contest month"] == [
        ("2020-05", 1, 0),
        ("2022-01", 0, 1),
    ]
    assert found["Rating"][0] == ("0 to 799", 0, 1)
    assert found["Rating"][-1] == ("3,200 or more", 1, 0)
    assert found["Tests per problem"] == [("1", 2, 1), ("2", 0, 0), ("3 to 4", 1, 0)]
    assert ("11 to 100", 1, 0) in found["Size of all tests, kB"]
    assert sum(train + held for _, train, held in found["Known solutions"]) == 4
    assert charts([]) == []


@given(st.text(max_size=300), st.text(max_size=300))
def test_both_sides_keep_their_text_and_mark_only_what_differs(ours, theirs):
    for text, marked in zip((ours, theirs), side_by_side(ours, theirs), strict=True):
        plain = str(marked).replace("<mark>", "").replace("</mark>", "")
        assert type(marked)(plain).unescape() == text
    if ours == theirs:
        assert "<mark>" not in side_by_side(ours, theirs)[0]


def test_long_texts_that_begin_alike_are_shown_where_they_part():
    same = "A line that both of them have.\n" * 200
    left, right = side_by_side(same + "red", same + "blue")
    assert "red" in left and "blue" in right and "[... the same" in left
    assert len(left) < 2 * SHOWN_CHARACTERS
    assert excerpt("x" * (SHOWN_CHARACTERS + 10)).endswith("[... 10 more characters]")


def test_pairs_without_a_stored_text_are_left_out():
    row = {"id": "a", "kept_instead": "b", "reason": "near-duplicate", "detail": "", "stage": "deduplicate"}
    assert duplicate_pairs([row], {"a": {"id": "a", "title": "", "statement": "s", "source": ""}}, 3) == []
