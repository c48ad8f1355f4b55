"""Pre-GRPO measurement: by the engine that samples in training, kept batch by batch, without a trace in the run."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from policy_server import PolicyServer
from test_grpo_trainer import GROUP, PROBLEMS, recipe, weights

from rlvr.rewards import ProgramGrader
from rlvr.training.faults import InfrastructureError, Preempted
from rlvr.training.grpo import train_grpo
from rlvr.training.measurement import MEASURED

STEP = PROBLEMS * GROUP


def measuring(model: Path, problems: Path, out: Path, **changes: Any) -> Any:
    curriculum = {"measure_rollouts": 3, "phases": [{"problems": 8, "steps": 1}]}
    return recipe(model, problems, out, curriculum=curriculum, **changes)


def outcomes(out: Path) -> dict[str, list[float | None]]:
    return json.loads((out / MEASURED).read_text())


def test_a_measurement_cut_short_goes_on_and_the_run_is_the_same(warm_model, problems_file, tmp_path, monkeypatch):
    whole = train_grpo(measuring(warm_model, problems_file, tmp_path / "whole"))
    every = outcomes(tmp_path / "whole")
    assert {len(group) for group in every.values()} == {3} and 3 * len(every) > STEP
    tried = {outcome for group in every.values() for outcome in group}
    assert tried == {0.0, 1.0}, "the warm model solves some and fails some"

    grade, calls = ProgramGrader.grade, []

    def dies_in_the_second_batch(self: ProgramGrader, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return grade(self, *args)

    monkeypatch.setattr(ProgramGrader, "grade", dies_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        train_grpo(measuring(warm_model, problems_file, tmp_path / "cut"))
    kept = outcomes(tmp_path / "cut")
    assert sum(map(len, kept.values())) == STEP
    resumed = train_grpo(measuring(warm_model, problems_file, tmp_path / "cut"))
    batches = -(-3 * len(every) // STEP)
    assert len(calls) == 2 + (batches - 1) + 1, "only what was missing was measured, then came one step"
    assert outcomes(tmp_path / "cut") == every
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_a_signal_ends_a_measurement_after_its_batch_and_it_goes_on_from_there(
    warm_model, problems_file, tmp_path, monkeypatch
):
    grade, calls = ProgramGrader.grade, []

    def warned_in_the_first_batch(self: ProgramGrader, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return grade(self, *args)

    monkeypatch.setattr(ProgramGrader, "grade", warned_in_the_first_batch)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        Preempted, match=rf"^SIGTERM while measuring, {STEP} of \d+ rollouts kept; .*continues"
    ) as ended:
        train_grpo(measuring(warm_model, problems_file, tmp_path / "run"))
    assert ended.value.exit_code == 75 and len(calls) == 1 and signal.getsignal(signal.SIGTERM) is before
    kept = outcomes(tmp_path / "run")
    assert sum(map(len, kept.values())) == STEP
    train_grpo(measuring(warm_model, problems_file, tmp_path / "run"))
    every = outcomes(tmp_path / "run")
    assert {len(group) for group in every.values()} == {3}
    assert all(every[key][: len(group)] == group for key, group in kept.items())


def test_a_measurement_takes_the_engine_of_training_and_its_time_is_told_apart(warm_model, problems_file, tmp_path):
    engine = PolicyServer(warm_model)
    try:
        served = {"use_vllm": True, "vllm_mode": "file", "vllm_url": engine.url}
        train_grpo(measuring(warm_model, problems_file, tmp_path / "run", grpo=served))
    finally:
        engine.close()
    tries = sum(map(len, outcomes(tmp_path / "run").values()))
    assert engine.requests >= tries + STEP
    (line,) = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["time/measure"] > line["time/generate"] > 0 and line["time/update"] >= 0
    rows = pq.read_table(tmp_path / "run" / "rollouts" / "stage1" / "step-000001.parquet").to_pylist()
    assert len(rows) == STEP


def test_a_judge_that_fails_while_measuring_ends_the_run_by_name(warm_model, problems_file, tmp_path, monkeypatch):
    from rlvr.rewards import judged
    from sandbox import Verdict

    grade = ProgramGrader.grade

    def fails(self: ProgramGrader, *args: Any) -> Any:
        return [
            judged.GradedRollout(rollout.program, ie(rollout.judgement), None, None) for rollout in grade(self, *args)
        ]

    def ie(judgement: Any) -> Any:
        import dataclasses

        return dataclasses.replace(judgement, verdict=Verdict.IE, message="no room for workers")

    monkeypatch.setattr(ProgramGrader, "grade", functools.partialmethod(fails))
    with pytest.raises(InfrastructureError, match=r"measuring: the judge failed on 24 of 24 .*no room for workers"):
        train_grpo(measuring(warm_model, problems_file, tmp_path / "run"))
    assert not (tmp_path / "run" / MEASURED).exists(), "failures are not kept as outcomes"
