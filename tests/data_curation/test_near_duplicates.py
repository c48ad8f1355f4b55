"""Near-duplicate candidates and what decides about them: words, titles, tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_curation import Problem, Solution, Test
from data_curation.config import DeduplicateOptions
from data_curation.stages import minhash
from data_curation.stages.deduplicate import deduplicate
from data_curation.stages.minhash import candidate_pairs, jaccard, shingled, shingles, signatures
from data_curation.stages.result import Workplace

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LABELLED_PAIRS = DATA / "near_duplicate_pairs.jsonl.gz"
CODE_JAM = DATA / "google_codejam_kickstart.jsonl.gz"
OPTIONS = DeduplicateOptions()
GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
words = st.lists(st.sampled_from(GREEK), max_size=30).map(" ".join)


@pytest.fixture
def work(tmp_path) -> Workplace:
    return Workplace(tmp_path / "stage")


def rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def random_texts(count: int, length: int = 80, seed: int = 0) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [[f"w{n}" for n in random.integers(0, 500, length)] for _ in range(count)]


@given(words, words)
def test_jaccard_of_shingles_is_that_of_their_word_windows(a, b):
    def windows(text: str) -> set[tuple[str, ...]]:
        tokens = text.split()
        width = min(5, len(tokens))
        return {tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)} if tokens else set()

    union = windows(a) | windows(b)
    expected = len(windows(a) & windows(b)) / len(union) if union else 0.0
    assert jaccard(shingles(a), shingles(b)) == pytest.approx(expected)


@given(st.lists(st.text(max_size=60), max_size=8))
def test_texts_shingled_together_have_the_shingles_they_have_alone(texts):
    together = shingled(texts)
    assert len(together) == len(texts)
    for index, text in enumerate(texts):
        assert together.of(index).tolist() == shingles(text).tolist()


def test_agreement_of_signatures_estimates_the_jaccard_index():
    texts = random_texts(200)
    changed = [[*text[:cut], *other[cut:]] for cut, text, other in zip(range(0, 80), texts, texts[1:], strict=False)]
    both = shingled([" ".join(text) for text in [*texts[: len(changed)], *changed]])
    signature = signatures(both)
    errors = [
        (signature[i] == signature[i + len(changed)]).mean() - jaccard(both.of(i), both.of(i + len(changed)))
        for i in range(len(changed))
    ]
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.06  # the binomial error of 128 samples is at most 0.044


def test_similar_texts_are_found_and_unrelated_ones_are_not():
    texts = [" ".join(text) for text in random_texts(300)]
    copies = [" ".join([*text.split()[:40], "changed", *text.split()[41:]]) for text in texts]
    pairs = candidate_pairs(shingled(texts + copies), 0.7)
    assert {(i, j) for i, j, _ in pairs} == {(i, i + 300) for i in range(300)}
    assert all(similarity >= 0.7 for *_, similarity in pairs)


def test_a_bucket_too_large_to_compare_in_full_still_links_its_copies(monkeypatch):
    monkeypatch.setattr(minhash, "LARGE_BUCKET", 50)
    texts = ["one template with a single word changed at its end namely " + name for name in "abcd" for _ in range(40)]
    linked = {index for pair in candidate_pairs(shingled(texts), 0.9) for index in pair[:2]}
    assert linked == set(range(160))


def test_texts_without_words_are_near_nothing():
    assert candidate_pairs(shingled(["", "", " \n", ""]), 0.0) == []


@pytest.mark.skipif(not LABELLED_PAIRS.exists(), reason=f"{LABELLED_PAIRS.name} is not at hand")
def test_labelled_pairs_are_told_apart_by_their_words():
    found = [(jaccard(shingles(row["text_a"]), shingles(row["text_b"])), row["label"]) for row in rows(LABELLED_PAIRS)]
    options = DeduplicateOptions()
    same = [similarity for similarity, label in found if label == "same_problem"]
    different = [similarity for similarity, label in found if label != "same_problem"]
    assert sum(similarity >= options.candidate_jaccard for similarity in same) / len(same) > 0.9
    assert sum(similarity >= options.text_jaccard for similarity in same) / len(same) > 0.85
    assert max(different) < options.related_jaccard


def stated(name: str, text: list[str], **fields) -> Problem:
    return Problem(id=name, statement=" ".join(text), **fields)


def half_reworded(text: list[str]) -> list[str]:
    return [*text[:56], *(f"new{n}" for n in range(24))]


def test_one_title_over_related_words_is_one_problem(work):
    text = random_texts(1)[0]
    one, other = stated("a", text, title="Milk Tea"), stated("b", half_reworded(text), title="milk  TEA")
    result = deduplicate([one, other], DeduplicateOptions(), work)
    assert [(d.id, d.kept_instead) for d in result.dropped] == [("b", "a")]
    assert result.dropped[0].detail.endswith("same title")
    assert not deduplicate([one, stated("c", half_reworded(text), title="Coffee")], DeduplicateOptions(), work).dropped


def test_the_same_tests_over_related_words_are_one_problem(work):
    text = random_texts(1)[0]
    tests = [Test(input=f"5\n{n} 7 1 9 3 12 88 4 100 41\n", output=f"{n + 13}\n") for n in range(3)]
    one, other = stated("a", text, tests=tests), stated("b", half_reworded(text), tests=tests[:2])
    assert deduplicate([one, other], DeduplicateOptions(), work).dropped[0].detail.endswith("same tests")
    answers = [test.model_copy(update={"output": "no\n"}) for test in tests]
    assert not deduplicate([one, stated("c", half_reworded(text), tests=answers)], DeduplicateOptions(), work).dropped


@pytest.mark.parametrize(
    ("title", "sequel"), [("House Robber", "House Robber II"), ("Game Sort: Part 1", "Game Sort: Part 2")]
)
def test_part_two_of_a_problem_is_not_a_copy_of_part_one(work, title, sequel):
    text = random_texts(1)[0]
    result = deduplicate([stated("a", text, title=title), stated("b", [*text, "twice"], title=sequel)], OPTIONS, work)
    assert not result.dropped
    assert deduplicate([stated("a", text, title=title), stated("b", [*text, "twice"])], OPTIONS, work).dropped


def test_part_two_stays_though_tests_and_solutions_can_be_exchanged(work):
    text = random_texts(1)[0]
    tests = [Test(input=f"5\n{n} 7 1 9 3 12 88 4 100 41\n", output=f"{n + 13}\n") for n in range(3)]
    solutions = [Solution(code="input()\nprint(int(input().split()[0]) + 13)", verdict="accepted")]
    one = stated("a", text, title="Count Candies I", tests=tests, solutions=solutions)
    two = stated("b", [*text, "larger"], title="Count Candies II", tests=tests, solutions=solutions)
    assert not deduplicate([one, two], OPTIONS, work).dropped
    assert deduplicate([one, two.model_copy(update={"title": "Candies"})], OPTIONS, work).dropped


def test_a_number_in_front_of_a_title_names_no_part(work):
    text = random_texts(1)[0]
    one, other = stated("a", text, title="Two Sum"), stated("b", [*text, "it"], title="1. Two Sum")
    assert [d.id for d in deduplicate([one, other], OPTIONS, work).dropped] == ["b"]


def test_numbers_behind_a_source_s_name_are_no_titles_and_words_alone_do_not_decide_there(work):
    text = random_texts(1)[0]
    solutions = [Solution(code="print(int(input()) + 13)", verdict="accepted")]
    tests = [Test(input="5\n", output="18\n")]
    one, other = (
        stated(f"mbpp-{n}", [*text, str(n)], title=f"MBPP {n}", source="mbpp", tests=tests, solutions=solutions)
        for n in (4, 496)
    )
    assert [d.id for d in deduplicate([one, other], OPTIONS, work).dropped] == ["mbpp-496"]
    unsolved = other.model_copy(update={"solutions": []})
    assert not deduplicate([one, unsolved], OPTIONS, work).dropped


@pytest.mark.skipif(not CODE_JAM.exists(), reason=f"{CODE_JAM.name} is not at hand")
def test_problems_set_again_in_later_code_jams_are_found(work):
    problems = [Problem(id=row["id"], title=row["title"], statement=row["statement"]) for row in rows(CODE_JAM)]
    titles = {p.id: p.title for p in problems}
    dropped = deduplicate(problems, OPTIONS, work).dropped
    assert len(dropped) >= 15
    assert [d for d in dropped if titles[d.id] != titles[d.kept_instead]] == []
