"""Evaluation problems among training problems: found by rare words in common, by title, by date; evidence for each."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from data_curation import Problem, Test, save_problems
from data_curation.config import DecontaminateOptions
from data_curation.stages.decontaminate import CONTAMINATED, EvaluationIndex, decontaminate, title_key
from data_curation.stages.result import StageResult, Workplace

DATA = Path(__file__).parents[2].parent / "shared" / "data"
TRAIN, CONTEST = DATA / "leetcode_train_v020.jsonl.gz", DATA / "leetcode_contest_2023_07_to_2024_01.jsonl.gz"
BOILERPLATE = (
    "The first line contains a single integer t the number of test cases . The first line of each test case contains "
    "two integers n and m . It is guaranteed that the sum of n over all test cases does not exceed 200000 . For each "
    "test case print one integer the answer modulo 1000000007 on a separate line . You may print the cases in order ."
)


def story(seed: int, length: int = 60) -> str:
    return " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(0, 3000, length))


def stated(name: str, statement: str, **fields) -> Problem:
    return Problem(id=name, statement=statement, tests=[Test(input="1", output="1")], **fields)


@pytest.fixture
def run(tmp_path):
    def run(problems: list[Problem], evaluation: list[Problem] | None = None, **options) -> StageResult:
        if evaluation is not None:
            save_problems(evaluation, tmp_path / "evaluation.jsonl")
            options["against"] = (str(tmp_path / "evaluation.jsonl"),)
        return decontaminate(problems, DecontaminateOptions(**options), Workplace(tmp_path / "stage"))

    return run


def test_boilerplate_in_common_is_no_contamination_and_a_retold_problem_is(run):
    evaluation = [stated(f"e{n}", f"{story(n)} {BOILERPLATE}") for n in range(20)]
    retold = f"Problem of the day . {story(3)[:-20]} told again"
    training = [stated(f"t{n}", f"{story(100 + n)} {BOILERPLATE}") for n in range(60)] + [stated("copy", retold)]
    result = run(training, evaluation)
    assert [(d.id, d.kept_instead) for d in result.dropped] == [("copy", "e3")]
    assert len(result.problems) == 60


def test_a_hit_shows_the_words_it_rests_on(run):
    result = run([stated("copy", f"intro {story(1)} end")], [stated("e", story(1)), stated("f", story(2))])
    (row,) = result.rows
    assert row["evaluation_id"] == "e" and row["why"] == "words"
    assert row["passage"] == story(1)
    assert row["coverage"] == pytest.approx(1.0)
    assert row["shared"] == 56
    assert all(words in story(1) for words in row["rarest"])
    assert "100% of the weight of e" in result.dropped[0].detail


def test_a_title_in_common_needs_few_words_but_some(run):
    evaluation = [stated("e", story(1), title="Two Boxes")] + [stated(f"e{n}", story(10 + n)) for n in range(5)]
    reworded = stated("reworded", " ".join(story(1).split()[:12]) + " " + story(7), title="two-boxes")
    unrelated = stated("unrelated", story(8), title="Two Boxes")
    result = run([reworded, unrelated], evaluation)
    assert [d.id for d in result.dropped] == ["reworded"]
    assert result.dropped[0].detail.endswith("same title")


def test_marked_problems_stay_with_a_tag(run):
    result = run([stated("copy", story(1)), stated("other", story(2))], [stated("e", story(1))], action="mark")
    assert [[t for t in p.tags if t.startswith(CONTAMINATED)] != [] for p in result.problems] == [True, False]
    assert not result.dropped and len(result.rows) == 1


def test_problems_as_new_as_the_evaluation_are_dropped(run):
    day = datetime.date(2024, 8, 1)
    problems = [
        stated("old", story(1), date=day - datetime.timedelta(1)),
        stated("new", story(2), date=day),
        stated("undated", story(3)),
    ]
    result = run(problems, published_before=day)
    assert [d.id for d in result.dropped] == ["new"]
    assert result.figures["problems without a date"] == 1
    result = run(problems, published_before=day, drop_undated=True)
    assert [(d.id, d.reason) for d in result.dropped] == [("new", "published after the cutoff"), ("undated", "no date")]


def test_without_evaluation_sets_nothing_happens(run):
    problems = [stated("a", story(1))]
    result = run(problems)
    assert (result.problems, result.rows, result.dropped) == (problems, [], [])


def test_slugs_and_titles_are_one_key():
    assert title_key("Count the Houses: Part II") == title_key("count-the-houses-part-ii")
    assert title_key("...") == ""


def test_empty_statements_match_nothing():
    index = EvaluationIndex({"set": [stated("e", "")]}, 5)
    index.count(["", story(1)])
    assert list(index.search([stated("a", ""), stated("b", story(1))], 0.3, 0.05)) == [[], []]


@pytest.mark.skipif(not (TRAIN.exists() and CONTEST.exists()), reason="LeetCode files are not at hand")
def test_leetcode_contests_in_a_training_set_are_found_where_naive_rules_drown():
    def rows(path: Path) -> list[dict]:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    contest = [
        stated(r["title"], r["prompt_sft"].split("\nPlease complete")[0], title=r["title"]) for r in rows(CONTEST)
    ]
    names = {p.id for p in contest}
    training = [stated(r["slug"], r["statement"], title=r["slug"]) for r in rows(TRAIN)]
    # all that are in both, and enough others for the weights
    training = [p for n, p in enumerate(training) if p.id in names or n % 3 == 0]
    truth = {p.id for p in training} & names
    assert len(truth) == 54
    index = EvaluationIndex({"contest": contest}, 5)
    index.count(p.statement for p in training)
    words = {h.id for hits in index.search(training, 0.3, 1.0) for h in hits}
    assert len(words & truth) / len(truth) > 0.9 and len(words & truth) / len(words) > 0.93
    both = {h.id for hits in index.search(training, 0.3, 0.05) for h in hits}
    assert both >= truth and len(truth) / len(both) > 0.93
