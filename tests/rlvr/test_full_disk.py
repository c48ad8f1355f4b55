"""A disk that is really full: one line says what could not be written, and the run goes on from its checkpoint."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from test_training_faults import TWO_PHASES, assert_same_run, recipe, whole  # noqa: F401 - a fixture

from rlvr.config import GRPORecipe
from rlvr.training.checkpoints import complete_checkpoints

NEW_USERS, NEW_MOUNTS = 0x10000000, 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS
CANNOT_MOUNT = 77
ROOM = 64 << 20


def small_disk(place: Path) -> None:
    """Mounts a file system of `ROOM` bytes at `place`, seen by this process and its children only."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(NEW_MOUNTS | (NEW_USERS if user else 0)):
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    private = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC: nothing is seen outside
    if libc.mount(b"none", b"/", None, private, None) or libc.mount(
        b"tmpfs", str(place).encode(), b"tmpfs", 0, f"size={ROOM}".encode()
    ):
        raise OSError(ctypes.get_errno(), "mount")


def filled(place: Path) -> None:
    """Leaves no room at `place`."""
    with (place / "ballast").open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1):
            while True:
                try:
                    if ballast.write(b"x" * size) < size:
                        break
                except OSError:
                    break


def train(recipe_file: Path, said: Path) -> int:
    """Exit code of `rlvr train`; what it says on stderr is in `said`."""
    import sys

    from rlvr.cli import main

    with said.open("w") as sys.stderr:
        sys.argv[1:] = ["train", "--config", str(recipe_file)]
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def on_a_small_disk(moment: str, run: GRPORecipe, kept: Path) -> None:
    """Child process: trains on a disk that is full at `moment`, then again with room; `kept` receives
    the exit codes, what was said, the checkpoints after the first, and the run."""
    from rlvr.training import callbacks, grpo_trainer, publishing

    torch.set_num_threads(1)  # its others do not survive a fork

    disk = Path(run.output_dir).parent
    try:
        small_disk(disk)
    except OSError as error:
        (kept / "why").write_text(str(error))
        os._exit(CANNOT_MOUNT)
    owner, name = {
        "the rollouts": (grpo_trainer, "write_records"),
        "the metrics": (callbacks.json, "dumps"),
        "checkpoint-4": (publishing.Trainer, "_save_checkpoint"),
        "its state": (publishing, "publish_checkpoint"),
        "the model that training ends with": (grpo_trainer.GroupedGRPOTrainer, "save_model"),
    }[moment]
    inner = getattr(owner, name)

    def filling(*arguments, **options):
        metrics = Path(run.output_dir) / "metrics.jsonl"
        steps = metrics.read_text().count("\n") if metrics.exists() else 0
        if moment == "the metrics":  # json.dumps has other callers
            steps = arguments[0]["step"] if isinstance(arguments[0], dict) and "stage" in arguments[0] else 0
        if options.get("_internal_call"):  # save_model for a checkpoint
            steps = 0
        if steps == {"the rollouts": 1, "the model that training ends with": 4}.get(moment, 2):
            setattr(owner, name, inner)
            if moment == "the metrics":  # a page that is begun has room: end it
                text = metrics.read_text().rstrip("\n")
                metrics.write_text(text + " " * (-(len(text) + 1) % os.sysconf("SC_PAGE_SIZE")) + "\n")
            filled(disk)
        return inner(*arguments, **options)

    setattr(owner, name, filling)
    recipe_file = kept / "recipe.json"
    recipe_file.write_text(run.model_dump_json())
    found = {"code": train(recipe_file, kept / "said")}
    out = Path(run.output_dir)
    found["steps"] = [step for step, _ in complete_checkpoints(out)]
    found["left"] = sorted(path.name for path in out.iterdir() if path.name.startswith("."))
    (disk / "ballast").unlink()
    found["again"] = train(recipe_file, kept / "said again")
    (kept / "found.json").write_text(json.dumps(found))
    shutil.copytree(out, kept / "run")
    os._exit(0)


@pytest.mark.parametrize(
    ("moment", "steps"),
    [
        ("the rollouts", [2]),
        pytest.param("the metrics", [2], marks=pytest.mark.thorough),
        ("checkpoint-4", [2]),
        pytest.param("its state", [2], marks=pytest.mark.thorough),
        ("the model that training ends with", [2, 4, 6, 8]),
    ],
)
def test_a_full_disk_is_named_in_one_line_and_the_run_goes_on_from_its_last_checkpoint(
    moment,
    steps,
    whole,  # noqa: F811
    warm_model,
    problems_file,
    tmp_path,
):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    run = recipe(warm_model, problems_file, disk / "run", **TWO_PHASES)
    child = multiprocessing.get_context("fork").Process(target=on_a_small_disk, args=(moment, run, kept))
    child.start()
    child.join(300)
    if child.exitcode == CANNOT_MOUNT:
        pytest.skip(f"no file system can be mounted here: {(kept / 'why').read_text()}")
    said = (kept / "said").read_text()
    assert child.exitcode == 0, said
    found = json.loads((kept / "found.json").read_text())
    assert found["code"] == 1 and found["steps"] == steps, said
    (line,) = [line for line in said.splitlines() if line.startswith("rlvr:")]
    assert {"its state": "checkpoint-4"}.get(moment, moment) in line and "No space left on device" in line
    assert "the same command continues" in line and "Traceback" not in said
    assert not found["left"]  # nothing half-written keeps the room
    assert found["again"] == 0, (kept / "said again").read_text()
    assert_same_run(kept / "run", whole)
