"""`rlvr train` of which one process falls ill; torchrun starts this, RLVR_TEST_SICKNESS says how.

RLVR_TEST_SEEN: a folder in which every process writes down what its history of success rates is told.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

MEASURING = 3  # batches that are graded before the first step


def fall_ill(sickness: str) -> None:
    """What happens to the second process in its third step, after the checkpoint of the second."""
    from transformers import Trainer

    from rlvr.rewards import ProgramGrader
    from rlvr.training.grpo_trainer import GroupedGRPOTrainer
    from sandbox import Verdict

    if sickness in ("not a number", "no gradient"):
        inner = GroupedGRPOTrainer._get_per_token_logps_and_entropies

        def broken(self: Any, model: Any, *arguments: Any, **options: Any) -> Any:
            logps, *others = inner(self, model, *arguments, **options)
            if self.state.global_step == 2 and logps.requires_grad:
                logps = logps * (1.0 if sickness == "no gradient" else float("nan"))
                if sickness == "no gradient":
                    logps.register_hook(lambda gradient: gradient * float("nan"))
            return logps, *others

        GroupedGRPOTrainer._get_per_token_logps_and_entropies = broken
        return
    if sickness == "full disk":
        save = Trainer._save_checkpoint

        def without_room(self: Any, *arguments: Any) -> None:
            if self.state.global_step == 3:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write that fails is told, as on a full disk
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            save(self, *arguments)

        Trainer._save_checkpoint = without_room
        return
    grade = ProgramGrader.grade
    calls: list[int] = []

    def graded(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == MEASURING + 3 and sickness == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        verdicts = grade(self, *arguments, **options)
        if len(calls) == MEASURING + 2 and sickness == "judge":
            inner = self.judge.judge_batch
            self.judge.judge_batch = lambda *a, **o: [replace(one, verdict=Verdict.IE) for one in inner(*a, **o)]
        return verdicts

    ProgramGrader.grade = graded


def write_down(file: Path) -> None:
    """Has every outcome that this process's history is told written to a line of `file` as well."""
    from rlvr.budget import SuccessRates

    record = SuccessRates.record

    def recorded(self: Any, problem: str, rewards: Any, step: int, tokens: Any = None) -> None:
        record(self, problem, rewards, step, tokens)
        with file.open("a") as lines:
            lines.write(json.dumps([problem, step, list(rewards), None if tokens is None else list(tokens)]) + "\n")

    SuccessRates.record = recorded


if __name__ == "__main__":
    from rlvr.cli import main

    if folder := os.environ.get("RLVR_TEST_SEEN"):
        write_down(Path(folder) / f"{os.environ['RANK']}.jsonl")
    if os.environ.get("RANK") == "1" and (sickness := os.environ.get("RLVR_TEST_SICKNESS")):
        fall_ill(sickness)
    sys.argv[1:1] = ["train"]
    main()
