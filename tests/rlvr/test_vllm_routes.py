"""Routes recorded in a vLLM worker that cannot return them, taken with the rollouts and replayed in training."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_server import PolicyServer
from test_grpo_trainer import recipe
from test_policy_engines import by_file

from rlvr.models import build_tiny_policy
from rlvr.moe.routes import RouteMismatch, Routes
from rlvr.rollouts.policy_engine import EngineFailure
from rlvr.rollouts.records import read_records
from rlvr.rollouts.vllm_extension import WeightsFromFile
from rlvr.rollouts.vllm_routes import RouteRecorder
from rlvr.rollouts.vllm_server import VLLMFileServer, routes_of
from rlvr.serving.access import TokenForEverything, known_token
from rlvr.training.grpo import train_grpo

LAYERS, DEPTH, TOP_K, LONGEST = (1, 3), 4, 2, 40


class Router:
    global_num_experts = 300
    hear: Any = None

    def set_capture_fn(self, hear: Any) -> None:
        self.hear = hear


class Runner:
    """Executes steps as vLLM's does: the tokens of a batch lie side by side, padded at the end."""

    def __init__(self) -> None:
        self.routers = {layer: Router() for layer in LAYERS}
        self.input_batch = SimpleNamespace(req_ids=[])
        self.positions = torch.zeros(0, dtype=torch.long)
        self.pass_times = 0

    def execute_model(self, scheduled: Any) -> str:
        rows = [(name, position) for name, part in scheduled.batch for position in part]
        self.input_batch.req_ids = [name for name, _ in scheduled.batch]
        self.positions = torch.tensor([position for _, position in rows] + [7, 7])
        self.pass_times += 1
        for layer, router in self.routers.items():
            if router.hear is not None:
                ids = [expert(name, position, layer, self.pass_times) for name, position in rows]
                router.hear(torch.tensor([*ids, [0, 0], [0, 0]]))
        return "answer"


def expert(name: str, position: int, layer: int, times: int) -> list[int]:
    first = (zlib.crc32(name.encode()) % 97 + 7 * position + 3 * layer + times) % 299
    return [first, first + 1]


def step(*batch: tuple[str, range], ended: set[str] | None = None) -> Any:
    counts = {name: len(part) for name, part in batch}
    return SimpleNamespace(
        batch=batch,
        num_scheduled_tokens=counts,
        total_num_scheduled_tokens=sum(counts.values()),
        finished_req_ids=ended or set(),
    )


def started(runner: Runner, **options: Any) -> RouteRecorder:
    recorder = RouteRecorder(runner, runner.routers, DEPTH, LONGEST, **options)
    recorder.start()
    return recorder


@given(st.data())
def test_routes_are_kept_by_request_and_position_however_they_are_batched(data: st.DataObject) -> None:
    """Prompts in parts, any order in a batch, sequences that are preempted and computed anew from their start."""
    runner = Runner()
    recorder = started(runner)
    lengths = data.draw(st.lists(st.integers(2, 12), min_size=1, max_size=4))
    done = [0] * len(lengths)
    computed: dict[tuple[int, int], int] = {}  # (request, position) -> the step that computed it last
    preempted = 0
    while any(at < length for at, length in zip(done, lengths, strict=True)):
        waiting = [row for row, length in enumerate(lengths) if done[row] < length]
        rows = data.draw(st.permutations(waiting))[: data.draw(st.integers(1, len(waiting)))]
        batch = []
        for row in rows:
            count = data.draw(st.integers(1, lengths[row] - done[row]))
            batch.append((f"cmpl-{row}-0-abcd", range(done[row], done[row] + count)))
            computed |= {(row, position): runner.pass_times + 1 for position in batch[-1][1]}
            done[row] += count
        assert runner.execute_model(step(*batch)) == "answer"
        if preempted < 3 and data.draw(st.booleans()):
            done[data.draw(st.sampled_from(rows))] = 0
            preempted += 1
    for row, length in enumerate(lengths):
        taken = recorder.take(f"cmpl-{row}", length)
        assert taken.shape == (length - 1, DEPTH, TOP_K) and taken.dtype == np.uint16
        assert not taken[:, [0, 2]].any()
        for position in range(length - 1):
            for layer in LAYERS:
                expected = expert(f"cmpl-{row}-0-abcd", position, layer, computed[row, position])
                assert taken[position, layer].tolist() == expected


def test_what_was_not_recorded_whole_is_an_error() -> None:
    runner = Runner()
    recorder = started(runner, untaken=2)
    runner.execute_model(step(("cmpl-a-0-1", range(4, 9)), ("cmpl-b-0-1", range(6)), ("cmpl-bb-0-1", range(2))))
    with pytest.raises(RouteMismatch, match=r"cmpl-a: 4 of 9 tokens have no routes; were they taken from a cache\?"):
        recorder.take("cmpl-a", 10)
    assert len(recorder.take("cmpl-b", 7)) == 6
    for name in ("cmpl-b", "cmpl-other"):
        with pytest.raises(RouteMismatch, match=f"{name}: 0 sequences of that name"):
            recorder.take(name, 7)
    for row in range(4):
        runner.execute_model(step((f"cmpl-{row}-0-1", range(3)), ended={f"cmpl-{row - 1}-0-1"}))
    with pytest.raises(RouteMismatch, match="cmpl-0: 0 seq"):
        recorder.take("cmpl-0", 3)  # ended long ago: those whom nobody asks for do not pile up
    assert len(recorder.take("cmpl-1", 3)) == 2
    runner.routers[3].set_capture_fn(None)  # a layer whose router is passed by
    runner.execute_model(step(("cmpl-c-0-1", range(3))))
    with pytest.raises(RouteMismatch, match="a step of 3 tokens, of which 0 passed the router of layer 3"):
        recorder.take("cmpl-c", 3)
    recorder.stop()
    assert runner.routers[1].hear is None
    assert runner.execute_model(step(("cmpl-d-0-1", range(3)))) == "answer"


def test_a_worker_records_once_told_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, worker = Runner(), WeightsFromFile()
    worker.model_runner = runner
    made = iter([RouteRecorder(runner, runner.routers, DEPTH, LONGEST)])
    monkeypatch.setattr("rlvr.rollouts.vllm_routes.recorder_of", lambda runner: next(made))
    assert "was it restarted?" in worker.take_routes("cmpl-a", 3)["missing"]
    assert worker.capture_routes(True) == worker.capture_routes(True) == {"refused": None}
    runner.execute_model(step(("cmpl-a-0-1", range(3))))
    assert routes_of(worker.take_routes("cmpl-a", 3)["routes"]).shape == (2, DEPTH, TOP_K)
    assert "cmpl-a" in worker.take_routes("cmpl-a", 3)["missing"]
    assert worker.capture_routes(False) == {"refused": None}
    assert runner.routers[1].hear is None

    def refuses(runner: Any) -> Any:
        raise RouteMismatch("it runs with prefix caching")

    monkeypatch.setattr("rlvr.rollouts.vllm_routes.recorder_of", refuses)
    assert worker.capture_routes(True) == {"refused": "it runs with prefix caching"}


@pytest.fixture
def server() -> Iterator[Any]:
    made: list[PolicyServer] = []

    def start(checkpoint: Path, **options: Any) -> PolicyServer:
        made.append(PolicyServer(checkpoint, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, demonstrations: list[dict[str, str]]) -> Path:
    texts = [row["prompt"] + row["completion"] for row in demonstrations[:400]]
    size: dict[str, Any] = {"vocab_size": 400, "hidden": 32, "layers": 2, "heads": 2, "mlp": 64, "expert_mlp": 32}
    return build_tiny_policy(
        texts, tmp_path_factory.mktemp("experts") / "glm", family="glm4_moe", experts=8, top_k=2, **size
    )


def test_a_server_that_records_routes_trains_with_r3_behind_a_token(server, experts, problems_file, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    engine = server(experts, token="secret")
    grpo = by_file(engine.url, vllm_token_file=str(tmp_path / "token"), max_steps=1, max_completion_length=8)
    moe = {"replay": "r3", "keep_routes": True}
    shaped = {"overlong_buffer": 6}  # lengths differ, so there is something to learn whatever passes
    train_grpo(recipe(experts, problems_file, tmp_path / "run", grpo=grpo, moe=moe, reward=shaped))
    (line,) = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["moe/replayed"] == 1.0 and 0 <= line["sampling/k3"] < 1e-6
    rows = list(read_records(tmp_path / "run" / "rollouts" / "stage1"))
    assert rows and engine.routes == {}, "every rollout's routes were taken"
    for row in rows:
        routes = Routes.from_bytes(row["routes"])
        assert routes.known.all() and len(routes) == len(row["tokens"]) - 1


def test_a_server_without_routes_ends_r3_before_it_samples_and_leaves_auto_to_r2(server, experts, caplog):
    engine = server(experts, routes="it runs with prefix caching")
    options: dict[str, Any] = {"weights": dict, "sampling": {}}
    with pytest.raises(EngineFailure, match=r"gives no routes: it runs with prefix caching; or set moe\.replay"):
        VLLMFileServer(engine.url, **options, routes="needed")
    VLLMFileServer(engine.url, **options, routes="unused")
    assert caplog.messages == []
    VLLMFileServer(engine.url, **options, routes="wanted")
    assert len(caplog.messages) == 1 and "it runs with prefix caching" in caplog.messages[0]
    assert engine.requests == 0 and not engine.recording
    itself = server(experts, aux_output_config={"enable_return_routed_experts": True})
    VLLMFileServer(itself.url, **options, routes="needed")
    assert not itself.recording, "it returns them"


def test_a_guarded_server_is_reached_with_its_token_only(server, experts, tmp_path, monkeypatch):
    monkeypatch.delenv("RLVR_SERVE_TOKEN", raising=False)
    engine = server(experts, token="secret")
    options: dict[str, Any] = {"weights": dict, "sampling": {}}
    with pytest.raises(EngineFailure, match=r"asks for a token; set grpo\.vllm_token_file"):
        VLLMFileServer(engine.url, **options)
    (tmp_path / "other").write_text("guess")
    with pytest.raises(EngineFailure, match=r"asks for a token and refuses this one; set grpo\.vllm_token_file"):
        VLLMFileServer(engine.url, **options, token_file=tmp_path / "other")
    for name, content, line in (
        ("none", None, "No such file"),
        ("empty", "", "one token"),
        ("two", "a b", "one token"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=rf"token file .*{name}: .*{line}"):
            known_token(tmp_path / name)
    monkeypatch.setenv("RLVR_SERVE_TOKEN", "secret")
    VLLMFileServer(engine.url, **options)


@pytest.mark.parametrize(
    ("path", "given", "status"),
    [
        ("/collective_rpc", None, 401),
        ("/collective_rpc", b"Bearer guess", 401),
        ("/v1/models", b"secret", 401),
        ("/collective_rpc", b"Bearer secret", 200),
        ("/health", None, 200),
        ("/metrics", None, 200),
        ("/healthy", None, 401),
    ],
)
def test_the_guard_asks_for_the_token_on_every_route_but_a_watchs(path, given, status, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"x")] + ([(b"authorization", given)] if given else [])
    asyncio.run(TokenForEverything(app)({"type": "http", "path": path, "headers": headers}, None, send))
    assert sent[0]["status"] == status


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "dtype"), [("qwen3_moe", "bfloat16"), pytest.param("glm4_moe", "float32", marks=pytest.mark.thorough)]
)
def test_a_real_vllm_server_records_the_routes_that_training_replays(vllm_python, family, dtype, tmp_path):
    """Many sequences a step; a token asked for."""
    out = tmp_path / "result.json"
    benchmark = Path(__file__).parents[2] / "benchmarks" / "moe_training_vllm.py"
    command = [sys.executable, str(benchmark), "--vllm-python", vllm_python, "--family", family, "--dtype", dtype]
    done = subprocess.run(
        [*command, "--steps", "2", "--tokens", "24", "--out", str(out)], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    replayed, free = result["r3"], result["off"]
    assert replayed["moe/replayed"] == [1.0, 1.0] and free["moe/replayed"] == [0.0, 0.0]
    assert min(replayed["grad_norm"]) > 0
    same = result["first_step"]["same_experts"]
    if dtype == "float32":  # what is recorded is what the trainer, without rounding, would choose
        assert min(same) == 1.0 and max(replayed["sampling/logprob_gap_max"]) < 1e-3
    else:
        assert max(same) < 1.0, "rounding must re-route some tokens, else the test says nothing"
        assert sum(replayed["sampling/k3"]) < 0.8 * sum(free["sampling/k3"])
