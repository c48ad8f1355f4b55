"""Each stage alone, on small sets, with the real sandbox where programs run."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation import Problem, RowError, Solution, Test
from data_curation.builtin.pipelines import pipeline_problems
from data_curation.config import (
    DeduplicateOptions,
    DifficultyOptions,
    FilterOptions,
    GenerateOptions,
    NormaliseOptions,
    SplitOptions,
    VerifyOptions,
)
from data_curation.families import is_heldout
from data_curation.schema import Generator
from data_curation.stages.deduplicate import deduplicate, statement_fingerprint
from data_curation.stages.difficulty import difficulty
from data_curation.stages.filter import filter_problems
from data_curation.stages.generate import generate
from data_curation.stages.normalise import clean_statement, normalise, normalised
from data_curation.stages.pass_rates import read_pass_rates
from data_curation.stages.result import Workplace
from data_curation.stages.split import split
from data_curation.stages.verify import JOURNAL, verify

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
STATEMENT = (
    "Two numbers are written on the first line of the input. A clerk wants to know what they come to when they are "
    "put together, because the ledger has one column only. Print their sum on one line."
)


@pytest.fixture
def work(tmp_path) -> Workplace:
    return Workplace(tmp_path / "stage")


def problem(name: str = "add", **fields) -> Problem:
    values = {
        "id": name,
        "statement": STATEMENT,
        "tests": [Test(input="1 2\n", output="3\n"), Test(input="5 -7\n", output="-2\n")],
        "solutions": [Solution(code=ADD)],
    }
    return Problem(**{**values, **fields})


# normalise


@given(st.text())
def test_a_clean_statement_stays_as_it_is(text):
    once = clean_statement(text)
    assert clean_statement(once) == once or "&" in text  # "&amp;lt;" takes two rounds, as in HTML
    assert "\r" not in once and "\n\n\n" not in once
    assert unicodedata.is_normalized("NFC", once)


def test_line_endings_spaces_and_markup_are_put_in_order():
    text = "Cafe\u0301\u00a0opens.\r\n\r\n\r\n\r\n1 &le; n &lt; 5 \t\r\n    indented\ufeff\r\n"
    assert clean_statement(text) == "Caf\u00e9 opens.\n\n1 <= n < 5\n    indented"


def test_a_language_is_called_by_the_sandbox_name_for_it():
    clean = normalised(problem(languages=["Python3"], solutions=[Solution(code=ADD, language="py")]))
    assert (clean.languages, clean.solutions[0].language) == (["python"], "python")


def test_ids_become_unique_and_families_are_filled_in(work):
    result = normalise([problem(), problem(), problem(family="sums")], NormaliseOptions(), work)
    assert [(p.id, p.family) for p in result.problems] == [("add", "add"), ("add~2", "add~2"), ("add~3", "sums")]
    assert result.figures["id made unique"] == 2


# filter


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tests": []}, "no tests"),
        ({"tests": [Test(input="1 2", output="3")]}, "too few tests"),
        ({"statement": "  \n"}, "statement is empty"),
        ({"statement": "Add up."}, "statement too short"),
        ({"languages": ["cobol"]}, "unknown language"),
        ({"checker": "guess"}, "unknown checker"),
        ({"tests": [Test(input="1 2", output="3", sample=True)] * 2}, "statement is cut short"),
        ({"solutions": []}, "no accepted solution"),
    ],
)
def test_a_problem_that_cannot_serve_is_dropped_with_its_reason(work, fields, reason):
    result = filter_problems([problem(**fields)], FilterOptions(minimum_tests=2, require_solution=True), work)
    assert [dropped.reason for dropped in result.dropped] == [reason]


def test_a_sound_problem_passes_and_loses_only_solutions_nobody_can_run(work):
    sound = problem(solutions=[Solution(code=ADD), Solution(code="x", language="cobol")])
    shown = problem("shown", statement=f"{STATEMENT} Example:\n  1   2", tests=[Test(input="1 2\n", sample=True)])
    result = filter_problems([sound, shown], FilterOptions(), work)
    assert [p.id for p in result.problems] == ["add", "shown"]
    assert [s.language for s in result.problems[0].solutions] == ["python"]


def test_a_generator_counts_as_tests(work):
    made = problem(tests=[], generator=Generator(code="print(1, 2)", arguments=["1", "2"]))
    assert filter_problems([made], FilterOptions(minimum_tests=2), work).problems == [made]


# deduplicate


@settings(max_examples=30)
@given(
    st.text(alphabet="abc .\n", min_size=1), st.sampled_from([str.upper, str.title, lambda t: t.replace(" ", "\n  ")])
)
def test_case_and_spacing_do_not_change_a_fingerprint(text, change):
    a, b = problem(statement=text), problem(statement=change(text))
    assert statement_fingerprint(a) == statement_fingerprint(b)


def test_an_exact_copy_is_merged_into_the_richer_one(work):
    poor = problem(
        "poor", title="x", statement=STATEMENT.upper(), tests=[Test(input="9 9\n", output="18\n")], rating=900
    )
    rich = problem("rich", solutions=[Solution(code=ADD), Solution(code="print(3)", verdict="wrong_answer")])
    result = deduplicate([poor, rich], DeduplicateOptions(), work)
    assert [p.id for p in result.problems] == ["rich"]
    assert (result.dropped[0].id, result.dropped[0].kept_instead) == ("poor", "rich")
    assert result.problems[0].rating == 900
    assert Test(input="9 9\n", output="18\n") in result.problems[0].tests
    assert len(result.problems[0].solutions) == 2


def test_tests_of_a_copy_that_contradict_the_kept_solution_are_left_out(work):
    wrong = problem("copy", statement=STATEMENT + "\n", tests=[Test(input="9 9\n", output="19\n")], solutions=[])
    result = deduplicate([problem(), wrong], DeduplicateOptions(), work)
    assert result.problems == [problem()]
    assert result.figures["copies' tests left out because they contradict"] == 1


def test_a_reworded_copy_is_found_because_its_solution_solves_the_other(work):
    copy = problem("copy", statement=STATEMENT.replace("clerk", "banker"), solutions=[Solution(code=ADD + "#\n")])
    result = deduplicate([problem(), copy], DeduplicateOptions(), work)
    assert [p.id for p in result.problems] == ["add"]
    assert result.dropped[0].reason == "near-duplicate"


def test_a_different_problem_in_nearly_the_same_words_is_kept(work):
    other = problem(
        "subtract",
        statement=STATEMENT.replace("sum", "difference"),
        tests=[Test(input="5 2\n", output="3\n")],
        solutions=[Solution(code=ADD.replace("+", "-"))],
    )
    result = deduplicate([problem(), other], DeduplicateOptions(), work)
    assert [p.id for p in result.problems] == ["add", "subtract"]


def test_without_solutions_the_text_decides(work):
    near = problem("near", statement=STATEMENT.replace("clerk", "banker"), solutions=[])
    far = problem(
        "far", statement=" ".join(STATEMENT.replace("the", "a").replace("one", "1").split()[::-1]), solutions=[]
    )
    result = deduplicate([problem(), near, far], DeduplicateOptions(), work)
    assert [p.id for p in result.problems] == ["add", "far"]


# generate


def test_generated_tests_take_their_outputs_from_the_accepted_solution(work):
    generator = Generator(code="n = int(input())\nprint(n, n * n)", arguments=["3", "1000"])
    (made,) = generate([problem(generator=generator)], GenerateOptions(), work).problems
    assert made.generator is None
    assert [(t.input, t.output) for t in made.tests[2:]] == [("3 9\n", "12\n"), ("1000 1000000\n", "1001000\n")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"generator": Generator(code="print(1 / 0)", arguments=["1"])}, "generator fails"),
        ({"generator": Generator(code="print('x')", arguments=["1"])}, "accepted solution fails on a generated input"),
        (
            {"generator": Generator(code="print(1, 1)", arguments=["1"]), "solutions": []},
            "generator without an accepted solution",
        ),
        ({"generator": Generator(code="print('1 ' * 9999)", arguments=["1"])}, "generated input too large"),
    ],
)
def test_a_generator_that_does_not_work_drops_its_problem(work, fields, reason):
    result = generate([problem(**fields)], GenerateOptions(maximum_input_mb=0.01), work)
    assert [dropped.reason for dropped in result.dropped] == [reason]
    assert not [path for path in work.folder.rglob("*") if path.is_file()]


def test_generators_can_be_left_aside(work):
    generator = Generator(code="print(1 / 0)", arguments=["1"])
    problems = [problem(generator=generator), problem("bare", tests=[], generator=generator)]
    result = generate(problems, GenerateOptions(enabled=False), work)
    assert result.problems == problems[:1]
    assert [dropped.id for dropped in result.dropped] == ["bare"]


# verify


def test_solutions_of_known_worth_measure_the_tests(work):
    problems = [
        problem(solutions=[Solution(code=ADD), Solution(code="print(3)", verdict="wrong_answer")]),
        problem(
            "weak",
            tests=[Test(input="1 2", output="3")],
            solutions=[Solution(code=ADD), Solution(code="print(3)", verdict="wrong_answer")],
        ),
        problem("broken", tests=[Test(input="1 2", output="3"), Test(input="1 1", output="3")]),
    ]
    result = verify(problems, VerifyOptions(), work)
    assert [p.id for p in result.problems] == ["add", "weak"]
    assert [(d.id, d.reason, d.detail) for d in result.dropped] == [
        ("broken", "accepted solution fails", "solution 1: WA on test 2 of 2")
    ]
    assert result.figures["true-positive rate"] == pytest.approx(2 / 3, abs=1e-6)
    assert result.figures["true-negative rate"] == 0.5
    assert result.rows[1]["weaknesses"] == ["solution 2, labelled wrong_answer, passes all 1 tests"]


def test_a_slow_solution_must_run_out_of_time(work):
    slow = "a, b = map(int, input().split())\nwhile a + b > 10**6: pass\nprint(a + b)"
    tests = [Test(input="1 2\n", output="3\n"), Test(input="1000000 1000000\n", output="2000000\n")]
    solutions = [Solution(code=ADD), Solution(code=slow, verdict="time_limit_exceeded")]
    result = verify([problem(tests=tests, solutions=solutions, cpu_s=0.1)], VerifyOptions(), work)
    assert result.rows[0]["wrong_rejected"] == 1
    assert result.rows[0]["otherwise_rejected"] == 0
    result = verify([problem(solutions=solutions, cpu_s=0.1)], VerifyOptions(), work)
    assert "passes all" in result.rows[0]["weaknesses"][0]
    result = verify([problem(tests=tests, solutions=solutions)], VerifyOptions(too_slow=False), work)
    assert (result.rows[0]["wrong"], result.rows[0]["not_run"]) == (0, 1)


def test_weak_and_unverified_problems_go_only_when_asked(work):
    weak = problem("weak", solutions=[Solution(code=ADD), Solution(code=ADD + "#", verdict="wrong_answer")])
    bare = problem("bare", solutions=[])
    assert len(verify([weak, bare], VerifyOptions(), work).problems) == 2
    result = verify([weak, bare], VerifyOptions(drop_weak=True, drop_unverified=True), work)
    assert [d.reason for d in result.dropped] == ["tests accept a wrong solution", "no accepted solution could be run"]


def test_a_share_of_the_generated_family_can_be_left_unrun(work):
    pool = pipeline_problems(30, (1, 2), 0, split=None)
    result = verify(pool, VerifyOptions(pipelines=0.3), work)
    assert result.problems == pool
    assert 0 < sum(row["accepted"] for row in result.rows) < 20


def test_verdicts_in_the_journal_are_not_computed_again(work):
    verify([problem()], VerifyOptions(), work)
    journal = work.folder / JOURNAL
    key = json.loads(journal.read_text())[0]
    journal.write_text(json.dumps([key, "WA", 1, 2, 0.0, ""]) + '\n["cut off wh')
    result = verify([problem()], VerifyOptions(repair=False), work)
    assert result.dropped[0].detail == "solution 1: WA on test 2 of 2"


# difficulty and split


def samples_file(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_difficulty_comes_from_label_then_rating_and_is_never_guessed(work):
    problems = [problem("a", difficulty="hard"), problem("b", rating=800), problem("c", rating=2600), problem("d")]
    result = difficulty(problems, DifficultyOptions(), work)
    assert [p.difficulty for p in result.problems] == ["hard", "1", "8", "unrated"]
    assert result.figures == {"graded by label": 1, "graded by nothing": 1, "graded by rating": 2}


def test_measured_pass_rates_grade_problems_and_remove_those_without_signal(work, tmp_path):
    counts = {"always": (8, 8), "never": (0, 8), "some": (3, 8), "few": (2, 2)}
    rows = [{"problem_id": name, "passed": p, "samples": n} for name, (p, n) in counts.items()]
    path = samples_file(tmp_path, *rows, {"problem_id": "some", "passed": 0, "samples": 8})
    problems = [problem(name) for name in counts]
    result = difficulty(problems, DifficultyOptions(samples=path, drop_never_solved=True), work)
    assert [(p.id, p.difficulty, p.tags) for p in result.problems] == [
        ("some", "hard", ["pass-rate:0.188"]),
        ("few", "unrated", []),
    ]
    assert [(d.id, d.reason) for d in result.dropped] == [("always", "always solved"), ("never", "never solved")]


@pytest.mark.parametrize("row", [{"problem_id": "a"}, {"problem_id": "a", "passed": 5, "samples": 4}])
def test_a_bad_samples_row_is_named(work, tmp_path, row):
    with pytest.raises(RowError, match=r"samples\.jsonl: row 1: "):
        read_pass_rates(samples_file(tmp_path, row), [], work)


def test_families_are_never_separated_and_the_source_has_the_first_word(work):
    problems = [problem(f"p{n}", family=f"f{n // 3}") for n in range(300)]
    problems += [problem("t", family="x", tags=["split:train"]), problem("h", family="x", tags=["split:heldout"])]
    result = split(problems, SplitOptions(heldout=0.2), work)
    sides: dict[str, set[bool]] = {}
    for p in result.problems:
        sides.setdefault(p.family, set()).add("split:heldout" in p.tags)
    assert all(len(side) == 1 for side in sides.values())
    assert sides["x"] == {True}
    assert 0.1 < sum(True in side for side in sides.values()) / len(sides) < 0.35


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_to_the_held_out_side(family, a, b):
    small, large = sorted((a, b))
    assert is_heldout(family, large) or not is_heldout(family, small)
