"""Pre-GRPO: every problem is tried by the starting policy before the first step (DRIVE, the ranking of stage 2)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from rlvr.rewards import GradingStream
from rlvr.training.faults import CONTINUES, Preempted, writing

MEASURED = "pre_grpo.json"

Outcomes = dict[str, list[float | None]]


def measure_pass_rates(trainer: Any, count: int, batch: int) -> None:
    """Tries each of the trainer's problems `count` times with its engine and opens the success-rate history with it.

    `batch` rollouts of all processes together are drawn at a time, each judged while others are still being sampled.
    After each batch `pre_grpo.json` (problem -> outcomes: 1.0, 0.0, null where the judge failed) is written anew, so a
    killed run goes on with what is missing; one that a signal asks to end does so there, with Preempted. Each batch has
    a random stream of its own and the trainer's is left as it was: the run that follows does not depend on whether
    there was an interruption.
    """
    path = Path(trainer.recipe.output_dir) / MEASURED
    outcomes: Outcomes = json.loads(path.read_text()) if path.exists() else {}
    trainer.accelerator.wait_for_everyone()  # all have read it before one writes it
    order = sorted(trainer.problems, key=lambda key: len(str(trainer.prompts[key])))  # like lengths, little padding
    missing = [key for key in order for _ in range(count - len(outcomes.get(key, [])))]
    if missing:
        _draw(trainer, missing, count * len(order), batch, outcomes, path)
    for key in trainer.problems:
        trainer.rates.record(key, outcomes[key], 0)


def _draw(trainer: Any, missing: list[str], total: int, batch: int, outcomes: Outcomes, path: Path) -> None:
    accelerator, stage = trainer.accelerator, trainer.recipe.stage
    main, rank, processes = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    started = time.perf_counter()
    first = total - len(missing)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with tqdm(
        total=total, initial=first, desc=f"{stage}: measure", unit="rollout", file=sys.stderr, disable=not main
    ) as bar:
        for start in range(0, len(missing), batch):
            rows = missing[start : start + batch]
            filled = rows + rows[: -len(rows) % processes]  # every process samples as many
            share = len(filled) // processes
            with torch.random.fork_rng(devices):
                torch.manual_seed(((trainer.recipe.seed * 1_000_003 + first + start) * 4096 + rank) % 2**63)
                here = _outcomes(trainer, filled[rank * share : (rank + 1) * share])
            drawn = gather_object(here)[: len(rows)]
            reason = next((reason for outcome, reason in drawn if outcome is None and reason), "")
            trainer.check_judge([outcome for outcome, _ in drawn], "measuring", reason)
            for key, (outcome, _) in zip(rows, drawn, strict=True):
                outcomes.setdefault(key, []).append(outcome)
            if main:
                _write(outcomes, path)
            bar.update(len(rows))
            if start + batch < len(missing) and (asked := trainer.asked_to_end()):
                raise Preempted(
                    f"{asked} while measuring, {first + start + batch} of {total} rollouts kept; {CONTINUES}"
                )
    if main:
        tried = [outcome for group in outcomes.values() for outcome in group if outcome is not None]
        print(
            f"{stage}: measured {len(outcomes)} problems, {total - first} rollouts in"
            f" {time.perf_counter() - started:.0f} s: pass rate {sum(tried) / max(1, len(tried)):.3f}",
            flush=True,
        )


def _outcomes(trainer: Any, keys: list[str]) -> list[tuple[float | None, str]]:
    """One rollout of each problem, drawn and graded by this process: its outcome and what the judge says of it."""
    problems = [trainer.problems[key] for key in keys]
    stream = GradingStream(trainer.grader, problems)
    prompt_ids, *_ = trainer._tokenize_prompts([trainer.prompts[key] for key in keys])

    def text(tokens: list[int]) -> str:
        return str(trainer._tokenizer.decode(tokens, skip_special_tokens=True))

    done = trainer.draw(prompt_ids, range(len(keys)), lambda row, tokens: stream.submit(row, text(tokens)))
    graded = trainer.grader.grade(problems, [text(tokens) for tokens in done.tokens], stream)
    return [(rollout.accuracy, rollout.judgement.message) for rollout in graded]


def _write(outcomes: Mapping[str, list[float | None]], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    with writing(f"{path.name}, the measured pass rates,", path.parent):
        temporary.write_text(json.dumps(outcomes))
        temporary.replace(path)
