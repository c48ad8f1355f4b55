"""Whether a suite holds what a model was trained on: copies and edited copies are found, relatives are not."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from sums import PROBLEMS, make_problem, recipe_for, sample_rows, write_rows

from data_curation import Problem, save_problems
from data_curation.builtin.pipelines import pipeline_demonstrations, pipeline_problems
from rlvr.commands.evaluate import summary
from rlvr.config import PromptSection
from rlvr.evaluation.contamination import Overlap, ancestry, overlapping
from rlvr.evaluation.evaluate import evaluate
from rlvr.fingerprints import Fingerprints, fingerprint, of_problem, read_fingerprints, write_fingerprints, write_texts
from rlvr.rollouts.prompts import completion_text, render_prompt

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    save_problems(PROBLEMS, path)
    return path


def texts(statements: list[str]) -> Fingerprints:
    return Fingerprints([fingerprint(f"text {number}", "", text) for number, text in enumerate(statements)])


def edited(text: str, rate: float, seed: int) -> str:
    """The text with a share of its words left out or replaced by others of it."""
    chance, words = random.Random(seed), text.split()
    kept = [chance.choice(words) if chance.random() < rate / 2 else word for word in words]
    return " ".join(word for word in kept if chance.random() >= rate / 2)


def rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ids(overlaps: list[Overlap]) -> list[str]:
    return [overlap.problem_id for overlap in overlaps]


# --- a family of statements filled into one template ---

PLAIN = PromptSection(style="plain")


@pytest.fixture(scope="module")
def family() -> tuple[list[Problem], dict[str, Fingerprints]]:
    """Held-out problems of the built-in family, and what the quickstart trains on: demonstrations and problems."""
    demonstrations = pipeline_demonstrations(3000, [0, 1, 1, 2, 2, 2], 0, vocabulary="core")
    prompts = sorted({row["statement"] + "\n# program\n" for row in demonstrations})
    training = pipeline_problems(120, [1, 2, 2], 0, split="train", vocabulary="core")
    heldout = pipeline_problems(60, [1, 2, 2], 0, split="heldout", vocabulary="core")
    return heldout, {"sft": texts(prompts), "stage1": Fingerprints([of_problem(problem) for problem in training])}


def test_other_compositions_of_the_built_in_family_are_no_contamination(
    family: tuple[list[Problem], dict[str, Fingerprints]],
) -> None:
    heldout, training = family
    prompts = {problem.id: completion_text(render_prompt(problem, PLAIN)) for problem in heldout}
    assert overlapping(heldout, training, prompts) == []


@pytest.mark.parametrize("size", [4, 12, 40, 160])
def test_small_training_sets_of_one_template_raise_few_false_alarms(size: int) -> None:
    """Few training texts do not show what their template is; the suite's own texts do."""
    heldout = pipeline_problems(48, [1, 2, 2], 0, split="heldout", vocabulary="core")
    training = pipeline_problems(400, [1, 2, 2], 0, split="train", vocabulary="core")
    alarms = 0
    for seed in range(5):
        chosen = random.Random(seed).sample(training, size)
        alarms += len(overlapping(heldout, {"run": Fingerprints([of_problem(problem) for problem in chosen])}))
    assert alarms / (5 * len(heldout)) < 0.06


def test_leaked_statements_and_prompts_of_the_built_in_family_are_found(
    family: tuple[list[Problem], dict[str, Fingerprints]],
) -> None:
    heldout, training = family
    prompts = {problem.id: completion_text(render_prompt(problem, PLAIN)) for problem in heldout}
    leaked = {"statements": texts([problem.statement.upper() for problem in heldout[:7]])}
    found = overlapping(heldout, training | leaked, prompts)
    assert ids(found) == [problem.id for problem in heldout[:7]] and {o.why for o in found} == {"statement"}
    leaked = {"prompts": texts([prompts[problem.id] for problem in heldout[7:12]])}
    found = overlapping(heldout, training | leaked, prompts)
    assert ids(found) == [problem.id for problem in heldout[7:12]] and {o.why for o in found} == {"prompt"}


# --- statements written each for itself ---


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.08])
def test_edited_copies_among_statements_of_their_own_are_found(rate: float) -> None:
    rules = "The input holds n and m on one line, then n lines with two integers each. Print one integer: the answer."
    problems = [make_problem(n, title="") for n in range(40)]
    problems = [p.model_copy(update={"statement": f"{p.statement} {rules}"}) for p in problems]
    corpus = [p.model_copy(update={"id": f"c{p.id}"}) for p in (make_problem(n, title="") for n in range(100, 140))]
    training = [f"{p.statement} {rules}" for p in corpus]
    assert overlapping(problems, {"corpus": texts(training)}) == []
    copies = [edited(p.statement, rate, n) for n, p in enumerate(problems[:10])]
    found = overlapping(problems, {"corpus": texts(training), "leak": texts(copies)})
    assert ids(found) == [p.id for p in problems[:10]] and {o.source for o in found} == {"leak"}


def test_a_problem_copied_many_times_is_found_although_its_phrases_are_common() -> None:
    problems = [make_problem(n, title="") for n in range(5)]
    copies = [f"Exercise {number}: {problems[2].statement}" for number in range(12)]
    (found,) = overlapping(problems, {"copies": texts(copies), "rest": texts([make_problem(77).statement])})
    assert found.problem_id == problems[2].id and found.why == "words" and found.coverage >= 0.95


def test_an_equal_title_needs_less_in_common() -> None:
    problem = make_problem(1, title="The Long Road")
    words = problem.statement.split()
    retold = " ".join([*words[: len(words) * 2 // 5], *make_problem(50).statement.split()])
    same, other = (Fingerprints([fingerprint("x", title, retold)]) for title in ("the long road!", "another"))
    assert [o.why for o in overlapping([problem], {"t": same})] == ["title"]
    assert overlapping([problem], {"t": other}) == []


@pytest.mark.skipif(not (DATA / "leetcode_train_v020.jsonl.gz").is_file(), reason=f"needs the data sets in {DATA}")
def test_real_contest_problems_in_a_real_training_set_are_found_by_their_words() -> None:
    """Truth: equal LeetCode slugs. Ids are others, so that words decide."""
    train = {row["slug"]: row["statement"] for row in rows("leetcode_train_v020.jsonl.gz")}
    contests = {row["title"]: row["prompt"] for row in rows("leetcode_contest_2023_07_to_2024_01.jsonl.gz")}
    truth = train.keys() & contests.keys()
    assert len(truth) == 54
    problems = [Problem(id=slug, statement=prompt.split('"""')[1]) for slug, prompt in contests.items()]
    found = set(ids(overlapping(problems, {"train": texts(list(train.values()))})))
    assert found <= truth and len(found) >= 48  # the rest was rewritten by its publisher


# --- an evaluation ---


def test_training_problems_in_the_suite_are_found_and_said(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft, run = tmp_path / "sft", tmp_path / "run"
    retold = PROBLEMS[3].model_copy(update={"id": "other/9", "title": "", "statement": "NEW: " + PROBLEMS[3].statement})
    write_fingerprints(run, [retold, make_problem(40)])
    write_texts(sft, [("demonstration 0", "", PROBLEMS[1].statement), ("demonstration 1", "", "something else")])
    for folder, start in ((run, sft / "final"), (sft, tmp_path / "nowhere")):
        (folder / "final").mkdir(parents=True)
        (folder / "config.resolved.yaml").write_text(json.dumps({"model": {"name_or_path": str(start)}}))
    assert list(ancestry(run / "final")) == [run, sft]
    assert len(read_fingerprints(run).problems) == 2
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    out = tmp_path / "out"
    results = evaluate(
        recipe_for(source, out, samples=str(file), trained_on=[str(run), str(sft)], data_cutoff="2025-02-15")
    )
    said = capsys.readouterr().err
    assert "WARNING: sums: 2 of 5 problems are in the training data" in said
    assert "sum/3 ~ other/9" in said and "2 of 5 problems are from before the model's data cutoff" in said
    found = results.config["contamination"]
    assert found["overlapping_problems"] == 2 and found["problems_before_cutoff"] == 2
    assert [line for line in summary(results) if "WARNING" in line] == [  # again beside the figures, hours later
        "WARNING: sums: 2 of 5 problems are in the training data",
        "WARNING: sums: 2 of 5 problems are from before the model's data cutoff",
    ]
    assert found["without_overlap"]["problems"] == 3 and found["without_overlap"]["pass@1"] == 0.5
    assert any("avg@1 0.500" in line and "over the 3 problems without overlap" in line for line in summary(results))
    overlaps = json.loads((out / "contamination.json").read_text())["overlaps"]
    assert [(o["problem_id"], o["why"]) for o in overlaps] == [("sum/1", "statement"), ("sum/3", "words")]


def test_a_suite_apart_from_the_training_data_is_said_to_be(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "train.jsonl"
    save_problems([make_problem(n, date=None) for n in (31, 32)], other)
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    evaluate(recipe_for(source, tmp_path / "out", samples=str(file), trained_on=[str(other)]))
    assert "no overlap with training data" in capsys.readouterr().err


def test_large_training_sets_keep_a_sample_that_still_finds_copies(tmp_path: Path, monkeypatch: Any) -> None:
    from rlvr import fingerprints

    monkeypatch.setattr(fingerprints, "FULL_TEXTS", 10)
    problems = [make_problem(n, date=None) for n in range(40)]
    retold = [p.model_copy(update={"id": f"x{i}", "title": "", "statement": p.statement + " Good luck!"})
              for i, p in enumerate(problems)]  # fmt: skip
    write_fingerprints(tmp_path, retold)
    known = read_fingerprints(tmp_path)
    assert isinstance(known, Fingerprints) and known.modulus == 4
    found = overlapping(problems[:5], {"run": known})
    assert len(found) >= 4
