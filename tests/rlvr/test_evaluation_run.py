"""Evaluations from start to end: endpoints that fail, files of samples, kills, contamination; the real judge."""

from __future__ import annotations

import datetime
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from endpoint_server import completion, serving

from data_curation import Problem, Solution, Test, save_problems
from rlvr.cli import cli
from rlvr.config import EvaluationRecipe, RecipeError
from rlvr.evaluation import endpoint as endpoint_module
from rlvr.evaluation import read_results, read_samples
from rlvr.evaluation.endpoint import EndpointFailure
from rlvr.evaluation.evaluate import evaluate
from rlvr.evaluation.grade import grader_version
from rlvr.evaluation.journal import Journal
from rlvr.evaluation.suites import load_suites, shipped_suites, suite_recipe
from sandbox import Verdict

WORDS = [a + b for a in ("harb", "lant", "grav", "orch", "velv") for b in ("our", "ern", "el", "id", "et")]


def make_problem(number: int, **fields: Any) -> Problem:
    story = " ".join(random.Random(number).choices(WORDS, k=60))
    values: dict[str, Any] = {
        "id": f"sum/{number}",
        "title": f"Sum and {number}",
        "statement": f"Read one number and print it plus {number}. {story}",
        "tests": [Test(input=f"{x}\n", output=f"{x + number}\n") for x in (1, 5)],
        "solutions": [Solution(code=f"print(int(input()) + {number})")],
        "difficulty": "easy" if number < 3 else "hard",
        "rating": 1000.0 + 200 * number,
        "date": datetime.date(2025, 1 + number % 12, 1),
        "tags": ["math"],
    }
    return Problem(**values | fields)


PROBLEMS = [make_problem(number) for number in range(5)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    save_problems(PROBLEMS, path)
    return path


def fenced(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


def solver(body: dict[str, Any], number: int) -> tuple[int, str]:
    """Solves the problems with an even number, whatever the temperature."""
    wanted = int(body["messages"][-1]["content"].split("plus ")[1].split(".")[0])
    return completion(fenced(f"print(int(input()) + {wanted if wanted % 2 == 0 else 99})"))


def recipe_for(source: Path, out: Path, **fields: Any) -> EvaluationRecipe:
    base: dict[str, Any] = {
        "suite": "sums",
        "output_dir": str(out),
        "data": {"problems": str(source)},
        "sampling": {"n": 2, "k": [1, 2], "temperature": 0.7, "batch_size": 4},
        "judge": {"workers": 1},
    }
    return EvaluationRecipe.model_validate(base | fields)


def asking(url: str, **fields: Any) -> dict[str, Any]:
    return {"endpoint": {"url": url, "model": "tiny", "tries": 3, **fields}}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    original = endpoint_module.EndpointSampler.__init__

    def quick(self: Any, endpoint: Any, sampling: Any, pause_s: float = 0.01) -> None:
        original(self, endpoint, sampling, pause_s)

    monkeypatch.setattr(endpoint_module.EndpointSampler, "__init__", quick)


# --- an endpoint ---


def test_an_endpoint_is_sampled_graded_and_scored(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    out = tmp_path / "out"
    with serving(solver) as (url, requests):
        results = evaluate(recipe_for(source, out, **asking(url)))
    metrics = results.results["sums"]
    assert metrics.pass_at[1].value == pytest.approx(3 / 5) and metrics.greedy is not None
    assert metrics.by_difficulty["hard"].pass_at[1].value == 0.5
    assert metrics.estimated_rating is not None and metrics.estimated_rating.problems == 5
    assert list(metrics.by_month) == [f"2025-0{m}" for m in range(1, 6)]
    assert len(requests) == 15 and Counter(r["temperature"] for r in requests) == {0.7: 10, 0.0: 5}
    assert {r["path"] for r in requests} == {"/v1/chat/completions"} and requests[0]["key"] == "Bearer secret-key"
    records = read_samples(out)
    assert [(r.problem_id, r.greedy, r.sample) for r in records[:4]] == [
        ("sum/0", False, 0), ("sum/0", False, 1), ("sum/0", True, 0), ("sum/1", False, 0)
    ]  # fmt: skip
    first = records[0]
    assert first.completion_tokens == 7 and first.program == "print(int(input()) + 0)\n"
    assert first.cases == [Verdict.AC, Verdict.AC] and first.grader == grader_version()
    assert sorted(p.name for p in out.iterdir()) == [
        "config.resolved.yaml", "contamination.json", "environment.json", "results.json", "samples.jsonl"
    ]  # fmt: skip
    assert not any("secret-key" in p.read_text() for p in out.iterdir())
    with serving(lambda *_: (500, "")) as (url2, requests):  # finished: read back, nobody is asked
        again = evaluate(recipe_for(source, out, **asking(url)))
        assert again == results and not requests
        with pytest.raises(RecipeError, match="another model"):
            evaluate(recipe_for(source, out, **asking(url2)))


def test_a_server_in_trouble_is_asked_again(source: Path, tmp_path: Path) -> None:
    troubles = [(429, "slow down"), (500, "oops"), (0, ""), (200, "{\"choices\": [{\"mess"), (200, "<html>"),
                (200, "{}"), (200, json.dumps({"choices": [{"message": {"content": None}}]}))]  # fmt: skip

    def moody(body: dict[str, Any], number: int) -> tuple[int, str]:
        return troubles[number] if number < len(troubles) else solver(body, number)

    with serving(moody) as (url, requests):
        results = evaluate(recipe_for(source, tmp_path / "out", **asking(url, tries=8)))
    assert len(requests) == 15 + len(troubles)
    assert results.results["sums"].pass_at[1].value == pytest.approx(3 / 5)


@pytest.mark.parametrize("garbage", [(503, "down"), (200, '{"choices": [{"mess')])
def test_a_dead_endpoint_is_reported_never_scored_and_what_came_is_kept(
    source: Path, tmp_path: Path, garbage: tuple[int, str]
) -> None:
    out = tmp_path / "out"

    def dying(body: dict[str, Any], number: int) -> tuple[int, str]:
        return solver(body, number) if number < 6 else garbage

    with serving(dying) as (url, requests):
        with pytest.raises(EndpointFailure, match="4 of 10 requests have no usable answer") as caught:
            evaluate(recipe_for(source, out, **asking(url, concurrency=1)))
        assert "\n" not in str(caught.value) and "the same command continues" in str(caught.value)
        assert not (out / "results.json").exists()
    assert len(requests) == 6 + 4 * 3

    with serving(solver) as (other, requests):
        elsewhere = recipe_for(source, out, **asking(other))
        with pytest.raises(RecipeError, match="belongs to another evaluation"):
            evaluate(elsewhere)
    port = int(url.rpartition(":")[2].split("/")[0])
    assert port
    (out / "generations.jsonl").write_text((out / "generations.jsonl").read_text().replace(url, other))
    (out / "graded.jsonl").write_text((out / "graded.jsonl").read_text().replace(url, other))
    with serving(solver) as (third, requests):
        for name in ("generations.jsonl", "graded.jsonl"):
            (out / name).write_text((out / name).read_text().replace(other, third))
        results = evaluate(recipe_for(source, out, **asking(third)))
    assert len(requests) == 15 - 6  # nothing is asked twice
    assert len(read_samples(out)) == 15 and results.results["sums"].pass_at[1].value == pytest.approx(3 / 5)


def test_a_refusal_that_no_try_mends_is_not_tried_again(source: Path, tmp_path: Path) -> None:
    with serving(lambda *_: (401, "no such key")) as (url, requests):
        recipe = recipe_for(source, tmp_path / "out", **asking(url, concurrency=1))
        with pytest.raises(EndpointFailure, match=r"4 of 10 .*, 6 more were not sent; .* HTTP 401: 'no such key'"):
            evaluate(recipe)
    assert len(requests) == 4  # once each, and then no more of them


def test_one_request_without_an_answer_does_not_stop_the_others(source: Path, tmp_path: Path) -> None:
    def picky(body: dict[str, Any], number: int) -> tuple[int, str]:
        return (400, "too long") if "plus 3." in body["messages"][-1]["content"] else solver(body, number)

    out = tmp_path / "out"
    with serving(picky) as (url, requests), pytest.raises(EndpointFailure, match=r"2 of 10 requests .* 'too long'"):
        evaluate(recipe_for(source, out, **asking(url, concurrency=1)))
    assert len(requests) == 10
    assert (out / "generations.jsonl").read_text().count('"problem_id"') == 8


def test_no_request_waits_for_the_slowest_of_a_batch(source: Path, tmp_path: Path) -> None:
    others = threading.Event()

    def straggling(body: dict[str, Any], number: int) -> tuple[int, str]:
        if number == 0:
            assert others.wait(60)
        if number == 9:  # the last of all samples; batches are of 4
            others.set()
        return solver(body, number)

    with serving(straggling) as (url, requests):
        evaluate(recipe_for(source, tmp_path / "out", **asking(url, concurrency=2)))
    assert len(requests) == 15 and others.is_set()


def test_a_sample_has_the_same_seed_in_a_run_that_was_stopped(source: Path, tmp_path: Path) -> None:
    def seeds(requests: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
        return dict(Counter((r["messages"][-1]["content"], r["seed"]) for r in requests))

    with serving(solver) as (url, whole):
        evaluate(recipe_for(source, tmp_path / "whole", **asking(url)))
    assert len(seeds(whole)) == 15

    def dying(body: dict[str, Any], number: int) -> tuple[int, str]:
        return solver(body, number) if number < 6 else (401, "")

    with serving(dying) as (url, cut), pytest.raises(EndpointFailure):
        evaluate(recipe_for(source, tmp_path / "cut", **asking(url, concurrency=1)))
    for name in ("generations.jsonl", "graded.jsonl"):
        path = tmp_path / "cut" / name
        path.write_text(path.read_text().replace(url, "http://127.0.0.1:9/v1"))
    with serving(solver) as (url, rest):
        for name in ("generations.jsonl", "graded.jsonl"):
            path = tmp_path / "cut" / name
            path.write_text(path.read_text().replace("http://127.0.0.1:9/v1", url))
        evaluate(recipe_for(source, tmp_path / "cut", **asking(url)))
    assert seeds(cut[:6] + rest) == seeds(whole)


def test_a_folder_where_another_process_works_is_refused(tmp_path: Path) -> None:
    first = Journal(tmp_path / "graded.jsonl", {"suite": "a"})
    with pytest.raises(ValueError, match="another process is at work"):
        Journal(tmp_path / "graded.jsonl", {"suite": "a"})
    first.close()
    Journal(tmp_path / "graded.jsonl", {"suite": "b"}).close()  # a header alone holds no work to lose
    assert json.loads((tmp_path / "graded.jsonl").read_text()) == {"suite": "b"}


# --- samples made elsewhere ---


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sample_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for problem in PROBLEMS:
        rows.append({"task_id": problem.title.upper(), "completion": fenced(problem.solutions[0].code)})
        rows.append({"problem_id": problem.id, "program": "print(1)", "tokens": 3, "finish_reason": "length"})
    return rows


def test_a_file_of_samples_is_graded_only(source: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    results = evaluate(recipe_for(source, tmp_path / "out", samples=str(file)))
    metrics = results.results["sums"]
    assert metrics.pass_at[1].value == 0.5 and metrics.pass_at[2].value == 1.0
    assert metrics.truncation_rate == 0.5 and results.checkpoint == str(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_id": "sum/77", "program": "x"}, r"mine\.jsonl:11: problem 'sum/77' is not in the suite"),
        ({"problem_id": "sum/1", "sample": 0, "program": "x"}, r":11: sample 0 of .* stands already in line 3"),
        ({"problem_id": "sum/1"}, r":11: neither 'completion' nor 'program'"),
        ({"program": "x"}, r":11: key 'problem_id' is missing"),
        ({"problem_id": "sum/1", "program": "x", "sample": "two"}, r":11: 'sample' must be a whole number"),
    ],
)  # fmt: skip
def test_bad_samples_are_named_by_file_and_line(
    source: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = write_rows(tmp_path / "mine.jsonl", [*sample_rows(), change])
    with pytest.raises(RecipeError, match=message):
        evaluate(recipe_for(source, tmp_path / "out", samples=str(file)))
    assert not (tmp_path / "out" / "results.json").exists()


def test_verdicts_of_another_grader_are_not_mixed_and_can_be_made_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    recipe = recipe_for(source, out, samples=str(file))
    evaluate(recipe)
    records = read_samples(out)
    (out / "results.json").unlink()
    header = {"data_fingerprint": "x", "grader": "another"}
    graded = out / "graded.jsonl"
    write_rows(graded, [header, *(json.loads(r.model_dump_json()) for r in records)])
    kept = graded.read_bytes()
    with pytest.raises(RecipeError, match='grader was "another"'):
        evaluate(recipe)
    assert graded.read_bytes() == kept
    assert evaluate(recipe, regrade=True).results["sums"].pass_at[2].value == 1.0
    with pytest.raises(RecipeError, match="the suite is fixed to"):
        evaluate(recipe.model_copy(update={"grader": "0.0", "output_dir": str(tmp_path / "fixed")}))


# --- kills ---

KILLED = """
import sys, time
from rlvr.config import EvaluationRecipe
from rlvr.evaluation.evaluate import evaluate
evaluate(EvaluationRecipe.model_validate_json(sys.argv[1]))
"""


def test_a_killed_evaluation_continues_without_loss_or_duplicates(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def slow(body: dict[str, Any], number: int) -> tuple[int, str]:
        time.sleep(0.3)
        return solver(body, number)

    with serving(slow) as (url, requests):
        recipe = recipe_for(source, out, **asking(url, concurrency=1))
        command = [sys.executable, "-c", KILLED, recipe.model_dump_json()]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.time() + 120
        while len(requests) < 7 and time.time() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = len(requests)
        answered = (out / "generations.jsonl").read_text().count('"problem_id"')
        assert 4 <= answered <= before
        with (out / "graded.jsonl").open("a") as file:
            file.write('{"problem_id": "sum/0", "samp')  # a line cut short
        results = evaluate(recipe)
        assert len(requests) - before == 15 - answered
    records = read_samples(out)
    assert len(records) == len({r.key for r in records}) == 15
    assert results.results["sums"].pass_at[1].value == pytest.approx(3 / 5)
    assert results.cost.generate_s > 0


def test_a_local_model_gives_the_same_samples_after_a_kill(
    warm_model: Path, problems_file: Path, tmp_path: Path
) -> None:
    def recipe(out: str) -> EvaluationRecipe:
        return EvaluationRecipe.model_validate(
            {
                "suite": "pipelines",
                "output_dir": str(tmp_path / out),
                "model": {"name_or_path": str(warm_model)},
                "data": {"problems": str(problems_file), "limit": 6},
                "prompt": {"style": "plain"},
                "sampling": {"n": 3, "k": [1, 3], "max_completion_length": 24, "batch_size": 8},
                "judge": {"workers": 1},
            }
        )

    whole = evaluate(recipe("whole"))
    assert {r.finish_reason for r in read_samples(tmp_path / "whole")} <= {"stop", "length"}

    cut = tmp_path / "cut"
    evaluate(recipe("cut"))
    samples = read_samples(cut)
    for name in ("results.json", "samples.jsonl"):
        (cut / name).unlink()
    from rlvr.evaluation.evaluate import _identity
    from rlvr.evaluation.problems import suite_problems

    identity = _identity(recipe("cut"), suite_problems(recipe("cut")))
    rows = [
        {"problem_id": r.problem_id, "sample": r.sample, "greedy": r.greedy, "tokens": r.completion_tokens,
         "finish_reason": r.finish_reason, "completion": r.completion}
        for r in samples[:10]
    ]  # fmt: skip
    write_rows(cut / "generations.jsonl", [identity, *rows])
    with (cut / "generations.jsonl").open("a") as file:
        file.write('{"problem_id": "pi')
    resumed = evaluate(recipe("cut"))
    assert [r.completion for r in read_samples(cut)] == [r.completion for r in samples]
    assert resumed.results == whole.results


# --- suites ---


def test_every_shipped_suite_is_valid_and_says_what_it_needs() -> None:
    assert {"humaneval", "mbpp", "drive", "drive-livecode-v6"} <= set(shipped_suites())
    for name in shipped_suites():
        for suite in load_suites(name):
            assert suite.description and suite.column
            recipe = suite_recipe(suite, "out", data="/data", model={"name_or_path": "m"})
            assert "{data}" not in recipe.data.problems
    assert [suite.column for suite in load_suites("drive")] == ["LC 08-11", "V5", "V6", "LeetCode", "Codeforces"]
    assert all((suite.sampling.n, suite.sampling.k) == (10, [1, 10]) for suite in load_suites("drive"))
    excluded = {item.id for item in load_suites("drive-livecode-v6")[0].data.exclude}
    assert {"abc311_c", "abc337_e", "most-frequent-ids"} <= excluded


def test_the_mbpp_test_suite_is_tasks_11_to_510(tmp_path: Path) -> None:
    from rlvr.evaluation.problems import suite_problems

    file = tmp_path / "mbpp.jsonl"
    row = {"text": "Add one.", "code": "def f(x):\n    return x + 1\n", "test_list": ["assert f(1) == 2"]}
    write_rows(file, [{"task_id": n, **row, "text": f"Add {n}."} for n in (9, 10, 11, 12, 510, 511, 601)])
    (suite,) = load_suites("mbpp-test")
    recipe = suite_recipe(
        suite, tmp_path / "out", data=str(file), overrides=["data.expected=3"], model={"name_or_path": "m"}
    )
    assert [problem.id for problem in suite_problems(recipe)] == ["mbpp-11", "mbpp-12", "mbpp-510"]
    assert suite.data.expected == 500


def test_suites_and_their_mistakes() -> None:
    with pytest.raises(RecipeError, match="did you mean humaneval"):
        load_suites("humanevl")
    (suite,) = load_suites("humaneval")
    with pytest.raises(RecipeError, match="say with --data where"):
        suite_recipe(suite, "out", model={"name_or_path": "m"})
    with pytest.raises(RecipeError, match="exactly one of model, endpoint and samples"):
        suite_recipe(suite, "out", data="x")
    with pytest.raises(RecipeError, match="sampling"):
        suite_recipe(suite, "out", data="x", model={"name_or_path": "m"}, overrides=["sampling.n=0"])


def own_suite(tmp_path: Path, **data: Any) -> Path:
    path = tmp_path / "own.yaml"
    body = {"suite": "own", "description": "ours", "data": {"problems": "{data}"} | data,
            "sampling": {"n": 1, "k": [1], "greedy": False}}  # fmt: skip
    path.write_text(json.dumps(body))
    return path


@pytest.mark.parametrize(
    ("data", "left", "message"),
    [
        ({"after": "2025-02-01", "before": "2025-04-01"}, 3, None),
        (
            {"exclude": [{"id": "sum/1", "reason": "wrong tests"}, {"id": "sum-and-2", "reason": "interactive"}]},
            3,
            None,
        ),
        ({"difficulties": ["hard"]}, 2, None),
        ({"expected": 4}, 0, "5 problems, but suite own is made of 4"),
        ({"after": "2026-01-01"}, 0, "none of its 5 problems is left to evaluate \\(5 window\\)"),
    ],
)
def test_suites_are_cut_to_their_window_and_exclusions(
    source: Path, tmp_path: Path, data: dict[str, Any], left: int, message: str | None
) -> None:
    from rlvr.evaluation.problems import suite_problems

    (suite,) = load_suites(str(own_suite(tmp_path, **data)))
    recipe = suite_recipe(suite, tmp_path / "out", data=str(source), model={"name_or_path": "m"})
    if message is not None:
        with pytest.raises(RecipeError, match=message):
            suite_problems(recipe)
    else:
        assert len(suite_problems(recipe)) == left


def test_a_suite_without_tests_is_refused(tmp_path: Path) -> None:
    from rlvr.evaluation.problems import suite_problems

    source = tmp_path / "none.jsonl"
    save_problems([p.model_copy(update={"tests": []}) for p in PROBLEMS], source)
    with pytest.raises(RecipeError, match="none of its 5 problems is left to evaluate \\(5 no tests\\)"):
        suite_problems(recipe_for(source, tmp_path / "out", model={"name_or_path": "m"}))


# --- the command ---


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_more_samples_asked_for_than_drawn_is_one_line(source: Path, tmp_path: Path, dry: tuple[str, ...]) -> None:
    suite = own_suite(tmp_path)
    answer = invoke(
        "--suite", suite, "--data", source, "--model", "m", "--out", tmp_path / "e", "sampling.k=[1,2]", *dry
    )
    assert isinstance(answer.exception, RecipeError)
    (line,) = str(answer.exception).splitlines()
    assert "sampling.k: pass@2 needs sampling.n >= 2, and sampling.n is 1" in line
    assert not (tmp_path / "e").exists()


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])


def test_the_command_grades_compares_and_lists(source: Path, tmp_path: Path) -> None:
    suite = own_suite(tmp_path)
    good = write_rows(tmp_path / "good.jsonl", [r for r in sample_rows() if "completion" in r])
    bad = write_rows(tmp_path / "bad.jsonl", [{"problem_id": p.id, "program": "print(6)"} for p in PROBLEMS])
    for file in (good, bad):
        answer = invoke(
            "--suite", suite, "--data", source, "--samples", file, "--out", tmp_path / "e", "judge.workers=1"
        )
        assert answer.exit_code == 0, (answer.output, answer.exception)
    assert "own: pass@1 0.000" in answer.output and "estimated rating" in answer.output
    results = [tmp_path / "e" / name / "own" for name in ("bad", "good")]
    assert read_results(results[1]).results["own"].pass_at[1].value == 1.0
    answer = invoke("compare", *results)
    assert "0.000 -> 1.000" in answer.output and "Holm" in answer.output
    assert invoke("compare", results[0]).exit_code == 2
    assert "drive-livecode-v6" in invoke("--list").output
    assert "say what to evaluate" in invoke("--suite", suite, "--data", source).output
    assert invoke("--suite", suite, "--data", source, "--model", "m", "--dry-run").output.startswith("suite: own")
    two = invoke("--suite", suite, "--data", source, "--model", "m", "--references").output
    assert "one target at a time, got --references and --model" in two
    assert "needs the folder of a RUN" in invoke("--suite", suite, "--model", "m", "--all-checkpoints").output
    absent = invoke("--suite", suite, "--data", source, "--model", "nowhere", "--out", tmp_path / "n")
    assert "model nowhere: no such folder" in str(absent.exception) and not (tmp_path / "n").exists()


def test_exit_codes_tell_bad_input_from_a_failure_on_the_way(source: Path, tmp_path: Path) -> None:
    def ended(*arguments: Any) -> tuple[int, list[str]]:
        command = [sys.executable, "-m", "rlvr.cli", "evaluate", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stderr.strip().splitlines()

    suite = own_suite(tmp_path)
    code, lines = ended("compare", tmp_path / "a")
    assert code == 2 and lines[-1] == "rlvr: compare needs at least two results"
    target = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--out", tmp_path / "dead")
    code, lines = ended("--suite", suite, "--data", source, *target, "endpoint.tries=1")
    assert code == 1 and lines[-1].startswith("rlvr: http://127.0.0.1:9/v1: ") and "ConnectError" in lines[-1]


@pytest.mark.slow
def test_samples_drawn_by_a_real_vllm(wide_warm_model: Path, problems_file: Path, tmp_path: Path) -> None:
    """Greedy completions are those of transformers; sampled ones are the same when the first half is drawn alone."""
    python = os.environ.get("RLVR_VLLM_PYTHON")
    if not python:
        pytest.skip("RLVR_VLLM_PYTHON names no Python with vLLM")
    suite = tmp_path / "pipelines.yaml"
    suite.write_text(
        "suite: pipelines\ndescription: tiny\ndata: {problems: '{data}', limit: 6}\nprompt: {style: plain}\n"
        "sampling: {n: 2, k: [1], max_completion_length: 24, batch_size: 4}\n"
    )
    shared = ("--suite", str(suite), "--data", str(problems_file), "--model", str(wide_warm_model), "judge.workers=1")
    options = "engine_options={enforce_eager: true, max_model_len: 256, gpu_memory_utilization: 0.1}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    drawn = {}
    for name, extra in (("whole", []), ("half", ["data.limit=3"])):
        command = [python, "-m", "rlvr.cli", "evaluate", *shared, "--engine", "vllm", options, *extra]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name)], env=environment, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (samples,) = (tmp_path / name).rglob("samples.jsonl")
        drawn[name] = {r.key: (r.completion, r.completion_tokens, r.finish_reason) for r in read_samples(samples)}
    assert len(drawn["whole"]) == 18 and len(drawn["half"]) == 9
    assert drawn["half"].items() <= drawn["whole"].items()
    assert invoke(*shared, "--out", tmp_path / "here").exit_code == 0
    (samples,) = (tmp_path / "here").rglob("samples.jsonl")
    greedy = {r.key: (r.completion, r.completion_tokens, r.finish_reason) for r in read_samples(samples) if r.greedy}
    assert greedy.items() <= drawn["whole"].items()


def test_the_local_engine_writes_what_generate_writes(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlvr.rollouts.engine import Sampling, TransformersEngine

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    prompts = ["Double every number.\n# program\n", "You are given n integers. Print the sum.\n# program\n"] * 2
    found = TransformersEngine(model, tokenizer, batch_size=3).generate(prompts, Sampling(24, temperature=0.0), seed=1)
    for prompt, drawn in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        row = model.generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
        ended = tokenizer.eos_token_id in row
        assert drawn.text == tokenizer.decode(row, skip_special_tokens=True)
        assert (drawn.tokens, drawn.finish_reason) == (len(row), "stop" if ended else "length")


def test_references_are_graded_like_any_sample_and_failing_ones_are_named(source: Path, tmp_path: Path) -> None:
    broken = PROBLEMS[2].model_copy(update={"solutions": [Solution(code="print(3)")]})
    without = PROBLEMS[4].model_copy(update={"solutions": [Solution(code="print(3)", verdict="wrong_answer")]})
    save_problems([*PROBLEMS[:2], broken, without], source)
    arguments = ("--suite", own_suite(tmp_path), "--data", source, "--references", "--out", tmp_path / "e")
    answer = invoke(*arguments, "judge.workers=1")
    assert answer.exit_code == 0, (answer.output, answer.exception)
    assert "own: 2 of 3 references pass" in answer.output and "sum/2: WA" in answer.output
    (left_out,) = [line for line in answer.output.splitlines() if "no reference" in line]
    assert "sum/4" in left_out
    assert read_results(tmp_path / "e" / "references" / "own").checkpoint == "references"
    save_problems([without], source)
    answer = invoke(*arguments[:-1], tmp_path / "f", "judge.workers=1")
    assert isinstance(answer.exception, RecipeError)
    assert "none of the 1 problems has a reference solution in python" in str(answer.exception)


def test_all_checkpoints_of_a_run_are_evaluated(warm_model: Path, problems_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("checkpoint-2", "checkpoint-10", "final"):
        (run / name).symlink_to(warm_model)
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps({
        "suite": "p", "description": "d", "prompt": {"style": "plain"},
        "data": {"problems": str(problems_file), "limit": 2},
        "sampling": {"n": 1, "k": [1], "greedy": False, "max_completion_length": 16},
    }))  # fmt: skip
    answer = invoke(run, "--all-checkpoints", "--suite", path, "judge.workers=1")
    assert answer.exit_code == 0, (answer.output, answer.exception)
    assert sorted(p.parent.parent.name for p in run.glob("evaluation/*/p/results.json")) == [
        "checkpoint-10", "checkpoint-2", "final"
    ]  # fmt: skip


def test_what_others_publish_is_printed_beside(source: Path, tmp_path: Path) -> None:
    suite = own_suite(tmp_path)
    suite.write_text(json.dumps(json.loads(suite.read_text()) | {"published": {"Their model": {"pass@1": 0.25}}}))
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    answer = invoke("--suite", suite, "--data", source, "--samples", file, "--out", tmp_path / "e", "judge.workers=1")
    assert "own: published, with their own prompts, sampling and judges: Their model pass@1 0.250" in answer.output
