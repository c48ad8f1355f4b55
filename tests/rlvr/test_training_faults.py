"""What goes wrong on the way: noticed, named, and continued from as if it had not happened."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from running_service import TOKEN, Process
from test_grpo_trainer import GROUP, PROBLEMS, recipe, weights
from transformers import AutoModelForCausalLM

import rlvr.training.engines as engines
import rlvr.training.grpo_trainer as grpo_trainer
from rlvr.config import AlarmSection, RecipeError, SFTRecipe
from rlvr.rewards import ProgramGrader
from rlvr.training.alarms import Alarms
from rlvr.training.checkpoints import complete_checkpoints
from rlvr.training.faults import InfrastructureError, Preempted, TrainingFault
from rlvr.training.grpo import train_grpo
from rlvr.training.sft import train_sft

TWO_PHASES = {
    "grpo": {"save_steps": 1, "save_total_limit": 10, "updates_per_step": 2},
    "budget": {"policy": "knapsack", "estimator": "beta", "low": 2, "high": 12},
    "curriculum": {"phases": [{"steps": 2, "problems": 12}, {"steps": 2, "problems": 8}]},
}


def rollouts(folder: Path, step: int) -> list[dict]:
    return pq.read_table(folder / "rollouts" / "stage1" / f"step-{step:06d}.parquet").to_pylist()


@pytest.fixture(scope="module")
def whole(warm_model, problems_file, tmp_path_factory) -> Path:
    """A run of two phases that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train_grpo(recipe(warm_model, problems_file, out, **TWO_PHASES))
    return out


def assert_same_run(ours: Path, theirs: Path) -> None:
    for name, tensor in weights(theirs / "final").items():
        assert torch.equal(tensor, weights(ours / "final")[name]), name
    for step in (1, 2, 3, 4):
        assert rollouts(ours, step) == rollouts(theirs, step)
    read = [json.loads((run / "final" / "rlvr_state.json").read_text()) for run in (ours, theirs)]
    assert read[0] == read[1]
    assert [json.loads(line)["step"] for line in (ours / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def die_in(moment: str, run) -> None:
    """Child process: trains, and is gone without a word at its third step's (second phase's) `moment`."""
    from rlvr.curriculum import ProblemSchedule
    from rlvr.rewards import ProgramGrader
    from rlvr.rollouts.sampling import GroupSampler
    from rlvr.training import publishing, update

    def killing(owner, name, after):
        inner = getattr(owner, name)
        calls = []

        def wrapped(*args, **kwargs):
            calls.append(1)
            if len(calls) > after:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*args, **kwargs)

        static = isinstance(vars(owner).get(name) if isinstance(owner, type) else None, staticmethod)
        setattr(owner, name, staticmethod(wrapped) if static else wrapped)

    if moment == "generation":
        killing(GroupSampler, "_choose", 40)
    elif moment == "grading":
        killing(ProgramGrader, "grade", 2)
    elif moment == "update":
        killing(update.UpdateTrainer, "_compute_loss", 5)
    elif moment == "checkpoint":
        killing(publishing, "publish_checkpoint", 2)
    elif moment == "phase switch":
        killing(ProblemSchedule, "_begin", 1)
    train_grpo(run)


@pytest.mark.parametrize("moment", ["generation", "grading", "update", "checkpoint", "phase switch"])
def test_killed_at_any_moment_the_same_command_ends_as_if_nothing_had_been(
    moment, whole, warm_model, problems_file, tmp_path
):
    out = tmp_path / "run"
    run = recipe(warm_model, problems_file, out, **TWO_PHASES)
    child = multiprocessing.get_context("fork").Process(target=die_in, args=(moment, run))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    assert not (out / "final").exists()
    train_grpo(run)
    assert_same_run(out, whole)


def test_phases_ended_by_the_plateau_rule_are_the_run_of_phases_that_long_and_resume(
    whole, warm_model, problems_file, tmp_path
):
    out = tmp_path / "run"
    phases = [{"steps": 4, "problems": 12}, {"steps": 4, "problems": 8}]
    ends_after_two = {"phases": phases, "plateau": {"window": 1, "delta": 1}}
    run = recipe(warm_model, problems_file, out, **{**TWO_PHASES, "curriculum": ends_after_two})
    train_grpo(run)
    assert_same_run(out, whole)
    for lost in ["final"], ["final", "checkpoint-8"]:  # what is left is over, or has a step to go
        for name in lost:
            shutil.rmtree(out / name)
        train_grpo(run)
        assert_same_run(out, whole)


def test_a_schedulers_signal_ends_the_run_with_a_checkpoint_and_it_continues(
    whole, warm_model, problems_file, tmp_path
):
    out = tmp_path / "run"
    settings = {**TWO_PHASES, "grpo": {**TWO_PHASES["grpo"], "save_steps": 100}}
    run = recipe(warm_model, problems_file, out, **settings)

    before = signal.getsignal(signal.SIGTERM)
    with signalled_after_a_step(out), pytest.raises(Preempted, match="SIGTERM after step") as stopped:
        train_grpo(run)
    assert stopped.value.exit_code == 75 and signal.getsignal(signal.SIGTERM) == before
    assert len(complete_checkpoints(out)) == 1 and not (out / "final").exists()
    train_grpo(run)
    assert_same_run(out, whole)


@contextlib.contextmanager
def signalled_after_a_step(out: Path) -> Iterator[None]:
    """SIGTERM for this process as soon as the run in `out` has written its first metrics."""

    def interrupt() -> None:
        deadline = time.monotonic() + 300
        while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


def test_a_schedulers_signal_ends_sft_with_a_checkpoint_and_another_recipe_is_refused_there(
    tiny_model, demonstrations_file, tmp_path
):
    def run(name: str, **changed) -> Path:
        values = {
            "name": "sft",
            "output_dir": str(tmp_path / name),
            "model": {"name_or_path": str(tiny_model)},
            "data": str(demonstrations_file),
            "sft": {"max_steps": 20, "logging_steps": 1, "per_device_train_batch_size": 16, "max_length": 128},
        }
        return train_sft(SFTRecipe.model_validate({**values, **changed}))

    whole = run("whole")
    with signalled_after_a_step(tmp_path / "stopped"), pytest.raises(Preempted, match="SIGTERM after step") as stopped:
        run("stopped")
    assert stopped.value.exit_code == 75
    assert len(complete_checkpoints(tmp_path / "stopped")) == 1 and not (tmp_path / "stopped" / "final").exists()
    with pytest.raises(RecipeError, match="holds a run with seed 0, this recipe has 1; continue with the same"):
        run("stopped", seed=1)
    few = {"max_steps": 20, "logging_steps": 1, "per_device_train_batch_size": 8, "max_length": 128}
    with pytest.raises(RecipeError, match=r"holds a run in batches of 16 .*, this one has 8; continue with the same"):
        run("stopped", sft=few)
    with pytest.raises(RecipeError, match=r"stopped: \d+ steps were made, this recipe makes 1; ask for at least"):
        run("stopped", sft={**few, "per_device_train_batch_size": 16, "max_steps": 1})
    with pytest.raises(RecipeError, match=r'^sft\.extra \{"eval_strategy": "steps"\}: TRL refuses it: .+eval_dataset'):
        run("other", sft={"max_steps": 1, "extra": {"eval_strategy": "steps"}})
    again = run("stopped")
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(whole).items())
    assert run("stopped") == again
    shutil.rmtree(again)  # as if killed between the last checkpoint and the end of the run
    trained = (tmp_path / "stopped" / "metrics.jsonl").read_text()
    assert run("stopped") == again and (tmp_path / "stopped" / "metrics.jsonl").read_text() == trained
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(whole).items())
    tokens = [
        [json.loads(line)["num_tokens"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "stopped")
    ]
    assert tokens[0] == tokens[1] and len(tokens[0]) == 20
    with pytest.raises(RecipeError, match=r"holds a run with sft.max_steps 20, this recipe has -1"):
        run("stopped", sft={})


@pytest.mark.parametrize("fault", [None, "stale", "mangled"])
def test_a_sampler_with_other_weights_than_the_trainers_is_noticed(
    fault, warm_model, problems_file, tmp_path, monkeypatch
):
    """The engine keeps the first step's weights, or gets one matrix wrong; without a fault the gap is rounding."""
    inner = engines.sample
    engine = AutoModelForCausalLM.from_pretrained(warm_model).eval()  # a copy in memory would share TRL's own forward
    if fault == "mangled":
        torch.nn.init.normal_(engine.model.layers[0].mlp.down_proj.weight, std=0.3)

    def faulty(model, prompt_ids, **options):
        return inner(engine if fault else model, prompt_ids, **options)

    monkeypatch.setattr(engines, "sample", faulty)
    run = recipe(
        warm_model,
        problems_file,
        tmp_path / "run",
        grpo={"max_steps": 3, "save_steps": 1, "learning_rate": 0.02 if fault == "stale" else 1e-3},
        alarms={"max_logprob_gap": 0.001, "stop_logprob_gap": 0.02},
    )
    if fault:
        with pytest.raises(TrainingFault, match="what was sampled is not what is trained on") as stopped:
            train_grpo(run)
        assert stopped.value.exit_code == 1
        assert len(complete_checkpoints(tmp_path / "run")) == (1 if fault == "stale" else 0)
        return
    train_grpo(run)
    for line in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()):
        assert line["sampling/logprob_gap"] < 1e-4 and line["alarms"] >= 0


@pytest.mark.parametrize("steps", [3, 1])
def test_weights_that_blow_up_end_the_run_before_they_are_saved(steps, warm_model, problems_file, tmp_path):
    """The update itself makes weights that are no numbers, of a gradient that is one; the run may end with it."""
    run = recipe(
        warm_model,
        problems_file,
        tmp_path / "run",
        grpo={"learning_rate": 3e38, "save_steps": 1 if steps == 1 else 100, "max_grad_norm": 1e9, "max_steps": steps},
    )
    with pytest.raises(TrainingFault, match=r"step \d: (weights are|the loss is|the policy's logits are|what was)"):
        train_grpo(run)
    assert not (tmp_path / "run" / "final").exists() and not complete_checkpoints(tmp_path / "run")


def test_dynamic_sampling_fills_the_step_with_groups_that_carry_a_signal(warm_model, problems_file, tmp_path):
    out = tmp_path / "run"
    run = recipe(
        warm_model, problems_file, out, budget={"policy": "dynamic_sampling", "max_rounds": 3}, grpo={"max_steps": 2}
    )
    train_grpo(run)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    budget = PROBLEMS * GROUP
    for step, line in enumerate(lines, 1):
        rows = rollouts(out, step)
        assert len(rows) == line["budget/rollouts"] == line["budget/rounds"] * budget
        assert len({row["problem_id"] for row in rows}) * GROUP == len(rows)  # refills are other problems
        trained = [row for row in rows if row["advantage"] != 0]
        assert 0 < len(trained) <= budget
        mixed = {row["group"] for row in rows if len({r["reward"] for r in rows if r["group"] == row["group"]}) > 1}
        assert len(trained) == min(budget, len(mixed) * GROUP)
    assert any(line["budget/rounds"] > 1 for line in lines)


def test_rollouts_the_sampler_would_hardly_repeat_are_rejected(warm_model, problems_file, tmp_path, monkeypatch):
    inner = engines.sample

    def wrong_numbers(*args, **options):
        tokens, logps = inner(*args, **options)
        return tokens, [[p - 0.3 for p in row] if i % 3 == 0 else row for i, row in enumerate(logps)]

    monkeypatch.setattr(engines, "sample", wrong_numbers)
    run = recipe(
        warm_model,
        problems_file,
        tmp_path / "run",
        grpo={"max_steps": 1, "geometric_rejection": [0.99, 1.01], "clip_cov": 0.01},
    )
    train_grpo(run)
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert line["sampling/rejected_rollouts"] == pytest.approx(1 / 3)


def test_alarms_ring_while_a_bound_is_crossed_and_are_written_once(caplog):
    alarms = Alarms(AlarmSection(min_entropy=0.1, max_truncation=0.5))
    assert alarms.check(1, {"entropy": 0.2, "completions/clipped_ratio": None}) == []
    assert alarms.check(2, {"entropy": 0.05, "completions/clipped_ratio": 0.6}) == ["entropy", "truncation"]
    assert alarms.check(3, {"entropy": 0.04}) == ["entropy"]
    assert alarms.check(4, {"entropy": 0.2}) == []
    assert alarms.check(5, {"entropy": 0.01}) == ["entropy"]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 2", "step 2", "step 5"]
    assert Alarms(AlarmSection(min_entropy=None)).check(1, {"entropy": 0.0}) == []


def test_an_engine_that_no_longer_answers_ends_the_process_with_its_name():
    code = (
        "import time\n"
        "from rlvr.training.faults import watched_server\n"
        "with watched_server('http://127.0.0.1:9', patience_s=0.5, every_s=0.1):\n"
        "    time.sleep(300)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 1
    assert "generation engine http://127.0.0.1:9/health: no answer" in done.stderr


@pytest.fixture
def judge_service(monkeypatch):
    """`rlvr sandbox serve` on one port, as a process that can be killed and started again."""
    monkeypatch.setenv("RLVR_JUDGE_TOKEN", TOKEN)
    made = [Process()]

    def start():
        made.append(Process(port=made[0].port))
        return made[-1]

    yield made[0], start
    for process in made:
        process.end()


def killed_in_the_second_step(service, monkeypatch, then=lambda: None):
    inner = ProgramGrader.grade
    calls = []

    def grade(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            service.end()
            then()
        return inner(self, *arguments)

    monkeypatch.setattr(ProgramGrader, "grade", grade)


def test_a_judge_service_that_goes_away_ends_the_run_by_name_and_it_continues(
    judge_service, whole, warm_model, problems_file, tmp_path, monkeypatch, caplog
):
    service, start = judge_service
    out = tmp_path / "run"
    run = recipe(warm_model, problems_file, out, judge={"url": service.url, "patience_s": 1}, **TWO_PHASES)
    with monkeypatch.context() as patched:
        killed_in_the_second_step(service, patched)
        with pytest.raises(
            InfrastructureError, match=r"step 2: the judge failed on \d+ of 24 .*judge service http"
        ) as end:
            train_grpo(run)
    assert end.value.exit_code == 1 and [step for step, _ in complete_checkpoints(out)] == [2]
    assert sum("asked again for up to 1 s" in record.getMessage() for record in caplog.records) == 1
    start()
    train_grpo(run)
    assert_same_run(out, whole)


def test_a_judge_service_that_comes_back_is_waited_for(
    judge_service, whole, warm_model, problems_file, tmp_path, monkeypatch, caplog
):
    service, start = judge_service
    out = tmp_path / "run"
    run = recipe(warm_model, problems_file, out, judge={"url": service.url, "patience_s": 600}, **TWO_PHASES)
    threads = []

    def later() -> None:
        threads.append(threading.Timer(2, start))
        threads[0].start()

    killed_in_the_second_step(service, monkeypatch, later)
    train_grpo(run)
    threads[0].join()
    assert_same_run(out, whole)
    assert "answers again" in caplog.text


@pytest.mark.parametrize("where", ["the loss is", "the gradient's norm is"])
def test_a_loss_or_gradient_that_is_no_number_is_not_applied(
    where, whole, warm_model, problems_file, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    run = recipe(warm_model, problems_file, out, **TWO_PHASES)
    inner = grpo_trainer.GroupedGRPOTrainer._get_per_token_logps_and_entropies

    def broken(self, model, *arguments, **options):
        logps, *others = inner(self, model, *arguments, **options)
        if self.state.global_step == 3 and logps.requires_grad:
            logps = logps * float("nan") if where == "the loss is" else logps * 1.0
            if where != "the loss is":
                logps.register_hook(lambda gradient: gradient * float("nan"))
        return logps, *others

    with monkeypatch.context() as patched:
        patched.setattr(grpo_trainer.GroupedGRPOTrainer, "_get_per_token_logps_and_entropies", broken)
        with pytest.raises(TrainingFault, match=rf"step 2: {where} nan.*same command continues") as stopped:
            train_grpo(run)
    assert stopped.value.exit_code == 1 and [step for step, _ in complete_checkpoints(out)] == [2]
    train_grpo(run)
    assert_same_run(out, whole)


def test_no_memory_in_the_update_is_named_and_the_run_continues(
    whole, warm_model, problems_file, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    run = recipe(warm_model, problems_file, out, **TWO_PHASES)
    inner = grpo_trainer.GroupedGRPOTrainer._compute_loss

    def full(self, model, inputs):
        if self.state.global_step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        return inner(self, model, inputs)

    with monkeypatch.context() as patched:
        patched.setattr(grpo_trainer.GroupedGRPOTrainer, "_compute_loss", full)
        with pytest.raises(
            TrainingFault, match=r"step 2: out of memory in the update \(CUDA.*2 GiB.\); lower grpo.per_"
        ):
            train_grpo(run)
    assert [step for step, _ in complete_checkpoints(out)] == [2]
    train_grpo(run)
    assert_same_run(out, whole)
