"""The Slurm template, with programs of the same names in Slurm's place: warned, it saves and requeues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "configs" / "slurm" / "train.sbatch"

# a trainer's process: the first signal is noted, and what was there before is put back for the second
WORKER = """
import os, signal, sys, time
from pathlib import Path
state, heard = Path(os.environ["STATE"]), []
def note(*_):
    heard.append(1)
    signal.signal(signal.SIGUSR1, before)
before = signal.signal(signal.SIGUSR1, note)
(state / f"ready{sys.argv[1]}").touch()
while not heard and not (state / "over").exists():
    time.sleep(0.02)
time.sleep(0.3 if heard else 0)  # the step under way
(state / f"saved{sys.argv[1]}").touch()
sys.exit(75 if heard else 0)
"""
# accelerate's launcher has no handler for SIGUSR1, and says 1 when a process of it failed
LAUNCHER = """
import os, subprocess, sys
processes = [subprocess.Popen([sys.executable, os.environ["STATE"] + "/worker", str(rank)]) for rank in range(2)]
sys.exit(int(any([process.wait() for process in processes])))
"""
PROGRAMS = {
    "srun": 'shift\necho $$ > "$STATE/step"\nexec setsid --wait "$@"\n',
    "scancel": 'pkill -USR1 -s "$(cat "$STATE/session")"\n',
    "scontrol": '[ "$1" = show ] && echo node1 && exit\necho "$@" >> "$STATE/scontrol"\n',
    "accelerate": 'ps -o sid= $$ | tr -d " " > "$STATE/session"\necho "$@" > "$STATE/launched"\n'
    'exec "$PYTHON" "$STATE/launcher"\n',
}


@pytest.mark.parametrize("warned", [True, False])
def test_a_job_that_is_warned_saves_and_queues_itself_again(warned: bool, tmp_path: Path) -> None:
    """The warning goes to the batch script, which asks Slurm to signal every process of the step."""
    (tmp_path / "worker").write_text(WORKER)
    (tmp_path / "launcher").write_text(LAUNCHER)
    (tmp_path / "bin").mkdir()
    for name, body in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "STATE": str(tmp_path), "PYTHON": sys.executable,
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1", "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": "2",
    }  # fmt: skip
    job = subprocess.Popen(["bash", str(TEMPLATE), "recipe.yaml", "seed=1"], env=environment)
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"ready{rank}").exists() for rank in range(2)):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    if warned:
        job.send_signal(signal.SIGUSR1)
    else:
        (tmp_path / "over").touch()
    code = job.wait(120)
    assert all((tmp_path / f"saved{rank}").exists() for rank in range(2)), "a signal ended a process of the step"
    launched = (tmp_path / "launched").read_text()
    assert launched.startswith("launch --config_file configs/accelerate/zero3.yaml")
    assert "--num_processes 2 --machine_rank 0 --main_process_ip node1" in launched
    assert launched.endswith("scripts/train_grpo.py --config recipe.yaml seed=1\n")
    if warned:
        assert code == 1 and (tmp_path / "scontrol").read_text() == "requeue 7\n"
    else:
        assert code == 0 and not (tmp_path / "scontrol").exists()
