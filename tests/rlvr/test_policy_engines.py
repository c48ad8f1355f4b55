"""Engines behind one protocol: a server given weights by file samples with the policy; faults end the run by name."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_server import PolicyServer
from safetensors.torch import load_file
from test_grpo_trainer import recipe
from transformers import AutoModelForCausalLM

from rlvr.moe.sync import Manifest, SyncRefused
from rlvr.rollouts import vllm_server
from rlvr.rollouts.policy_engine import EngineFailure, longest_first
from rlvr.rollouts.vllm_in_process import generates_as_they_end, random_numbers_kept
from rlvr.rollouts.vllm_server import VLLMFileServer, write_weights
from rlvr.training import engines, grpo_trainer
from rlvr.training.checkpoints import complete_checkpoints
from rlvr.training.faults import TrainingFault
from rlvr.training.grpo import train_grpo


@pytest.fixture
def server(warm_model) -> Iterator[Any]:
    made: list[PolicyServer] = []

    def start(checkpoint: Path = warm_model, **options: Any) -> PolicyServer:
        made.append(PolicyServer(checkpoint, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def by_file(url: str, **grpo: Any) -> dict[str, Any]:
    few = {"problems_per_step": 3, "max_completion_length": 20, "max_steps": 2, "save_steps": 1}
    return {"use_vllm": True, "vllm_mode": "file", "vllm_url": url, **few, **grpo}


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_server_fed_by_file_samples_with_the_policys_weights_every_step(server, warm_model, problems_file, tmp_path):
    engine = server()
    budget = {"policy": "knapsack", "estimator": "beta", "low": 2, "high": 8}
    reward = {"overlong_buffer": 18}  # lengths differ, so there is something to learn whatever passes
    run = recipe(warm_model, problems_file, tmp_path / "run", grpo=by_file(engine.url), budget=budget, reward=reward)
    final = train_grpo(run)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2] and engine.syncs == 2
    for line in lines:
        assert line["sampling/logprob_gap"] < 1e-4 and line["sync/canary_gap"] < 1e-5
        assert line["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3)
    start, end = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (warm_model, final))
    assert any(not torch.equal(start[name], end[name]) for name in start)
    again = recipe(
        warm_model, problems_file, tmp_path / "again", grpo=by_file(engine.url), budget=budget, reward=reward
    )
    train_grpo(again)  # seeds are the run's, not the server's
    files = [tmp_path / name / "rollouts" / "stage1" / "step-000001.parquet" for name in ("run", "again")]
    later = pq.read_table(files[0].with_name("step-000002.parquet")).column("policy_version")
    assert set(later.to_pylist()) == {1}, "the version of the weights stands with every rollout"
    assert pq.read_table(files[0]).to_pylist() == pq.read_table(files[1]).to_pylist()


@pytest.mark.parametrize("kept", ["all", "pack"])
def test_what_mis_masks_leaves_the_loss_but_not_the_gap(server, warm_model, problems_file, tmp_path, monkeypatch, kept):
    inner = VLLMFileServer.sample

    def wrong_numbers(self, *arguments):
        done = inner(self, *arguments)
        logps = [[p - 1.2 for p in row] if i % 3 == 0 else row for i, row in enumerate(done.logps)]
        return dataclasses.replace(done, logps=logps)

    monkeypatch.setattr(VLLMFileServer, "sample", wrong_numbers)
    few = {"max_steps": 1, "skip_zero_signal": kept != "all", "pack_micro_batches": kept != "all"}
    reward = {"overlong_buffer": 18}
    run = recipe(
        warm_model,
        problems_file,
        tmp_path / "run",
        grpo=by_file(server().url, **few),
        reward=reward,
        alarms={"stop_logprob_gap": None},
    )
    train_grpo(run)
    (line,) = metrics(tmp_path / "run")
    assert line["sampling/rejected_rollouts"] == pytest.approx(1 / 3)  # TRL's default: sequences above 3
    assert 0.1 < line["sampling/masked_tokens"] < 0.6
    assert 0.1 < line["sampling/logprob_gap"] < 0.9 and line["sampling/logprob_gap_max"] == pytest.approx(1.2, abs=1e-3)
    strict = {"stop_logprob_gap": 0.1}
    run = recipe(warm_model, problems_file, tmp_path / "stops", grpo=by_file(server().url, **few), alarms=strict)
    with pytest.raises(TrainingFault, match="what was sampled is not what is trained on"):
        train_grpo(run)


def test_a_server_that_keeps_its_old_weights_is_noticed(server, tiny_model, warm_model, problems_file, tmp_path):
    engine = server(checkpoint=tiny_model, fault="stale")  # the policy before it was fine-tuned
    unchecked = {"canary_first": 0, "canary_every": 0}
    run = recipe(
        warm_model,
        problems_file,
        tmp_path / "run",
        grpo=by_file(engine.url),
        alarms={"stop_logprob_gap": 0.02},
        sync=unchecked,
    )
    with pytest.raises(TrainingFault, match="what was sampled is not what is trained on"):
        train_grpo(run)
    assert complete_checkpoints(tmp_path / "run") == [] and engine.scored == 0
    run = recipe(warm_model, problems_file, tmp_path / "checked", grpo=by_file(engine.url))
    sampled = engine.requests
    with pytest.raises(TrainingFault, match=r"step 1: after the sync of version 0 .* differ by .* above 0\.1"):
        train_grpo(run)
    assert engine.requests == sampled, "before anything is sampled"


def test_a_server_that_starts_anew_within_a_step_is_noticed(server, warm_model, problems_file, tmp_path):
    run = recipe(warm_model, problems_file, tmp_path / "run", grpo=by_file(server(fault="forgets").url))
    with pytest.raises(TrainingFault, match=r"step 1: .*sampled with version its first of the weights, not 0"):
        train_grpo(run)


def test_a_server_that_loses_a_tensor_is_refused(server, warm_model, problems_file, tmp_path):
    run = recipe(warm_model, problems_file, tmp_path / "run", grpo=by_file(server(fault="partial").url))
    with pytest.raises(
        TrainingFault, match=r"step 1: .*took over 19 tensors of version 0, not 20 .*: its weights are not"
    ):
        train_grpo(run)


def test_an_engine_that_dies_in_a_step_is_named_and_the_run_goes_on_from_its_checkpoint(
    server, warm_model, problems_file, tmp_path
):
    engine = server()
    engine.die_after = 12 + 5  # in the second step
    run = recipe(warm_model, problems_file, tmp_path / "run", grpo=by_file(engine.url))
    with pytest.raises(
        TrainingFault, match=r"step 2: .*/v1/completions: 500 .*EngineDeadError.*same command continues"
    ):
        train_grpo(run)
    assert [step for step, _ in complete_checkpoints(tmp_path / "run")] == [1]
    engine.die_after = None
    train_grpo(run)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


@pytest.mark.parametrize(
    ("silent", "line"), [(True, "/health: no answer for 12 s"), (False, "has sampled no token for 12 s")]
)
def test_an_engine_that_hangs_ends_the_run_by_name_and_it_goes_on_from_its_checkpoint(
    server, warm_model, problems_file, tmp_path, silent, line
):
    """Connections stand and no byte comes: of anything, or of completions only. The limit is 45 s, shortened here."""
    engine = server()
    engine.hang_after, engine.silent = 12 + 5, silent  # in the second step
    out = tmp_path / "run"
    run = recipe(warm_model, problems_file, out, grpo=by_file(engine.url))
    watch = functools.partial(grpo_trainer.watched_server, patience_s=12, every_s=0.5)

    def train_to_the_end() -> None:
        with (tmp_path / "stderr").open("wb") as stderr:
            os.dup2(stderr.fileno(), 2)
            sys.stderr = os.fdopen(2, "w")
            grpo_trainer.watched_server = watch
            train_grpo(run)

    child = multiprocessing.get_context("fork").Process(target=train_to_the_end)
    child.start()
    child.join(400)
    assert child.exitcode == 1
    said = (tmp_path / "stderr").read_text()
    assert engine.url in said and line in said and "the same command continues from the newest checkpoint" in said
    assert [step for step, _ in complete_checkpoints(out)] == [1]
    engine.hang_after = None
    train_grpo(run)
    assert [entry["step"] for entry in metrics(out)] == [1, 2]


def test_a_server_without_memory_for_the_weights_is_named(server, warm_model, problems_file, tmp_path):
    run = recipe(warm_model, problems_file, tmp_path / "run", grpo=by_file(server(fault="full").url))
    with pytest.raises(TrainingFault, match=r"step 1: .*collective_rpc: 500 .*CUDA out of memory.*command continues"):
        train_grpo(run)


@pytest.mark.parametrize(
    ("inject", "message"),
    [
        (
            "gather",
            r"step 2: vLLM server: out of memory while handing over the weights \(CUDA out of memory.*continues",
        ),
        ("disk", r"step 2: .*GiB of weights could not be written to .*No space left.*TMPDIR.*continues"),
    ],
)
def test_no_memory_at_the_second_sync_leaves_a_checkpoint(
    inject, message, server, warm_model, problems_file, tmp_path, monkeypatch
):
    engine = server()
    run = recipe(warm_model, problems_file, tmp_path / "run", grpo=by_file(engine.url))
    owner, name = (engines, "policy_weights") if inject == "gather" else (vllm_server, "write_weights")
    inner = getattr(owner, name)

    def full(*arguments: Any) -> Any:
        if engine.syncs == 1:
            raise torch.OutOfMemoryError("CUDA out of memory") if inject == "gather" else OSError(28, "No space left")
        return inner(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, full)
        with pytest.raises(TrainingFault, match=message) as stopped:
            train_grpo(run)
    assert stopped.value.exit_code == 1
    assert [step for step, _ in complete_checkpoints(tmp_path / "run")] == [1]
    train_grpo(run)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


def test_memory_that_other_processes_see_is_used_where_it_has_room():
    assert vllm_server.shared_memory(2**60) is None
    place = vllm_server.shared_memory(1)
    assert place is None or os.access(place, os.W_OK)


def test_a_connection_that_stands_and_says_nothing_is_an_engine_failure(server):
    engine = server()
    client = VLLMFileServer(engine.url, weights=dict, sampling={})
    engine.hang_after = 0
    with pytest.raises(EngineFailure, match="/collective_rpc: connected, but silent for 1 s"):
        client._post("/collective_rpc", {"args": ["x"]}, 1)


def test_a_server_not_started_for_training_or_not_there_is_refused_at_once(server):
    options: dict[str, Any] = {"weights": dict, "sampling": {}}
    with pytest.raises(EngineFailure, match="logprobs-mode raw_logprobs; processed_logprobs is needed"):
        VLLMFileServer(server(mode="raw_logprobs").url, **options)
    with pytest.raises(EngineFailure, match="the engine runs with enable_eplb: it moves experts"):
        VLLMFileServer(server(parallel_config={"enable_eplb": True}).url, **options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineFailure, match=rf"127.0.0.1:{port}/v1/models: no answer for 1 s .*how to start one"):
        VLLMFileServer(f"http://127.0.0.1:{port}", **options, patience_s=1)


def test_weights_are_written_as_they_come_in_files_of_bounded_size(tmp_path):
    tensors = {f"layer{i}": torch.full((2, 8), float(i)) for i in range(5)}  # 64 bytes each
    manifest = write_weights(iter(tensors.items()), tmp_path, version=3, part_bytes=150)
    assert manifest == Manifest.of(3, tensors) and manifest.elements == 80
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert [len(load_file(part)) for part in parts] == [2, 2, 1]
    read = {name: tensor for part in parts for name, tensor in load_file(part).items()}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    with pytest.raises(SyncRefused, match="layer0 would be sent twice"):
        write_weights([*tensors.items(), *tensors.items()], tmp_path, version=4)


def test_tied_weights_are_handed_over_once(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    accelerator = SimpleNamespace(unwrap_model=lambda wrapped: wrapped, distributed_type="NO")
    trainer = SimpleNamespace(model=model, model_wrapped=model, accelerator=accelerator)
    sent = dict(engines.policy_weights(trainer))
    ties = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert sent.keys() == model.state_dict().keys() - ties
    assert engines.weights_size(trainer) == sum(tensor.nbytes for tensor in sent.values())


@given(st.lists(st.one_of(st.none(), st.floats(1, 1e4)), max_size=20))
def test_unknown_lengths_come_first_then_the_longest(expected):
    order = longest_first(expected)
    lengths = [float("inf") if expected[row] is None else expected[row] for row in order]
    assert sorted(order) == list(range(len(expected))) and lengths == sorted(lengths, reverse=True)


@contextlib.contextmanager
def real_vllm(python: str, model: Path, log: Path, *options: str) -> Iterator[str]:
    """The address of a vLLM server for training, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    fixed = ["--dtype", "float32", "--enforce-eager", "--gpu-memory-utilization", "0.1", "--max-model-len", "256"]
    command = [python, "-m", "rlvr.rollouts.vllm_server", "--model", str(model), "--port", url.rpartition(":")[2]]
    with log.open("w") as file:
        process = subprocess.Popen([*command, *fixed, *options], env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 1800
            while True:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(1)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "glm4_moe"])
def test_a_real_vllm_server_takes_over_weights_exactly(vllm_python, wide_warm_model, problems_file, tmp_path, family):
    moe = {} if family == "llama" else {"moe": {"replay": "r2"}}
    model = wide_warm_model(family)
    with real_vllm(vllm_python, model, tmp_path / "vllm.log") as url:
        with urllib.request.urlopen(f"{url}/server_info?config_format=json") as answer:
            # where the refusal of moving experts looks
            assert json.load(answer)["vllm_config"]["parallel_config"]["enable_eplb"] is False
        grpo = by_file(url, learning_rate=0.02, max_steps=3, problems_per_step=6)
        shaped = {"overlong_buffer": 18}
        train_grpo(recipe(model, problems_file, tmp_path / "run", grpo=grpo, reward=shaped, **moe))
    lines = metrics(tmp_path / "run")
    assert len(lines) == 3 and all(line["sampling/logprob_gap"] < 1e-3 for line in lines)
    assert all(line["sync/canary_gap"] < 1e-3 for line in lines)
    assert any(line["grad_norm"] > 0 for line in lines[:-1])  # so the weights did move between syncs


@pytest.mark.slow
def test_a_real_vllm_in_the_trainers_process_takes_over_weights_every_step_and_continues_as_the_same_run(
    vllm_python, wide_warm_model, problems_file, tmp_path
):
    colocate = {"use_vllm": True, "vllm_mode": "colocate", "learning_rate": 0.02, "max_steps": 3, "save_steps": 1}
    extra = {"vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 256}
    run = recipe(wide_warm_model("llama"), problems_file, tmp_path / "run", grpo={**colocate, "extra": extra})
    file = tmp_path / "recipe.json"
    file.write_text(run.model_dump_json())

    def train() -> Path:
        done = subprocess.run(
            [vllm_python, "-m", "rlvr.cli", "train", "--config", str(file)],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            },
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp_path / "run" / "final" / "model.safetensors"

    whole = train().read_bytes()
    lines = metrics(tmp_path / "run")
    assert len(lines) == 3 and any(line["grad_norm"] > 0 for line in lines[:-1])
    assert all(line["sampling/logprob_gap"] < 0.02 for line in lines)  # stale weights: 0.1 and more
    for later in ("final", "checkpoint-3", "checkpoint-2"):
        shutil.rmtree(tmp_path / "run" / later)
    assert train().read_bytes() == whole


class OneTokenAStep:
    """What `generates_as_they_end` uses of a vLLM engine: row n ends after n + 1 steps."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.asked: list[str] = []
        self.left: dict[str, int] = {}
        self.steps, self.broken_at = 0, broken_at

    def add_request(self, request_id: str, prompt: Any, params: Any) -> None:
        self.asked.append(request_id)
        self.left[request_id] = prompt["prompt_token_ids"][0]

    def has_unfinished_requests(self) -> bool:
        return bool(self.left)

    def abort_request(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.left.pop(request_id, None)

    def step(self) -> list[Any]:
        self.steps += 1
        if self.steps == self.broken_at:
            raise RuntimeError("engine broke")
        ended = [name for name, steps in self.left.items() if steps == self.steps]
        for name in ended:
            del self.left[name]
        return [
            SimpleNamespace(request_id=name, finished=True, outputs=[SimpleNamespace(token_ids=(self.steps,))])
            for name in ended
        ]


def test_a_vllm_in_the_process_tells_of_rollouts_as_they_end_and_asks_in_the_order_given(monkeypatch):
    kinds = SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY="final only"))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(sampling_params=kinds))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", kinds)
    prompts, cpu = [{"prompt_token_ids": [n]} for n in (1, 2, 3)], torch.device("cpu")
    llm, heard = SimpleNamespace(llm_engine=OneTokenAStep()), []
    one = SimpleNamespace(llm=llm, tensor_parallel_size=1)
    told = lambda row, tokens: heard.append((row, tokens, llm.llm_engine.steps))  # noqa: E731
    with generates_as_they_end(one, [2, 0, 1], told, cpu):
        answers = llm.generate(prompts, SimpleNamespace(), use_tqdm=False)
    assert llm.llm_engine.asked == ["2", "0", "1"] and not hasattr(llm, "generate")
    assert heard == [(0, [1], 1), (1, [2], 2), (2, [3], 3)]
    assert [answer.request_id for answer in answers] == ["0", "1", "2"]
    llm.llm_engine = OneTokenAStep(broken_at=2)
    with pytest.raises(RuntimeError, match="engine broke"), generates_as_they_end(one, [0, 1, 2], None, cpu):
        llm.generate(prompts, SimpleNamespace())
    assert llm.llm_engine.left == {} and not hasattr(llm, "generate")  # nothing of it comes back in the next call


def test_processes_that_share_a_vllm_ask_and_draw_alike_and_hear_of_their_own_rows(monkeypatch):
    kinds = SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY="final only"))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(sampling_params=kinds))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", kinds)
    orders, asked, drawn, heard = [[1, 0], [0, 1]], [], [], {0: [], 1: []}
    for rank in (0, 1):

        def gathered(said: list[Any], mine: Any, group: str) -> None:
            assert group == "pair" and mine[0] == orders[rank]  # noqa: B023
            said[:] = [(orders[0], 77), (orders[1], 88)]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gathered)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda group, rank=rank: rank)
        llm = SimpleNamespace(llm_engine=OneTokenAStep())
        pair = SimpleNamespace(llm=llm, tensor_parallel_size=2, tp_group="pair")
        told = lambda row, tokens, rank=rank: heard[rank].append((row, tokens))  # noqa: E731
        with generates_as_they_end(pair, orders[rank], told, torch.device("cpu")):
            llm.generate([{"prompt_token_ids": [n]} for n in (1, 2, 3, 4)], SimpleNamespace())
            drawn.append(torch.rand(3))
        asked.append(llm.llm_engine.asked)
    assert asked == [["1", "2", "0", "3"]] * 2 and torch.equal(*drawn)
    assert heard == {0: [(0, [1]), (1, [2])], 1: [(0, [3]), (1, [4])]}


def test_random_numbers_of_an_engine_in_the_process_follow_from_the_runs_alone():
    device, drawn = torch.device("cpu"), []
    for used in (0, 5):
        one = SimpleNamespace(llm=SimpleNamespace(), tensor_parallel_size=1)
        torch.manual_seed(3)
        with random_numbers_kept(device):
            torch.rand(used)
        with generates_as_they_end(one, [], None, device):
            first = torch.rand(2)
            torch.rand(used)
        drawn.append(torch.cat([first, torch.rand(2)]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][:2], drawn[0][2:])


def test_sampling_takes_the_threads_the_recipe_gives_it_and_hands_them_back(
    warm_model, problems_file, tmp_path, monkeypatch
):
    before, seen, inner = torch.get_num_threads(), [], engines.sample

    def counted(*args: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return inner(*args, **options)

    monkeypatch.setattr(engines, "sample", counted)
    torch.set_num_threads(3)
    try:
        few = {"problems_per_step": 3, "max_completion_length": 20, "max_steps": 1, "sampling_threads": 2}
        train_grpo(recipe(warm_model, problems_file, tmp_path / "run", grpo=few))
        assert seen == [2] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
