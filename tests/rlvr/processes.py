"""Training in several processes of this machine's CPU, as `accelerate launch` starts it elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rlvr.config import GRPORecipe

ROOT = Path(__file__).parents[2]


def torchrun(program: Path, *arguments: str, processes: int = 2, **variables: str) -> subprocess.Popen[str]:
    """Starts `program` in `processes` processes with these environment variables; of what it says, errors are kept."""
    own = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.Popen(
        [*command, str(program), *arguments],
        env={**os.environ, **own, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(
    run: GRPORecipe, program: Path = ROOT / "scripts" / "train_grpo.py", processes: int = 2, **variables: str
) -> subprocess.Popen[str]:
    """Starts `program`, which takes what `rlvr train` does, on a recipe."""
    file = Path(run.output_dir).with_suffix(".json")
    file.write_text(run.model_dump_json())
    return torchrun(program, "--config", str(file), processes=processes, **variables)


def ends_well(launched: subprocess.Popen[str], timeout_s: float = 900) -> None:
    """Waits for a launch and asserts that it ended well."""
    with launched:
        try:
            _, errors = launched.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            launched.kill()
            raise
    assert launched.returncode == 0, errors[-4000:]
