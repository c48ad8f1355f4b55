"""The leaderboard says what the results hold, and its matrix opens the samples behind a cell, in a real browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from browser import probed
from click.testing import CliRunner

from rlvr.cli import cli
from rlvr.evaluation import SampleRecord, build_results, write_results, write_samples
from rlvr.report.leaderboard import find_entries, render_leaderboard


def write_evaluation(
    folder: Path,
    skill: float,
    seed: int,
    suite: str = "contest",
    contaminated: int = 0,
    problems: Iterable[int] = range(30),
) -> None:
    rng = np.random.default_rng(seed)
    records = []
    for number in problems:
        level = ("easy", "medium", "hard")[number % 3]
        chance = float(np.clip(skill - 0.25 * (number % 3), 0.02, 0.98))
        for sample in range(4):
            passed = rng.random() < chance
            records.append(
                SampleRecord(
                    problem_id=f"problem-{number:02d}",
                    sample=sample,
                    verdict="AC" if passed else "WA",
                    difficulty=level,
                    rating=1000 + 400 * (number % 3),
                    passed=3 if passed else 1,
                    tests=3,
                    completion_tokens=80,
                    prompt=f"Solve problem {number} <script>alert(1)</script>",
                    completion=f"I think </script> {number}-{sample}",
                    program=f"print({number}, {sample}, {seed})",
                )
            )
    results = build_results(
        {suite: records}, checkpoint=str(folder), ks=[1, 4],
        config={"contamination": {"overlapping_problems": contaminated}, "grader": "1"},
    )  # fmt: skip
    write_results(results, folder)
    write_samples(records, folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed, (step, skill) in enumerate([(0, 0.4), (50, 0.6), (100, 0.9)]):
        write_evaluation(folder / "drive" / "evaluation" / f"step-{step:06d}" / "contest", skill, seed)
    write_evaluation(folder / "evaluation" / "other-model" / "contest", 0.5, 7, contaminated=12)
    write_evaluation(folder / "evaluation" / "other-model" / "second", 0.5, 8, suite="second")
    return folder


def test_entries_are_named_by_where_they_lie(runs: Path) -> None:
    entries = find_entries([runs])
    named = {(e.label, e.suite, e.run, e.step) for e in entries}
    assert ("step-000050", "contest", "drive", 50) in named and len(entries) == 5
    assert {e.step for e in entries if e.label == "other-model"} == {None}
    with pytest.raises(FileNotFoundError, match="no results"):
        find_entries([runs / "nowhere"])


def test_the_page_holds_ranks_intervals_curves_and_warnings(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "leaderboard.html"
    answer = CliRunner().invoke(cli, ["evaluate", "leaderboard", str(runs), "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    text = out.read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!#)', text.replace("http://www.w3.org/", ""))
    assert text.count("avg@1 on contest over training") == 1 and "over training" not in text.split('id="suite-1"')[1]
    body = text.split("<tbody>")[1].split("</tbody>")[0]
    order = re.findall(r"<tr><th>([\w-]+)", body)
    assert order[0] == "step-000100" and order[-1] == "step-000000"
    assert "12 of 30" in text and "estimated rating" in text and "behind the best" in text
    assert "<script>alert" not in text and [p.name for p in out.parent.iterdir()] == ["leaderboard.html"]


def test_names_without_a_run_are_those_of_the_models_and_differ(tmp_path: Path) -> None:
    for place in ("x/small", "y/small", "x/large"):
        write_evaluation(tmp_path / place / "contest", 0.5, 1)
    labels = {entry.label for entry in find_entries([tmp_path / "x", tmp_path / "y"])}
    assert labels == {"x/small", "y/small", "large"}


def test_one_model_evaluated_twice_in_like_folders_stands_twice(tmp_path: Path) -> None:
    for place, skill in (("a", 0.9), ("b", 0.2)):
        write_evaluation(tmp_path / place / "runs" / "evaluation" / "model" / "contest", skill, 1)
    labels = [entry.label for entry in find_entries([tmp_path / "a", tmp_path / "b"])]
    assert labels == ["runs/model", "runs/model (2)"]
    page = render_leaderboard([tmp_path], tmp_path / "page.html").read_text()
    assert "2 models on 1 suite" in page and page.count(">best<") == 1


def test_one_greedy_sample_is_called_so_and_names_are_in_order(tmp_path: Path) -> None:
    records = [SampleRecord(problem_id=f"humaneval/{n}", verdict="WA") for n in (10, 9, 1)]
    config = {"sampling": {"temperature": 0.0}}
    results = build_results({"humaneval": records}, checkpoint="m", ks=[1], config=config)
    write_results(results, tmp_path / "m" / "humaneval")
    page = render_leaderboard([tmp_path], tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert "pass@1</th>" in page and "avg@1" not in page and ">1, greedy</td>" in page
    index = json.loads(gzip.decompress(base64.b64decode(page.split('id="matrix-0">')[1].split("<")[0])))
    assert [name for name, _ in index["problems"]] == ["humaneval/1", "humaneval/9", "humaneval/10"]


def test_models_that_met_other_problems_are_named(runs: Path, tmp_path: Path) -> None:
    from rlvr.report.leaderboard import render_leaderboard

    assert "in common" not in render_leaderboard([runs], tmp_path / "same.html").read_text(encoding="utf-8")
    folder = tmp_path / "evaluation" / "fewer" / "contest"
    write_evaluation(folder, 0.1, 5, problems=range(20, 40))
    page = render_leaderboard([runs, folder], tmp_path / "other.html").read_text(encoding="utf-8")
    assert "fewer (10 in common)" in page and ">-0.0<" not in page
    write_evaluation(folder, 0.99, 5, problems=range(3))
    page = render_leaderboard([runs, folder], tmp_path / "part.html").read_text(encoding="utf-8")
    order = re.findall(r"<tr><th>([\w-]+)(?: <span class=\"ci\">(.*?)</span>)?", page.split("<tbody>")[1])
    assert order[0][1] == "" and order[4] == ("fewer", "3 of 30 problems")


PROBE = """<script>
(async () => {
  const pause = () => new Promise((done) => setTimeout(done, 25));
  const wait = async (test) => { for (let i = 0; i < 400 && !test(); i++) await pause(); };
  await wait(() => document.body.dataset.ready === "2");
  const count = () => document.querySelector('[data-count="0"]').textContent;
  const seen = { all: count(), buttons: document.querySelectorAll('[data-matrix="0"] button').length };
  seen.head = [...document.querySelectorAll('[data-matrix="0"] thead th')].map((cell) => cell.textContent);
  const filter = document.querySelector('[data-filter="0"]');
  filter.value = "problem-07"; filter.dispatchEvent(new Event("input"));
  seen.filtered = count();
  const button = document.querySelector('[data-matrix="0"] button');
  seen.cell = button.textContent;
  button.click();
  const panel = document.querySelector('[data-samples="0"]');
  await wait(() => panel.querySelectorAll("details").length >= 5);
  seen.panel = panel.textContent;
  seen.verdicts = [...panel.querySelectorAll(".verdict")].map((v) => v.textContent);
  document.body.setAttribute("data-probe", JSON.stringify(seen));
})();
</script>
"""


def test_pressing_a_cell_shows_its_samples_in_a_browser(runs: Path, tmp_path: Path) -> None:
    page = render_leaderboard([runs], tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    seen = probed(page, PROBE, tmp_path)
    assert seen["all"] == "30 of 30 problems" and seen["buttons"] == 30 * 4
    assert seen["head"][1] == "step-000100" and seen["filtered"] == "1 of 30 problems"
    assert int(seen["cell"]) == 100 * seen["verdicts"].count("AC") // 4 and len(seen["verdicts"]) == 4
    assert "print(7, 0, 2)" in seen["panel"] and "I think </script> 7-3" in seen["panel"]
    assert "Solve problem 7 <script>alert(1)</script>" in seen["panel"]
