"""Evaluations through an endpoint that answers, fails, or is slow; the real judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.parse import urlsplit

import pytest
from endpoint_server import serving
from sums import asking, invoke, own_suite, recipe_for, solver

from rlvr.config import RecipeError
from rlvr.config.evaluation import EndpointSection
from rlvr.evaluation import Results, read_samples
from rlvr.evaluation import endpoint as endpoint_module
from rlvr.evaluation.endpoint import EndpointFailure
from rlvr.evaluation.evaluate import evaluate
from rlvr.evaluation.grade import grader_version
from sandbox import Verdict


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    original = endpoint_module.EndpointSampler.__init__

    def quick(self: Any, endpoint: Any, sampling: Any, pause_s: float = 0.01) -> None:
        original(self, endpoint, sampling, pause_s)

    monkeypatch.setattr(endpoint_module.EndpointSampler, "__init__", quick)


def test_an_endpoint_is_sampled_graded_and_scored(
    sums_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    out = tmp_path / "out"
    with serving(solver) as (url, requests):
        results = evaluate(recipe_for(sums_file, out, **asking(url)))
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
        again = evaluate(recipe_for(sums_file, out, **asking(url)))
        assert again == results and not requests
        with pytest.raises(RecipeError, match=r"results of another evaluation \(endpoint changed\)"):
            evaluate(recipe_for(sums_file, out, **asking(url2)))


def test_a_server_in_trouble_is_asked_again(sums_file: Path, tmp_path: Path) -> None:
    troubles = [(429, "slow down"), (500, "oops"), (0, ""), (200, "{\"choices\": [{\"mess"), (200, "<html>"),
                (200, "{}"), (200, json.dumps({"choices": [{"message": {"content": None}}]}))]  # fmt: skip

    def moody(body: dict[str, Any], number: int) -> tuple[int, str]:
        return troubles[number] if number < len(troubles) else solver(body, number)

    with serving(moody) as (url, requests):
        results = evaluate(recipe_for(sums_file, tmp_path / "out", **asking(url, tries=8)))
    assert len(requests) == 15 + len(troubles)
    assert results.results["sums"].pass_at[1].value == pytest.approx(3 / 5)


@pytest.mark.parametrize("garbage", [(503, "down"), (200, '{"choices": [{"mess')])
def test_a_dead_endpoint_is_reported_never_scored_and_what_came_is_kept(
    sums_file: Path, tmp_path: Path, garbage: tuple[int, str]
) -> None:
    out = tmp_path / "out"

    def dying(body: dict[str, Any], number: int) -> tuple[int, str]:
        return solver(body, number) if number < 6 else garbage

    with serving(dying) as (url, requests):
        with pytest.raises(EndpointFailure, match="4 of 10 requests have no usable answer") as caught:
            evaluate(recipe_for(sums_file, out, **asking(url, concurrency=1)))
        assert "\n" not in str(caught.value) and "the same command continues" in str(caught.value)
        assert not (out / "results.json").exists()
    assert len(requests) == 6 + 4 * 3

    with serving(solver) as (other, requests), pytest.raises(RecipeError, match="belongs to another evaluation"):
        evaluate(recipe_for(sums_file, out, **asking(other)))
    with serving(solver, port_of(url)) as (again, requests):
        results = evaluate(recipe_for(sums_file, out, **asking(again)))
    assert len(requests) == 15 - 6  # nothing is asked twice
    assert len(read_samples(out)) == 15 and results.results["sums"].pass_at[1].value == pytest.approx(3 / 5)


def test_a_server_that_moved_is_the_same_by_its_name(sums_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def dying(body: dict[str, Any], number: int) -> tuple[int, str]:
        return solver(body, number) if number < 6 else (503, "")

    with serving(dying) as (url, _), pytest.raises(EndpointFailure):
        evaluate(recipe_for(sums_file, out, **asking(url, concurrency=1, tries=1)))
    with serving(solver) as (other, requests):
        results = evaluate(recipe_for(sums_file, out, **asking(other, name=url)))
    assert len(requests) == 15 - 6
    assert_whole(out, results)


SERVER = """
import sys, threading, time
from endpoint_server import serving
from sums import solver

def slow(body, number):
    time.sleep(0.2)
    return solver(body, number)

with serving(slow, int(sys.argv[1])) as (url, _):
    print(url, flush=True)
    threading.Event().wait()
"""


class ServerProcess:
    """A server of its own process, to be killed and started again at the same address."""

    def __init__(self) -> None:
        self.url = ""
        self.start()

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        port = port_of(self.url) if self.url else 0
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stdout=PIPE, env=environment)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    running = ServerProcess()
    yield running
    running.kill()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def answered(out: Path) -> int:
    journal = out / "generations.jsonl"
    return journal.read_text().count('"problem_id"') if journal.exists() else 0


def when_answered(out: Path, count: int, then: Callable[[], None]) -> threading.Thread:
    """Calls `then` in a thread as soon as so many samples are answered."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while answered(out) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def assert_whole(out: Path, results: Results) -> None:
    records = read_samples(out)
    assert len(records) == len({record.key for record in records}) == 15
    assert not any(record.verdict.is_infrastructure for record in records)
    assert results.results["sums"].pass_at[1].value == pytest.approx(3 / 5)


def test_a_server_killed_and_started_again_loses_nothing(
    server: ServerProcess, sums_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def restart() -> None:
        server.kill()
        server.start()

    watcher = when_answered(out, 4, restart)
    results = evaluate(recipe_for(sums_file, out, **asking(server.url, concurrency=2, tries=24)))
    watcher.join()
    assert_whole(out, results)
    said = [line for line in capsys.readouterr().err.splitlines() if "asked again in" in line]
    assert len(said) == 1 and server.url in said[0] and "try 2 of 24" in said[0]


def test_a_server_that_stays_away_is_reported_and_the_same_command_goes_on_when_it_is_back(
    server: ServerProcess, sums_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    suite = own_suite(tmp_path, problems=str(sums_file))
    command = [
        "--suite", suite, "--endpoint", server.url, "--model", "tiny", "--out", out, "endpoint.concurrency=2",
        "endpoint.tries=3", "sampling.n=2", "sampling.greedy=true", "judge.workers=1",
    ]  # fmt: skip
    folder = out / "tiny" / "own"
    watcher = when_answered(folder, 4, server.kill)
    result = invoke(*command)
    watcher.join()
    kept = answered(folder)
    assert result.exit_code == 1 and isinstance(result.exception, EndpointFailure) and 4 <= kept < 15
    assert "the same command continues" in str(result.exception) and not (folder / "results.json").exists()
    server.start()
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    records = read_samples(folder)
    assert len(records) == len({record.key for record in records}) == 15
    assert sum(record.verdict is Verdict.AC for record in records) == 9


def test_a_refusal_that_no_try_mends_is_not_tried_again(sums_file: Path, tmp_path: Path) -> None:
    with serving(lambda *_: (404, "what?")) as (url, requests):
        recipe = recipe_for(sums_file, tmp_path / "a", **asking(url.removesuffix("/v1"), concurrency=1))
        with pytest.raises(EndpointFailure, match=r"HTTP 404: 'what\?' \(addresses mostly go up to and with /v1\)"):
            evaluate(recipe)
    with serving(lambda *_: (401, "no such key")) as (url, requests):
        recipe = recipe_for(sums_file, tmp_path / "out", **asking(url, concurrency=1))
        with pytest.raises(EndpointFailure, match=r"4 of 10 .*, 6 more were not sent; .* HTTP 401: 'no such key'"):
            evaluate(recipe)
    assert len(requests) == 4  # once each, and then no more of them


def test_one_request_without_an_answer_does_not_stop_the_others(sums_file: Path, tmp_path: Path) -> None:
    def picky(body: dict[str, Any], number: int) -> tuple[int, str]:
        return (400, "too long") if "plus 3." in body["messages"][-1]["content"] else solver(body, number)

    out = tmp_path / "out"
    with serving(picky) as (url, requests), pytest.raises(EndpointFailure, match=r"2 of 10 requests .* 'too long'"):
        evaluate(recipe_for(sums_file, out, **asking(url, concurrency=1)))
    assert len(requests) == 10
    assert (out / "generations.jsonl").read_text().count('"problem_id"') == 8


def test_answers_beyond_what_json_readers_take_are_asked_again_and_broken_text_is_kept(
    sums_file: Path, tmp_path: Path
) -> None:
    odd = [(200, "[" * 200_000), (200, '{"choices": ' + "9" * 5000 + "}")]
    half = '{"choices": [{"message": {"content": "\\ud800 and on"}}], "usage": {"completion_tokens": true}}'

    def strange(body: dict[str, Any], number: int) -> tuple[int, str]:
        if number < len(odd):
            return odd[number]
        return (200, half) if "plus 3." in body["messages"][-1]["content"] else solver(body, number)

    out = tmp_path / "out"
    with serving(strange) as (url, requests):
        metrics = evaluate(recipe_for(sums_file, out, **asking(url, concurrency=1))).results["sums"]
    assert len(requests) == 15 + len(odd) and metrics.pass_at[1].value == pytest.approx(3 / 5)
    broken = [record for record in read_samples(out) if record.problem_id == "sum/3"]
    assert {(r.completion, r.completion_tokens) for r in broken} == {("\N{REPLACEMENT CHARACTER} and on", 0)}


def test_a_key_that_is_none_is_refused_and_never_shown(
    sums_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(solver) as (url, requests):
        for key in ("secret\nkey", "secrét"):
            monkeypatch.setenv("OPENAI_API_KEY", key)
            with pytest.raises(RecipeError, match="OPENAI_API_KEY: holds signs") as caught:
                evaluate(recipe_for(sums_file, tmp_path / "out", **asking(url)))
            assert "secr" not in str(caught.value) and not requests
        monkeypatch.setenv("OPENAI_API_KEY", "secret\n")  # read from a file, with the end of its line
        evaluate(recipe_for(sums_file, tmp_path / "out", **asking(url)))
        assert {request["key"] for request in requests} == {"Bearer secret"}


@pytest.mark.parametrize("url", ["http://", "localhost:8000/v1", "http://127.0.0.1:99999/v1", "http://a b/v1"])
def test_what_is_no_address_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match="an address such as http"):
        EndpointSection(url=url, model="m")


def test_judging_anew_asks_for_nothing_and_leaves_what_could_not_be_drawn_out(sums_file: Path, tmp_path: Path) -> None:
    says = json.dumps({"error": {"message": "This model's maximum context length is 64 tokens", "code": 400}})

    def narrow(body: dict[str, Any], number: int) -> tuple[int, str]:
        return (400, says) if "plus 3." in body["messages"][-1]["content"] else solver(body, number)

    out = tmp_path / "out"
    with serving(narrow) as (url, requests):
        recipe = recipe_for(sums_file, out, **asking(url))
        first = evaluate(recipe)
        asked, before = len(requests), read_samples(out)
        again = evaluate(recipe, regrade=True)
    assert len(requests) == asked and read_samples(out) == before
    assert again.results == first.results and again.results["sums"].infrastructure_errors == 3


def test_a_prompt_longer_than_the_servers_context_counts_nowhere_and_is_named(
    sums_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    says = json.dumps({"error": {"message": "This model's maximum context length is 64 tokens", "code": 400}})

    def narrow(body: dict[str, Any], number: int) -> tuple[int, str]:
        return (400, says) if "plus 3." in body["messages"][-1]["content"] else solver(body, number)

    out = tmp_path / "out"
    with serving(narrow) as (url, requests):
        metrics = evaluate(recipe_for(sums_file, out, **asking(url))).results["sums"]
    assert len(requests) == 15  # a prompt that is too long is not asked for again
    assert metrics.problems == 4 and metrics.pass_at[1].value == pytest.approx(3 / 4)
    assert metrics.infrastructure_errors == 3 and metrics.greedy is not None and metrics.greedy.value == 3 / 4
    assert (
        "sum/3: not sampled: the server says \"This model's maximum" in caplog.text
        and "counts in no rate" in caplog.text
    )
    lost = [record for record in read_samples(out) if record.problem_id == "sum/3"]
    assert {record.verdict for record in lost} == {Verdict.IE} and "maximum context length is 64" in lost[0].message

    with serving(lambda *_: (400, says)) as (url, _), pytest.raises(RecipeError, match=r"no sample of its 5 problems"):
        evaluate(recipe_for(sums_file, tmp_path / "none", **asking(url)))


def test_neither_requests_nor_verdicts_wait_for_the_slowest_of_a_batch(sums_file: Path, tmp_path: Path) -> None:
    others, out, graded = threading.Event(), tmp_path / "out", 0

    def straggling(body: dict[str, Any], number: int) -> tuple[int, str]:
        nonlocal graded
        if number == 0:
            assert others.wait(120)
        if number == 9:  # the last of all samples; batches are of 4
            deadline = time.monotonic() + 60
            while graded < 8 and time.monotonic() < deadline:
                graded = (out / "graded.jsonl").read_text().count('"verdict"')
                time.sleep(0.02)
            others.set()
        return solver(body, number)

    with serving(straggling) as (url, requests):
        results = evaluate(recipe_for(sums_file, out, **asking(url, concurrency=2)))
    assert len(requests) == 15 and others.is_set() and graded == 8
    assert_whole(out, results)


def test_a_sample_has_the_same_seed_in_a_run_that_was_stopped(sums_file: Path, tmp_path: Path) -> None:
    def seeds(requests: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
        return dict(Counter((r["messages"][-1]["content"], r["seed"]) for r in requests))

    with serving(solver) as (url, whole):
        evaluate(recipe_for(sums_file, tmp_path / "whole", **asking(url)))
    assert len(seeds(whole)) == 15

    def dying(body: dict[str, Any], number: int) -> tuple[int, str]:
        return solver(body, number) if number < 6 else (401, "")

    with serving(dying) as (url, cut), pytest.raises(EndpointFailure):
        evaluate(recipe_for(sums_file, tmp_path / "cut", **asking(url, concurrency=1)))
    for name in ("generations.jsonl", "graded.jsonl"):
        path = tmp_path / "cut" / name
        path.write_text(path.read_text().replace(url, "http://127.0.0.1:9/v1"))
    with serving(solver) as (url, rest):
        for name in ("generations.jsonl", "graded.jsonl"):
            path = tmp_path / "cut" / name
            path.write_text(path.read_text().replace("http://127.0.0.1:9/v1", url))
        evaluate(recipe_for(sums_file, tmp_path / "cut", **asking(url)))
    assert seeds(cut[:6] + rest) == seeds(whole)
