"""The optimiser updates of a step: what is corrected, and what is checked on the way."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from rlvr.algorithms.correction import (
    clip_cov_mask,
    geometric_rejection,
    kl_cov_penalty,
    leave_out,
    loss_mask,
)
from rlvr.algorithms.packing import DENOMINATOR
from rlvr.moe.session import ROUTES
from rlvr.training.faults import CONTINUES, TrainingFault
from rlvr.training.lora import KeepsAdapter
from rlvr.training.padding_free import logps_and_entropies
from rlvr.training.repacking import RepackingTrainer
from rlvr.training.restore import RestoresExperts
from rlvr.training.routes import KeepsRoutes


class UpdateTrainer(KeepsAdapter, RestoresExperts, KeepsRoutes, RepackingTrainer):
    """GRPOTrainer whose updates are repacked, corrected and checked as the recipe says."""

    def __init__(self, **kwargs: Any) -> None:
        self._sampling = False  # TRL is generating: log-probabilities it asks for may be put off
        self._checks_gap = False  # the next micro-batch is the first of a step
        self._live_logps: torch.Tensor | None = None
        super().__init__(**kwargs)
        accelerator: Any = self.accelerator
        accelerator.backward = functools.partial(_backward, accelerator.backward)

    @property
    def step_under_way(self) -> int:
        """The step, from 1, whose rollouts are sampled or learnt from."""
        updates = self.recipe.grpo.updates_per_step * self.recipe.grpo.num_iterations
        return self.state.global_step // updates + 1

    # -- corrections ------------------------------------------------------------------------------------------------

    def _leave_out(self, output: dict[str, Any]) -> dict[str, Any]:
        """Takes what the sampler's policy would hardly have written out of the loss and of its denominator.

        Rollouts by Geo-RS; rollouts or tokens by TRL's MIS, which masks them but goes on dividing by them.
        """
        bounds = self.recipe.grpo.geometric_rejection
        ratio = output.get("importance_sampling_ratio")
        if ratio is not None and not self.vllm_importance_sampling_mode.endswith("_mask"):
            ratio = None
        if bounds is None and ratio is None:
            return output
        sampled, trained = output.get("sampling_per_token_logps"), output.get("old_per_token_logps")
        if sampled is None:
            raise TrainingFault(
                "grpo.geometric_rejection: this engine gives no log-probabilities; use vLLM, or fast_sampling with"
                " unsharded weights"
            )
        if trained is None:
            trained = output["old_per_token_logps"] = self._current_logps(output, self.args.per_device_train_batch_size)
        self._check_gap(trained, sampled, output["completion_mask"])  # which what is left out would hide
        kept = torch.ones(len(sampled), dtype=torch.bool, device=sampled.device)
        if bounds is not None:
            kept = geometric_rejection(sampled, trained, output["completion_mask"], *bounds)
        masked = leave_out(output, kept, ratio)
        output["num_items_in_batch"] = self.accelerator.gather(loss_mask(output).sum()).sum()
        shares = {"rejected_rollouts": output["rejected"].float(), "masked_tokens": sampled.new_full((1,), masked)}
        for name, share in shares.items():
            self._metrics["train"][f"sampling/{name}"].append(self.accelerator.gather(share).mean().item())
        return output

    def _repack(self) -> None:
        super()._repack()
        if self.recipe.grpo.clip_cov:
            for batch in filter(None, self._buffered_inputs):
                self._clip_covariance(batch)

    def _clip_covariance(self, batch: dict[str, Any]) -> None:
        section = self.recipe.grpo
        logps = batch.get("old_per_token_logps", batch.get("sampling_per_token_logps"))
        if logps is None:
            logps = self._current_logps(batch)
        low, high = section.clip_cov_range
        kept = clip_cov_mask(logps, batch["advantages"], loss_mask(batch), share=section.clip_cov, low=low, high=high)
        batch["advantages"] = batch["advantages"].reshape(len(kept), -1) * kept

    def _covariance_penalty(self, logps: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        section = self.recipe.grpo
        mask = loss_mask(inputs)
        old = inputs.get("old_per_token_logps", logps.detach())
        penalty = kl_cov_penalty(logps, old, inputs["advantages"], mask, share=section.kl_cov).sum()
        steps = self.current_gradient_accumulation_steps
        if DENOMINATOR[self.loss_type] == "items":
            items = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            return section.kl_cov_coef * penalty / (items * steps / self.args.steps_per_generation)
        return section.kl_cov_coef * penalty / (mask.sum().clamp(min=1) * steps)

    # -- the loss ---------------------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, **options: Any
    ) -> Any:
        if self._sampling and self._puts_off_logps:
            return input_ids.new_zeros((len(input_ids), logits_to_keep), dtype=torch.float32), None, None
        if self.recipe.grpo.padding_free:
            found = self._without_padding(model, input_ids, attention_mask, logits_to_keep, **options)
            if torch.is_grad_enabled():
                self._live_logps = found[0]
            return found
        arguments = (model, input_ids, attention_mask, logits_to_keep)
        if self._sampling and self.routing is not None and self._scored_routes is None:
            scored = self._sampled_as(input_ids.shape[1] - logits_to_keep, input_ids.shape[1])
            with self.routing.scoring(scored):
                found = super()._get_per_token_logps_and_entropies(*arguments, **options)
            self._scored_routes = scored.get(ROUTES)
            return found
        found = super()._get_per_token_logps_and_entropies(*arguments, **options)
        if torch.is_grad_enabled():
            self._live_logps = found[0]
        return found

    def _without_padding(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        rows = batch_size or len(input_ids)
        parts = []
        for ids, mask in zip(input_ids.split(rows), attention_mask.split(rows), strict=True):
            with self.accelerator.autocast():
                parts.append(logps_and_entropies(model, ids, mask, logits_to_keep, entropy=compute_entropy))
        logps, entropies = zip(*parts, strict=True)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if not inputs:  # repacking left nothing for this micro-batch
            return torch.zeros((), device=self.accelerator.device)
        if self.routing is not None and self._training():
            self.routing.before_update(inputs)
        with self._gathers_unequal_rows():
            loss = super()._compute_loss(model, inputs)
        if not self._training():
            return loss
        if self.routing is not None and self.routing.section.aux_loss_coef:
            aux = self.routing.aux_loss()
            self._metrics["train"]["moe/aux_loss"].append(aux.item())
            loss = loss + self.routing.section.aux_loss_coef * aux / self.current_gradient_accumulation_steps
        logps, self._live_logps = self._live_logps, None
        assert logps is not None
        if self._checks_gap and "sampling_per_token_logps" in inputs:
            self._check_gap(logps.detach(), inputs["sampling_per_token_logps"], inputs["completion_mask"])
        self._checks_gap = False
        if self.recipe.grpo.kl_cov:
            loss = loss + self._covariance_penalty(logps, inputs)
        if not torch.isfinite(loss):
            raise TrainingFault(
                f"step {self.step_under_way}: the loss is {loss.item()}; nothing of this step was applied. Lower"
                f" grpo.learning_rate or grpo.max_grad_norm, or use bf16 instead of fp16; {CONTINUES}"
            )
        return loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except torch.OutOfMemoryError as error:
            raise TrainingFault(
                f"step {self.step_under_way}: out of memory in the update ({str(error).splitlines()[0]}); lower"
                " grpo.per_device_train_batch_size, or set grpo.gradient_checkpointing: true;"
                f" {CONTINUES}"
            ) from None
        if self.routing is not None:  # recomputation is over: other passes choose their own experts
            self.routing.tap.disarm()
        return loss

    # -- checks -----------------------------------------------------------------------------------------------------

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # fp16's gradient scaler passes over such updates by itself
        number = 0.0 if norm is None else float(norm)
        # DeepSpeed says -1 of some; it has left the update out by then, as it does where it says inf
        if not self.args.fp16 and (number < 0 or not math.isfinite(number)):
            raise TrainingFault(
                f"step {self.step_under_way}: the gradient's norm is {number} though the loss is a number; this"
                f" update was not applied. Lower grpo.learning_rate, or look for a token of probability 0; {CONTINUES}"
            )
        return norm

    def _check_gap(self, trained: torch.Tensor, sampled: torch.Tensor, mask: torch.Tensor) -> None:
        """Compares the sampler's log-probabilities with the trainer's before the policy has moved; once a step."""
        self._checks_gap = False
        ratio = trained - sampled
        gap = ratio.abs()
        valid = mask.bool() & ~torch.isnan(gap)
        k3 = torch.expm1(ratio[valid]) - ratio[valid]  # of KL(sampler | trainer), never negative
        sums = torch.stack([gap[valid].sum(), k3.sum(), valid.sum().to(gap.dtype)])
        total, divergence, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        largest = gap[valid].max() if valid.any() else gap.new_zeros(())
        mean = total / max(1.0, count)
        metrics = self._metrics["train"]
        metrics["sampling/logprob_gap"].append(mean)
        metrics["sampling/k3"].append(divergence / max(1.0, count))
        metrics["sampling/logprob_gap_max"].append(self.accelerator.gather(largest).max().item())
        bound = self.recipe.alarms.stop_logprob_gap
        if bound is not None and not mean <= bound:
            raise TrainingFault(
                f"the sampler's and the trainer's log-probabilities differ by {mean:.3g} a token on the mean, above"
                f" alarms.stop_logprob_gap ({bound:g}): what was sampled is not what is trained on (stale or mangled"
                f" weights in the engine, another temperature); {CONTINUES}"
            )


def _backward(backward: Callable[..., None], loss: torch.Tensor, **options: Any) -> None:
    """Runs a backward pass where there is one to run; DeepSpeed fails on a loss that no weight has a part in."""
    if loss.requires_grad:
        backward(loss, **options)
