"""Which rollouts an update runs, in which company: leaving out, sorting, packing."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from rlvr.algorithms.packing import DENOMINATOR, PackedUpdate
from rlvr.config import GRPORecipe
from rlvr.moe.session import RoutingSession
from rlvr.training.padding_free import positions_are_relative


class RepackingTrainer(GRPOTrainer):
    """GRPOTrainer whose updates run only the rollouts with a signal, sorted by length, as the recipe says.

    Gradients stay what they are (`rlvr/algorithms/packing.py`); log-probabilities of the sampling policy are worked out
    after the repacking, so that only rollouts that are run get them.
    """

    args: Any  # TRL's GRPOConfig
    model: Any
    recipe: GRPORecipe
    _buffered_inputs: Any  # the micro-batches of the step
    routing: RoutingSession | None = None  # of a mixture-of-experts policy

    def __init__(self, **kwargs: Any) -> None:
        self._step_times = {"generate": 0.0, "grade": 0.0, "sync": 0.0, "logprob": 0.0}
        super().__init__(**kwargs)

    def _training(self) -> bool:
        assert self.model is not None
        return self.model.training

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._training() and self._buffered_inputs is not before:
            self._repack()
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    @property
    def _repacks(self) -> tuple[bool, bool]:
        """Whether rows may be (left out, moved to another micro-batch): not where another term of the loss needs them
        where they are."""
        section = self.recipe.grpo
        balanced = self.aux_loss_enabled or (self.routing is not None and self.routing.section.aux_loss_coef > 0)
        alone = not self._entropy_bonus_enabled and not balanced and self.top_entropy_quantile == 1.0
        skips = alone and self.beta == 0.0 and section.skip_zero_signal
        moves = alone and (self.beta == 0.0 or DENOMINATOR[self.loss_type] == "items") and section.pack_micro_batches
        return skips, moves

    def _repack(self) -> None:
        """Repacks every update of the buffered step, and works out the log-probabilities that were put off."""
        skips, moves = self._repacks
        if skips or moves or "rejected" in self._buffered_inputs[0]:  # whose rows losses no longer divide by
            self._buffered_inputs = self._packed(self._buffered_inputs, skips, moves)

    def _packed(self, buffered: list[dict[str, Any]], skips: bool, moves: bool) -> list[dict[str, Any]]:
        window = self.args.gradient_accumulation_steps if moves else 1
        updates = [
            PackedUpdate(
                buffered[start : start + window],
                self.loss_type,
                skip=skips,
                trim_prompts=positions_are_relative(self.model),
                overhead=64 if self.accelerator.device.type == "cpu" else 4096,
            )
            for start in range(0, len(buffered), window)
        ]
        wanted = torch.tensor([[update.wanted for update in updates]], device=self.accelerator.device)
        counts = self.accelerator.gather(wanted).amax(dim=0).tolist()  # collectives need as many passes everywhere
        packed = [b for update, count in zip(updates, counts, strict=True) for b in update.micro_batches(count)]
        real = [batch for batch in packed if batch]
        masks = [whole(batch)["attention_mask"] for batch in real]
        shares = [
            sum(update.skipped for update in updates) / len(updates),
            float(sum(mask.sum() for mask in masks)),
            float(sum(mask.numel() for mask in masks)),
        ]
        # of all processes, which hold as many rollouts each
        skipped, held, cells = self.accelerator.reduce(torch.tensor(shares, device=self.accelerator.device), "mean")
        metrics = self._metrics["train"]
        metrics["skipped_rollouts"].append(float(skipped))
        if not self.recipe.grpo.padding_free:
            metrics["padding"].append(float(1.0 - held / cells))
        if self._puts_off_logps and "old_per_token_logps" in buffered[0]:
            for batch in real:
                batch["old_per_token_logps"] = self._current_logps(batch)
        return packed

    @property
    def _puts_off_logps(self) -> bool:
        """Whether the sampling policy's log-probabilities can wait until it is known which rollouts need them."""
        rejects = self.recipe.grpo.geometric_rejection is not None
        keeps = self.routing is not None and self.routing.section.keep_routes
        return any(self._repacks) and self.beta == 0.0 and not self.use_vllm and not rejects and not keeps

    def _current_logps(self, batch: dict[str, Any], rows: int | None = None) -> torch.Tensor:
        """Log-probabilities of the completions under the policy as it is: [rows, completion].

        Worked out in passes of `rows`, in one without it: repacked micro-batches differ in rows from process to
        process, and where weights are shared out every process has to make as many passes as the others.
        """
        started = time.perf_counter()
        routing = self.routing.scoring(batch) if self.routing is not None else contextlib.nullcontext()
        checkpointing = disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
        with routing, torch.no_grad(), checkpointing:
            parts = whole(batch)
            logps, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                parts["input_ids"],
                parts["attention_mask"],
                batch["completion_ids"].size(1),
                batch_size=rows,
            )
        self._step_times["logprob"] += time.perf_counter() - started
        return logps

    @contextlib.contextmanager
    def _gathers_unequal_rows(self) -> Iterator[None]:
        """TRL gathers one number a row for its clipping metrics, of which it takes the NaN-blind extremes; repacked
        micro-batches differ in rows from process to process, so shorter ones are filled up with NaN."""
        if self.accelerator.num_processes == 1 or not any(self._repacks):
            yield
            return
        accelerator: Any = self.accelerator
        gather = accelerator.gather

        def filled(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.ndim and tensor.is_floating_point():
                tensor = accelerator.pad_across_processes(tensor, dim=0, pad_index=math.nan)
            return gather(tensor)

        accelerator.gather = filled
        try:
            yield
        finally:
            del accelerator.gather


def whole(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Prompt and completion of a micro-batch side by side: [rows, prompt + completion]."""
    return {
        "input_ids": torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        "attention_mask": torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
    }
