"""Why a run ends early: named, with an exit code that is not 0, leaving a checkpoint the same command continues."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from rlvr.write_errors import why_unwritten

CONTINUES = "the same command continues from the newest checkpoint, if there is one"


class TrainingFault(RuntimeError):
    """Training cannot go on: its numbers or its engine are broken. Exit code 1."""

    exit_code = 1


class InfrastructureError(TrainingFault):
    """The judge failed on too many rollouts of a step for the step to mean anything."""


class Preempted(TrainingFault):
    """A signal asked the run to end; a checkpoint was written first. Exit code 75, "try again"."""

    exit_code = 75


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Turns the ways in which libraries say that a file could not be written into one TrainingFault that says what and
    where; what was half-written there is the caller's to remove."""
    try:
        yield
    except Exception as error:
        reason = why_unwritten(error)
        if reason is None:
            raise
        raise TrainingFault(
            f"{what} could not be written to {folder}: {reason}; complete checkpoints are untouched. Once that is"
            f" mended, {CONTINUES}"
        ) from error


class StopOnSignal(TrainerCallback):
    """SIGTERM and SIGUSR1 end the run after the step under way, with a checkpoint, or after a batch of the measurement.

    For schedulers that warn before they take a machine away. A second signal ends it at once, as ever.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, updates_per_step: int = 1) -> None:
        self.updates_per_step = updates_per_step
        self.received: str | None = None
        self._before: dict[int, Any] = {}
        self._device = torch.device("cpu")

    @contextmanager
    def heeded(self, trainer: Any) -> Iterator[None]:
        """While the block trains: signals are noted; Preempted behind it where one ended training before its end."""
        trainer.add_callback(self)
        self._device = trainer.accelerator.device
        trainer.asked_to_end = self._any_received
        try:
            yield
        finally:
            self.restore()
        state = trainer.state
        if self.received and state.global_step < state.max_steps:
            raise Preempted(f"{self.received} after step {state.global_step // self.updates_per_step}; {CONTINUES}")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.updates_per_step == 0 and self._any_received():
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.restore()

    def restore(self) -> None:
        """Puts back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _any_received(self) -> str | None:
        """The signal that any process has heard: all of them must stop after the same step."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            heard = torch.tensor([float(self.received is not None)], device=self._device)
            torch.distributed.all_reduce(heard, op=torch.distributed.ReduceOp.MAX)
            if heard.item() and self.received is None:
                self.received = "a signal to another process"
        return self.received

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        handler = self._before.pop(number, signal.SIG_DFL)
        signal.signal(number, handler)
        print(f"\n{self.received}: ending after what is under way, and keeping it", file=sys.stderr, flush=True)


@contextmanager
def watched_server(
    url: str, *, sampling: bool = False, patience_s: float = 45.0, every_s: float = 5.0
) -> Iterator[None]:
    """While the block runs, a thread asks the engine at `url` whether it is alive; silence for `patience_s` ends the
    process.

    Asked is `/health`; with `sampling` also `/metrics`, since vLLM's front answers while the engine behind it is stuck:
    where it counts tokens, the count must go on. A request that never returns cannot be interrupted from Python, so the
    process ends with exit code 1 and a line that names the engine, instead of waiting for ever.
    """
    over = threading.Event()

    def watch() -> None:
        heard = moved = time.monotonic()
        counted: float | None = None
        reason: OSError | None = None
        while not over.wait(every_s):
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=every_s):
                    heard = time.monotonic()
            except urllib.error.HTTPError as error:
                if error.code < 500:  # it answers, which is what was asked; vLLM says 503 when its engine is dead
                    heard = time.monotonic()
                reason = error
            except OSError as error:
                reason = error
            if time.monotonic() - heard >= patience_s:
                _end(f"generation engine {url}/health: no answer for {patience_s:.0f} s ({reason})", over)
            if not sampling:
                continue
            before, counted = counted, tokens_counted(url, every_s)
            if counted is None or counted != before:
                moved = time.monotonic()
            elif time.monotonic() - moved >= patience_s:
                _end(f"generation engine {url}: answers, but has sampled no token for {patience_s:.0f} s", over)

    thread = threading.Thread(target=watch, name="engine-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def tokens_counted(url: str, timeout_s: float) -> float | None:
    """Prompt and completion tokens a vLLM server has gone through since its start; None where it does not say."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=timeout_s) as answer:
            text = answer.read().decode(errors="replace")
    except OSError:
        return None
    found = re.findall(r"^vllm:(?:prompt|generation)_tokens_total(?:\{[^}]*\})? (\S+)", text, re.MULTILINE)
    return sum(map(float, found)) if found else None


def _end(line: str, over: threading.Event) -> None:
    if not over.is_set():
        print(f"\nrlvr: {line}; {CONTINUES}", file=sys.stderr, flush=True)
        os._exit(1)
