"""Callbacks of both trainers: the metrics file and the progress bar."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from rlvr.training.checkpoints import require_steps
from rlvr.training.faults import writing


class MetricsFile(TrainerCallback):
    """Appends every log to `metrics.jsonl`, one JSON object a line.

    On resume the lines beyond the checkpoint are dropped first, so each step stands once.
    """

    def __init__(self, path: Path, stage: str, updates_per_step: int = 1) -> None:
        self.path = path
        self.stage = stage
        self.updates_per_step = updates_per_step
        self.extras: dict[str, Any] = {}  # values that are not numbers, for the next line

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        last = state.global_step // self.updates_per_step
        keep = [line for line in read_metrics(self.path) if line["step"] <= last] if self.path.exists() and last else []
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in keep))
        temporary.replace(self.path)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        line: dict[str, Any] = {
            "step": state.global_step // self.updates_per_step,
            "time": time.time(),
            "stage": self.stage,
        }
        for name, value in logs.items():
            if isinstance(value, int | float) and math.isfinite(value):
                line[name] = value
        line.update(self.extras)
        self.extras = {}
        with writing(f"step {line['step']}: the metrics", self.path.parent), self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class NothingLeft(Exception):
    """The checkpoint that was resumed from is of the last step."""


class EndsWhereNothingIsLeft(TrainerCallback):
    """Raises NothingLeft before training from a checkpoint of the last step, where Trainer would make one more, and
    RecipeError where the recipe ends before it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        require_steps(args.output_dir, state.global_step, state.max_steps)
        if state.global_step == state.max_steps:
            raise NothingLeft


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file; one that is damaged, as the last by a kill, is left out."""
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


class ProgressBar(TrainerCallback):
    """One bar a stage, with the newest values of a few metrics behind it."""

    def __init__(self, stage: str, shown: dict[str, str], updates_per_step: int = 1) -> None:
        self.stage = stage
        self.shown = shown  # metric name -> label
        self.updates_per_step = updates_per_step
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps // self.updates_per_step,
                initial=state.global_step // self.updates_per_step,
                desc=self.stage,
                unit="step",
                file=sys.stderr,
                mininterval=1.0 if sys.stderr.isatty() else 10.0,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step // self.updates_per_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.bar is not None and logs:
            values = {label: f"{logs[name]:.3f}" for name, label in self.shown.items() if logs.get(name) is not None}
            if values:
                self.bar.set_postfix(values, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the line, so that what is said next begins one of its own."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class EndsEarly(TrainerCallback):
    """Ends the run after the step that `is_over` says was the last, as if no more had been asked for."""

    def __init__(self, is_over: Callable[[int], bool], updates_per_step: int = 1) -> None:
        self.is_over = is_over
        self.updates_per_step = updates_per_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, rest = divmod(state.global_step, self.updates_per_step)
        if not rest and self.is_over(step):
            state.max_steps = state.global_step
            control.should_training_stop = True
