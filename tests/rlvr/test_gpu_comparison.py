"""The one-call GPU comparison, as far as it goes without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch
import yaml
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_recipe_of_the_gpu_comparison_resolves(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu_comparison.py", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--models", "smollm2-135m"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("+ rlvr train") == 2 and done.stdout.count("+ rlvr evaluate") == 2
    assert "policy: uniform" in done.stdout and "policy: knapsack" in done.stdout


def test_without_a_gpu_the_comparison_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu_comparison.py", "--out", str(tmp_path / "gpu")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PATH": str(tmp_path)})
    assert done.returncode == 2 and not (tmp_path / "gpu").exists()
    assert "no nvidia-smi on this machine" in done.stderr.splitlines()[-1]


@pytest.mark.thorough
def test_one_call_goes_from_problems_to_the_table_with_a_small_model(tmp_path: Path, warm_model: Path) -> None:
    mbpp = tmp_path / "mbpp.jsonl"
    tasks = [  # in MBPP's layout; the ids decide which are held out
        {
            "task_id": number,
            "text": f"Write a function to add {number} to a number.",
            "code": f"def add(x):\n    return x + {number}",
            "test_list": [f"assert add({n}) == {n + number}" for n in range(3)],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for number in (*range(11, 31), *range(601, 631))
    ]
    mbpp.write_text("\n".join(map(json.dumps, tasks)))
    command = [sys.executable, "benchmarks/gpu_comparison.py", "--smoke", str(warm_model), "--mbpp", str(mbpp)]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    head, _, *rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| smoke, uniform", "| smoke, knapsack"]
    assert {"step", "generate", "grade", "update", "roofline generate", "roofline update"} <= set(head)


def test_the_roofline_follows_the_weights_as_saved_and_the_recipe_s_checkpointing(tmp_path: Path) -> None:
    runner = run_path(str(ROOT / "benchmarks" / "gpu_comparison.py"))
    (tmp_path / "final").mkdir()
    save_file({"w": torch.zeros(100, 50)}, tmp_path / "final" / "model.safetensors")
    step = {"tokens_per_second": 400.0, "effective_gradient_ratio": 0.5, "step_time": 2.0, "time/generate": 1.5}
    step |= {"time/grade": 0.1, "time/update": 0.4, "skipped_rollouts": 0.5, "completions/max_length": 40}
    lines = [step | {"num_tokens": 1000.0 * number} for number in range(12)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for checkpointing, passes in ((False, 6), (True, 8)):
        recipe = {"grpo": {"gradient_checkpointing": checkpointing}}
        (tmp_path / "config.resolved.yaml").write_text(yaml.safe_dump(recipe))
        found = runner["summary"](tmp_path, (1e9, 1e12))
        assert found["roofline update"] == pytest.approx(passes * 5000 * 500 / 1e12)
        assert found["roofline generate"] == pytest.approx(40 * 4 * 5000 / 1e9, rel=0.01)  # float32, and a header
    assert (found["steps"], found["tokens/s"], found["signal"], found["generate"]) == (12, 400, 0.5, 1.5)
