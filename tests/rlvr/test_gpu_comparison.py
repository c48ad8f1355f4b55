"""The one-call GPU comparison, as far as it goes without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_recipe_of_the_gpu_comparison_resolves(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu_comparison.py", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--models", "smollm2-135m"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("+ rlvr train") == 2 and done.stdout.count("+ rlvr evaluate") == 2
    assert "policy: uniform" in done.stdout and "policy: knapsack" in done.stdout
