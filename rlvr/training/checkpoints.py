"""What a checkpoint holds beside Hugging Face's files, and how one is written so that a kill leaves no half of it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from pydantic import BaseModel
from safetensors import SafetensorError
from torch import AcceleratorError, OutOfMemoryError
from torch.distributed import DistError
from transformers.trainer import TRAINER_STATE_NAME

from rlvr.config import RecipeError, require_same_run
from rlvr.models import share_weights
from rlvr.training.faults import TrainingFault, writing

STATE_FILE = "rlvr_state.json"
STAGING = ".incomplete"
FINAL = "final"
_SIZES = "bytes"  # key of the state: file -> bytes, by which a damaged checkpoint is known

logger = logging.getLogger(__name__)


def complete_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Returns (step, path) of every whole `checkpoint-N` in a run's folder, oldest first."""
    return [(step, path) for step, path in _checkpoints(folder) if damage(path) is None]


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint of a run's folder, having said which newer ones are damaged; None where there
    is no checkpoint.

    RecipeError where all are damaged: a run that began anew would be in their place.
    """
    lines: list[str] = []
    for _, path in reversed(_checkpoints(folder)):
        if (fault := damage(path)) is None:
            if os.environ.get("RANK", "0") == "0":
                for line in lines:
                    logger.warning("%s; going on from %s", line, path.name)
            return path
        lines.append(f"{path}: damaged: {fault}")
    if lines:
        raise RecipeError(f"{lines[0]}; no whole checkpoint is left: repair it, or choose another output_dir")
    return None


def damage(checkpoint: Path) -> str | None:
    """Returns what is missing or cut short of a checkpoint, None where every file has the size it was written with."""
    try:
        state = json.loads((checkpoint / STATE_FILE).read_text())
    except FileNotFoundError:
        return f"{STATE_FILE} is missing"
    except ValueError:
        return f"{STATE_FILE} is no JSON"
    if not isinstance(state, dict):
        return f"{STATE_FILE} holds no state"
    for name, size in state.get(_SIZES, {}).items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes of {size:,}"
        if name == TRAINER_STATE_NAME:  # read before anything else is
            try:
                json.loads(path.read_text())
            except ValueError:
                return f"{name} is no JSON"
    return None


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every folder called `checkpoint-N`, oldest first."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.glob("checkpoint-*")]
    return sorted((int(match[1]), path) for match, path in found if match)


def finished_run(recipe: BaseModel, folder: Path) -> Path | None:
    """Returns the final checkpoint of a run that is through, having said so; None where there is something to do.

    RecipeError where it is the run of another recipe.
    """
    final = folder / FINAL
    if not final.is_dir():
        return None
    require_same_run(recipe, folder)
    if os.environ.get("RANK", "0") == "0":
        print(f"{folder}: already finished", flush=True)
    return final


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Returns our own state saved in a whole checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text())
    state.pop(_SIZES, None)
    return state


def publish_checkpoint(staged: Path, final: Path, state: Mapping[str, Any]) -> None:
    """Adds our state and the sizes of all files to a staged checkpoint and moves it to its final name in one rename.

    RecipeError where the weights are not in it: Trainer writes none of a sharded model that it is not told to gather.
    """
    if not any(staged.glob("*.safetensors")):
        raise RecipeError(
            f"{staged}: no weights were written; in the file for accelerate, FSDP needs"
            " `fsdp_state_dict_type: FULL_STATE_DICT`, ZeRO-3 `zero3_save_16bit_model: true`"
        )
    share_weights(staged)
    path = staged / STATE_FILE
    files = sorted(file for file in staged.rglob("*") if file.is_file() and file != path)
    sizes = {str(file.relative_to(staged)): file.stat().st_size for file in files}
    with path.open("w") as file:
        json.dump({**state, _SIZES: sizes}, file)
        file.flush()
        os.fsync(file.fileno())
    if final.exists():
        shutil.rmtree(final)
    staged.rename(final)


def rotate(folder: Path, keep: int | None) -> None:
    """Removes the oldest complete checkpoints beyond `keep`."""
    if keep is None:
        return
    for _, path in complete_checkpoints(folder)[:-keep]:
        shutil.rmtree(path)


def require_steps(run: Path, made: int, wanted: int) -> None:
    """Raises RecipeError where a run that is to be continued has made more steps than its recipe makes."""
    if made > wanted:
        raise RecipeError(
            f"{run}: {made} steps were made, this recipe makes {wanted}; ask for at least as many, or choose another"
            " output_dir"
        )


def clear_staging(folder: Path) -> None:
    """Removes what a killed run left half-written."""
    shutil.rmtree(folder / STAGING, ignore_errors=True)


@contextmanager
def staged(folder: Path, what: str) -> Iterator[None]:
    """While the block writes to `folder`: a write that fails is a TrainingFault that names `what`, and gives the room
    of what was half-written back."""
    try:
        with writing(what, folder):
            yield
    except TrainingFault:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def readable(checkpoint: str | os.PathLike[str] | None) -> Iterator[None]:
    """While the block reads a checkpoint: that it cannot be read is a RecipeError that names it and why.

    That a device or another process failed meanwhile is not the checkpoint's fault and goes through.
    """
    try:
        yield
    except (AcceleratorError, DistError, OutOfMemoryError, RecipeError):
        raise
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"{checkpoint}: cannot be read ({reason[:200]}); if it is damaged, move it away, and the same command"
            " continues from the one before"
        ) from error


def name_cpu_plainly(args: Any) -> None:
    """Lets processes of a CPU load the optimizer of a checkpoint: `args.device` becomes "cpu".

    accelerate calls the CPU of a process "cpu:0", transformers hands that to torch.load, which knows no such place.
    """
    if args.device.type == "cpu":
        vars(args)["_setup_devices"] = type(args.device)("cpu")  # the cached property behind `device`
