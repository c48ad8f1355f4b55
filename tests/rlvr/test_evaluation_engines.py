"""What draws the samples of an evaluation: the same answers from every engine, and no engine that outlives it."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sums import invoke, recipe_for

from data_curation import load_problems
from rlvr.evaluation import read_samples
from rlvr.evaluation.evaluate import evaluate


def test_a_prompt_longer_than_the_models_context_counts_nowhere(
    warm_model: Path, sums_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(warm_model), AutoTokenizer.from_pretrained(warm_model)
    problems = load_problems(sums_file)
    long = problems[1].model_copy(update={"statement": problems[1].statement * 9})
    sampling = {"n": 1, "k": [1], "max_completion_length": 4}
    recipe = recipe_for(
        sums_file, tmp_path / "out", model={"name_or_path": "in memory"}, prompt={"style": "plain"}, sampling=sampling
    )
    lengths = sorted(len(tokenizer(problem.statement)["input_ids"]) for problem in problems)
    model.config.max_position_embeddings = lengths[-1] + 20
    metrics = evaluate(recipe, model, tokenizer, problems=[problems[0], long]).results["sums"]
    assert metrics.problems == 1 and metrics.infrastructure_errors == 2
    assert f"sum/1: not sampled: its prompt has {len(tokenizer(long.statement)['input_ids'])}"[:-1] in caplog.text
    assert "data.exclude" in caplog.text


# --- the command ---


@pytest.mark.slow
def test_samples_drawn_by_a_real_vllm(
    vllm_python: str, wide_warm_model: Callable[[str], Path], problems_file: Path, tmp_path: Path
) -> None:
    """Greedy completions are those of transformers; sampled ones are the same when the first half is drawn alone."""
    suite = tmp_path / "pipelines.yaml"
    suite.write_text(
        "suite: pipelines\ndescription: tiny\ndata: {problems: '{data}', limit: 6}\nprompt: {style: plain}\n"
        "sampling: {n: 2, k: [1], max_completion_length: 24, batch_size: 4}\n"
    )
    shared = (
        "--suite",
        str(suite),
        "--data",
        str(problems_file),
        "--model",
        str(wide_warm_model("llama")),
        "judge.workers=1",
    )
    options = "engine_options={enforce_eager: true, max_model_len: 256, gpu_memory_utilization: 0.1}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    drawn = {}
    for name, extra in (("whole", []), ("half", ["data.limit=3"])):
        command = [vllm_python, "-m", "rlvr.cli", "evaluate", *shared, "--engine", "vllm", options, *extra]
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


def test_an_engines_processes_end_with_the_evaluation_that_was_killed() -> None:
    starts = """
import os, subprocess, sys, time
from rlvr.evaluation.engine_guard import engine_processes, guard_engine
guard_engine()
bash, sleep = sys.argv[1:]
core = ["VLLM::EngineCore", "-c", f"{sleep} 600 & echo $!; wait"]  # its worker has no title yet
engine = subprocess.Popen(core, executable=bash, start_new_session=True, stdout=subprocess.PIPE, text=True)
worker = int(engine.stdout.readline())
other = subprocess.Popen(["another program", "600"], executable=sleep, start_new_session=True)
while set(engine_processes(os.getpid())) != {engine.pid, worker}:
    time.sleep(0.05)
time.sleep(3)  # the guard has looked
print(engine.pid, worker, other.pid, flush=True)
time.sleep(600)
"""
    programs = [str(shutil.which(name)) for name in ("bash", "sleep")]
    process = subprocess.Popen([sys.executable, "-c", starts, *programs], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    engine, worker, other = map(int, process.stdout.readline().split())
    try:
        process.kill()
        process.wait()
        deadline = time.time() + 120
        while (_runs(engine) or _runs(worker)) and time.time() < deadline:
            time.sleep(0.1)
        assert not _runs(engine) and not _runs(worker) and _runs(other)
    finally:
        os.kill(other, signal.SIGKILL)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_vllm_engine_that_dies_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlvr.evaluation import vllm_engine

    class EngineDeadError(Exception):
        pass

    class Engine:
        def step(self) -> list[Any]:
            raise EngineDeadError("EngineCore encountered an issue.")

    exceptions = types.ModuleType("vllm.v1.engine.exceptions")
    exceptions.EngineDeadError = EngineDeadError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, exceptions.__name__, exceptions)
    for name in ("vllm", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sampler = vllm_engine.VLLMSampler.__new__(vllm_engine.VLLMSampler)
    sampler.model = types.SimpleNamespace(llm_engine=Engine())
    with pytest.raises(vllm_engine.EngineFailure, match=r"engine died .* the same command continues") as failure:
        sampler._step()
    assert failure.value.exit_code == 1


def test_a_step_that_waits_for_a_killed_engine_is_woken() -> None:
    from rlvr.evaluation.vllm_engine import _woken_by_its_death

    resources, answers = types.SimpleNamespace(engine_dead=False), queue.Queue[Any]()
    engine = types.SimpleNamespace(engine_core=types.SimpleNamespace(resources=resources, outputs_queue=answers))
    with _woken_by_its_death(engine):
        answers.put("an answer")
        assert answers.get(timeout=60) == "an answer"
        resources.engine_dead = True  # what vLLM's own watch does when the process is gone
        assert isinstance(answers.get(timeout=60), RuntimeError)
    with _woken_by_its_death(types.SimpleNamespace(engine_core=object())):
        pass
