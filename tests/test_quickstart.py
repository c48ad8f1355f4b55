"""The whole road as a user walks it: one command, killed in every training stage, and the same in the end."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import AutoConfig

ROOT = Path(__file__).parents[1]
OVERRIDES = [
    "threads=1",
    "curation.pipelines={stage1: 48, stage2: 48, heldout: 24, heldout_hard: 0}",
    "curation.sft={demonstrations: 2000}",
    "model.vocab_size=640",
    "model.hidden=64",
    "model.layers=2",
    "model.heads=2",
    "model.mlp=128",
    "model.tokenizer_samples=1000",
    "sft.num_train_epochs=6",
    "sft.save_steps=20",
    "stage1.grpo.max_steps=5",
    "stage1.grpo.save_steps=2",
    "stage2.grpo.save_steps=2",
    "stage2.curriculum.phases=[{problems: 24, steps: 3}, {problems: 16, steps: 2}]",
    "evaluation.n=2",
    "evaluation.k=[1, 2]",
]


def command(out: Path) -> list[str]:
    config = str(ROOT / "configs" / "quickstart-smoke.yaml")
    return [sys.executable, "-m", "rlvr.cli", "quickstart", "--config", config, f"output_dir={out}", *OVERRIDES]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def run_until(out: Path, reached) -> None:
    """Starts the quickstart and SIGKILLs it as soon as `reached()` holds."""
    process = subprocess.Popen(command(out), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not reached():
        assert process.poll() is None, "the quickstart ended before it was to be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def has_step(metrics: Path, step: int) -> bool:
    return metrics.exists() and f'"step": {step},' in metrics.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = subprocess.run(command(out), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Report:" in done.stdout and "pass@1" in done.stdout
    assert "no overlap with training data" in done.stderr and "in the training data;" not in done.stderr
    return out


@pytest.mark.slow
def test_every_stage_leaves_real_work_behind(whole):
    funnel = json.loads((whole / "curation" / "funnel.json").read_text())
    assert funnel
    dropped = pq.read_table(whole / "curation" / "dropped.parquet").to_pylist()
    assert any("planted" in row["id"] for row in dropped)  # curation found what was planted
    train, heldout = (
        pq.read_table(whole / "curation" / f"{part}.parquet").to_pylist() for part in ("train", "heldout")
    )
    assert not {row["family"] for row in train} & {row["family"] for row in heldout}

    weights = {name: load_file(whole / name / "final" / "model.safetensors") for name in ("sft", "stage1", "stage2")}
    weights["model"] = load_file(whole / "model" / "model.safetensors")
    names = ["model", "sft", "stage1", "stage2"]
    for before, after in itertools.pairwise(names):
        assert any((weights[before][key] != weights[after][key]).any() for key in weights[before]), (before, after)

    losses = [json.loads(line)["loss"] for line in (whole / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] / 2
    for stage, steps in (("stage1", 5), ("stage2", 5)):
        lines = [json.loads(line) for line in (whole / stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, steps + 1))
        rollouts = [pq.read_table(path).to_pylist() for path in sorted((whole / stage / "rollouts" / stage).iterdir())]
        assert [len(rows) for rows in rollouts] == [128] * steps  # 16 problems x 8, whatever the groups
        verdicts = {row["verdict"] for rows in rollouts for row in rows}
        assert "WA" in verdicts and "IE" not in verdicts
    sizes = {row["n_allocated"] for rows in rollouts for row in rows}
    assert len(sizes) > 1  # stage 2 allocated, it did not deal out eights

    for checkpoint in ("sft", "stage1", "stage2"):
        results = json.loads((whole / "evaluation" / checkpoint / "results.json").read_text())
        assert 0 <= results["results"]["heldout"]["pass@1"] <= 1
        samples = (whole / "evaluation" / checkpoint / "samples.jsonl").read_text().splitlines()
        assert len(samples) == len(heldout_ids(heldout)) * 3  # two samples and a greedy one
    page = (whole / "report.html").read_text()
    assert "<svg" in page and not re.search(r"""(?:src|href)=["']?https?:|url\(["']?https?:|@import""", page)


def heldout_ids(rows: list[dict]) -> set[str]:
    return {row["id"] for row in rows if "pipelines" in row["tags"]}


@pytest.mark.slow
def test_killed_in_sft_stage_1_and_stage_2_it_continues_and_ends_the_same(whole, tmp_path):
    out = tmp_path / "run"
    run_until(out, lambda: has_step(out / "sft" / "metrics.jsonl", 30))
    assert not (out / "sft" / "final").exists()
    run_until(out, lambda: has_step(out / "stage1" / "metrics.jsonl", 3))
    assert not (out / "stage1" / "final").exists()
    run_until(out, lambda: has_step(out / "stage2" / "metrics.jsonl", 3))
    assert not (out / "stage2" / "final").exists()
    done = subprocess.run(command(out), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    for stage in ("sft", "stage1", "stage2"):
        ours, theirs = (load_file(folder / stage / "final" / "model.safetensors") for folder in (out, whole))
        assert all((ours[key] == theirs[key]).all() for key in theirs), stage
        kept = [json.loads(line)["step"] for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
        assert kept == [json.loads(line)["step"] for line in (whole / stage / "metrics.jsonl").read_text().splitlines()]
    for stage in ("stage1", "stage2"):
        for path in sorted((whole / stage / "rollouts" / stage).iterdir()):
            again = pq.read_table(out / stage / "rollouts" / stage / path.name)
            assert again.to_pylist() == pq.read_table(path).to_pylist(), path.name
    first, second = (
        json.loads((folder / "evaluation" / "stage2" / "results.json").read_text())["results"]
        for folder in (whole, out)
    )
    assert first == second


@pytest.mark.slow
def test_interrupted_by_ctrl_c_it_says_how_to_continue_and_leaves_nothing_half_written(tmp_path):
    out = tmp_path / "run"
    python, _, module, *arguments = command(out)
    heard = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # in a background job too
    process = subprocess.Popen(
        [python, "-c", f"{heard} runpy.run_module({module!r}, run_name='__main__')", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not has_step(out / "sft" / "metrics.jsonl", 10):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted; the same command continues" in errors
    assert "Traceback" not in errors
    assert not (out / "sft" / "final").exists()


@pytest.mark.thorough
def test_with_experts_the_road_is_the_same_and_the_report_shows_their_load(tmp_path):
    out = tmp_path / "run"
    smaller = [
        "stage1.grpo.max_steps=3",
        "stage2.curriculum.phases=[{problems: 16, steps: 2}]",
        "sft.num_train_epochs=2",
    ]
    done = subprocess.run(
        [*command(out), *smaller, "--model", "tiny-moe"],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    config = AutoConfig.from_pretrained(out / "stage2" / "final")
    assert config.model_type == "qwen3_moe" and config.num_experts == 8
    for stage, steps in (("stage1", 3), ("stage2", 2)):
        lines = [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, steps + 1))
        assert any(line.get("moe/replayed") == 1.0 for line in lines)
        load = json.loads((out / stage / "expert_load.json").read_text())
        assert load["experts"] == 8 and len(load["counts"]["all"]) == 2
    page = (out / "report.html").read_text()
    assert "Expert balance" in page and "Expert load" in page
    placed = subprocess.run(
        [sys.executable, "-m", "rlvr.cli", "moe", "place", str(out / "stage2" / "expert_load.json"), "--ranks", "4"],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert placed.returncode == 0 and "planned: busiest rank over mean" in placed.stdout, placed.stderr
