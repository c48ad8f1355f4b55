"""Checkpoints and the final model as both trainers write them: to a folder beside, then in one rename."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from rlvr.training.checkpoints import FINAL, STAGING, clear_staging, publish_checkpoint, readable, rotate, staged
from rlvr.training.faults import CONTINUES, TrainingFault


class PublishesWhole(Trainer):
    """A Trainer whose checkpoints appear in one rename, with our state beside Hugging Face's.

    A disk that is full ends the run by name; what was half-written is removed, complete checkpoints stay.
    """

    accelerator: Any
    model: Any
    updates_per_generation = 1  # optimiser updates of a step
    asked_to_end: Callable[[], str | None] = staticmethod(lambda: None)  # the signal that asks for it, in any process

    def own_state(self) -> dict[str, Any]:
        """Returns what the run needs beside weights, optimizer, schedule and RNG, as JSON types; every process asks."""
        raise NotImplementedError

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """Nothing: TRL's knows neither the model it began with nor how to prompt it; `write_model_card` does."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(super()._get_output_dir(trial)) / STAGING)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with readable(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As Trainer's, but the learning rate is the recipe's where that was changed: the saved states hold the old."""
        with readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)  # within accelerate's
        if checkpoint is None or self.optimizer is None or not isinstance(scheduler, LambdaLR):
            return
        rate = self.args.learning_rate
        scheduler.base_lrs = [rate for _ in scheduler.base_lrs]
        for group, factor in zip(self.optimizer.param_groups, scheduler.lr_lambdas, strict=True):
            group.update(initial_lr=rate, lr=rate * factor(scheduler.last_epoch))
        scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step // self.updates_per_generation
        self._refuse_broken_weights(f"step {step}")
        folder = Path(str(self.args.output_dir))
        name = f"checkpoint-{self.state.global_step}"
        if self.accelerator.is_main_process:
            clear_staging(folder)
        self.accelerator.wait_for_everyone()
        with staged(folder / STAGING, f"step {step}: {name}"):
            super()._save_checkpoint(model, trial)
            state = self.own_state()
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                publish_checkpoint(folder / STAGING / name, folder / name, state)
                rotate(folder, self.args.save_total_limit)
                clear_staging(folder)
        self.accelerator.wait_for_everyone()

    def save_final(self, tokenizer: Any, state: Mapping[str, Any]) -> Path:
        """Writes model, tokenizer and `state` to the run's `final` and returns that folder."""
        self._refuse_broken_weights("the last step")
        final = Path(str(self.args.output_dir)) / FINAL
        folder = final.with_name(".final")
        with staged(folder, f"the model that training ends with ({FINAL})"):
            self.save_model(str(folder))  # every process: sharded weights are gathered here
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                tokenizer.save_pretrained(folder)
                publish_checkpoint(folder, final, state)
        self.accelerator.wait_for_everyone()
        return final

    def _refuse_broken_weights(self, when: str) -> None:
        """Raises TrainingFault on every process where any holds a weight that is no number: that is never saved.

        A gradient that is no number ends the run before, but for updates that make a weight of it on their own.
        """
        broken = not all(bool(torch.isfinite(_held(part)).all()) for part in self.model.parameters())
        if self.accelerator.reduce(torch.tensor(float(broken), device=self.accelerator.device)).item():
            raise TrainingFault(
                f"{when}: weights are no numbers after the update, so no checkpoint was written; lower the learning"
                f" rate; {CONTINUES}"
            )


def _held(parameter: Any) -> torch.Tensor:
    """The part of a weight that this process holds."""
    if isinstance(parameter, DTensor):
        return parameter.to_local().detach()
    return getattr(parameter, "ds_tensor", parameter).detach()  # ZeRO-3's part of it
