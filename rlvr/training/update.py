"""The optimiser updates of a step: which rollouts are run, in which company, and what is checked on the way."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from rlvr.algorithms.correction import clip_cov_mask, geometric_rejection, kl_cov_penalty
from rlvr.algorithms.packing import DENOMINATOR, PackedUpdate
from rlvr.config import GRPORecipe
from rlvr.moe.routes import Routes, aligned, from_engine
from rlvr.moe.session import COMPLETION_ROUTES, PROMPT_ROUTES, ROUTES, RoutingSession, routes_of, small, unpacked
from rlvr.rollouts.policy_engine import Sampled
from rlvr.rollouts.records import RolloutRecord
from rlvr.training.faults import CONTINUES, TrainingFault
from rlvr.training.lora import KeepsAdapter
from rlvr.training.padding_free import logps_and_entropies, positions_are_relative
from rlvr.training.restore import RestoresExperts

logger = logging.getLogger(__name__)


class UpdateTrainer(KeepsAdapter, RestoresExperts, GRPOTrainer):
    """GRPOTrainer whose updates are repacked, corrected and checked as the recipe says."""

    args: Any  # TRL's GRPOConfig
    model: Any
    recipe: GRPORecipe
    _buffered_inputs: Any  # the micro-batches of the step
    routing: RoutingSession | None = None  # of a mixture-of-experts policy

    def __init__(self, **kwargs: Any) -> None:
        self._step_times = {"generate": 0.0, "grade": 0.0, "sync": 0.0, "logprob": 0.0}
        self._sampling = False  # TRL is generating: log-probabilities it asks for may be put off
        self._checks_gap = False  # the next micro-batch is the first of a step
        self._sampled_logps: dict[str, torch.Tensor] | None = None  # of the micro-batch under way, to be checked
        self._live_logps: torch.Tensor | None = None
        self._told_of_no_routes = False
        self._sampled_routes: list[tuple[int, Routes]] = []  # (prompt tokens, routes) of the engine's rollouts
        self._scored_routes: torch.Tensor | None = None  # recorded while TRL scored what was sampled
        super().__init__(**kwargs)
        accelerator: Any = self.accelerator
        accelerator.backward = functools.partial(_backward, accelerator.backward)

    @property
    def step_under_way(self) -> int:
        """The step, from 1, whose rollouts are sampled or learnt from."""
        updates = self.recipe.grpo.updates_per_step * self.recipe.grpo.num_iterations
        return self.state.global_step // updates + 1

    def _training(self) -> bool:
        assert self.model is not None
        return self.model.training

    # -- repacking --------------------------------------------------------------------------------------------------

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
        if skips or moves:
            self._buffered_inputs = self._packed(self._buffered_inputs, skips, moves)
        if self.recipe.grpo.clip_cov:
            for batch in filter(None, self._buffered_inputs):
                self._clip_covariance(batch)

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
        metrics = self._metrics["train"]
        metrics["skipped_rollouts"].append(sum(update.skipped for update in updates) / len(updates))
        real = [batch for batch in packed if batch]
        if not self.recipe.grpo.padding_free:
            cells = sum(whole(batch)["attention_mask"].numel() for batch in real)
            held = sum(int(whole(batch)["attention_mask"].sum()) for batch in real)
            metrics["padding"].append(1.0 - held / cells)
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

    # -- corrections ------------------------------------------------------------------------------------------------

    def _reject(self, output: dict[str, Any]) -> dict[str, Any]:
        """Takes rollouts the sampler's policy would hardly have written out of the loss and of its denominator."""
        low, high = self.recipe.grpo.geometric_rejection or (0.0, 1.0)
        sampled = output.get("sampling_per_token_logps")
        if sampled is None:
            raise TrainingFault(
                "grpo.geometric_rejection: this engine gives no log-probabilities; use vLLM, or fast_sampling with"
                " unsharded weights"
            )
        trained = output.get("old_per_token_logps")
        if trained is None:
            trained = output["old_per_token_logps"] = self._current_logps(output, self.args.per_device_train_batch_size)
        kept = geometric_rejection(sampled, trained, output["completion_mask"], low, high)
        output["completion_mask"] = output["completion_mask"] * kept[:, None]
        output["rejected"] = ~kept
        mask = output["completion_mask"] * output["tool_mask"] if "tool_mask" in output else output["completion_mask"]
        output["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()
        share = self.accelerator.gather((~kept).float()).mean().item()
        self._metrics["train"]["sampling/rejected_rollouts"].append(share)
        return output

    def _clip_covariance(self, batch: dict[str, Any]) -> None:
        section = self.recipe.grpo
        logps = batch.get("old_per_token_logps", batch.get("sampling_per_token_logps"))
        if logps is None:
            logps = self._current_logps(batch)
        low, high = section.clip_cov_range
        kept = clip_cov_mask(
            logps, batch["advantages"], batch["completion_mask"], share=section.clip_cov, low=low, high=high
        )
        batch["advantages"] = batch["advantages"].reshape(len(kept), -1) * kept

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
        if self._checks_gap:
            self._checks_gap = False
            self._check_gap(logps.detach(), inputs)
        if self.recipe.grpo.kl_cov:
            loss = loss + self._covariance_penalty(logps, inputs)
        if not torch.isfinite(loss):
            raise TrainingFault(
                f"step {self.step_under_way}: the loss is {loss.item()}; nothing of this step was applied. Lower"
                f" grpo.learning_rate or grpo.max_grad_norm, or use bf16 instead of fp16; {CONTINUES}"
            )
        return loss

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

    def _keep_routes(self, prompt_ids: Sequence[Sequence[int]], done: Sampled) -> None:
        """Takes the routes an engine returned with its rollouts, after a look whether they can be theirs."""
        self._sampled_routes = []
        routing = self.routing
        if routing is None or done.routes is None or routing.section.replay not in ("auto", "r3"):
            return
        for prompt, tokens, array in zip(prompt_ids, done.tokens, done.routes, strict=True):
            routes = from_engine(array, routing.shape, len(prompt) + len(tokens))
            self._sampled_routes.append((len(prompt), routes))

    def _sampled_as(self, prompt_width: int, width: int) -> dict[str, Any]:
        """The engine's routes for rows padded to these widths, as an entry of a micro-batch; none without them."""
        if not self._sampled_routes or self.routing is None:
            return {}
        prompts = [prompt for prompt, _ in self._sampled_routes]
        routes = [routes for _, routes in self._sampled_routes]
        shape, strict = self.routing.shape, self.routing.section.strict
        lengths = [part.start + len(part) + 1 for part in routes]
        whole = aligned(routes, prompts, lengths, prompt_width=prompt_width, width=width, shape=shape, strict=strict)
        return {ROUTES: small(torch.from_numpy(whole), self.routing.tap.classes).to(self.accelerator.device)}

    def _with_routes(self, output: dict[str, Any]) -> dict[str, Any]:
        """Puts the routes recorded while TRL scored into its output, halved as prompts and completions are."""
        width = output["prompt_ids"].shape[1]
        routes, self._scored_routes = self._scored_routes, None
        if routes is None:
            routes = self._sampled_as(width, width + output["completion_ids"].shape[1]).get(ROUTES)
        self._sampled_routes = []
        if routes is not None:
            output[PROMPT_ROUTES], output[COMPLETION_ROUTES] = routes[:, :width], routes[:, width:]
        return output

    def _record_routes(self, output: Mapping[str, Any], records: Sequence[RolloutRecord]) -> None:
        """Puts tokens, log-probabilities and routes into the records of these rollouts, where they are to be kept."""
        routes = routes_of(output)
        if self.routing is None or not self.routing.section.keep_routes:
            return
        if routes is None:
            if not self._told_of_no_routes:
                logger.warning(
                    "moe.keep_routes: this engine returns no routes and moe.replay %s records none while scoring, so"
                    " the rollout records hold none; set moe.replay to auto or r2",
                    self.routing.section.replay,
                )
            self._told_of_no_routes = True
            return
        tokens = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        written = output["completion_mask"].bool()
        real = torch.cat([output["prompt_mask"].bool(), written], dim=1)
        logps = output.get("sampling_per_token_logps", output.get("old_per_token_logps"))
        for row, record in enumerate(records):
            if not written[row].any():  # masked because it was cut off
                continue
            ids = unpacked(routes[row][real[row].to(routes.device)])[:-1].cpu().numpy()
            known = np.asarray((ids >= 0).all(axis=(1, 2)))
            kept = Routes(ids.clip(0).astype(self.routing.shape.dtype), known)
            record.tokens, record.routes = tokens[row][real[row]].tolist(), kept.to_bytes()
            record.logps = None if logps is None else logps[row][written[row]].tolist()

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

    def _covariance_penalty(self, logps: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        section = self.recipe.grpo
        mask = inputs["completion_mask"]
        old = inputs.get("old_per_token_logps", logps.detach())
        penalty = kl_cov_penalty(logps, old, inputs["advantages"], mask, share=section.kl_cov).sum()
        steps = self.current_gradient_accumulation_steps
        if DENOMINATOR[self.loss_type] == "items":
            items = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            return section.kl_cov_coef * penalty / (items * steps / self.args.steps_per_generation)
        return section.kl_cov_coef * penalty / (mask.sum().clamp(min=1) * steps)

    def _check_gap(self, trained: torch.Tensor, inputs: dict[str, Any]) -> None:
        """Compares the sampler's log-probabilities with the trainer's before the policy has moved."""
        sampled = inputs.get("sampling_per_token_logps")
        if sampled is None:
            return
        ratio = trained - sampled
        gap = ratio.abs()
        valid = inputs["completion_mask"].bool() & ~torch.isnan(gap)
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


def whole(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Prompt and completion of a micro-batch side by side: [rows, prompt + completion]."""
    return {
        "input_ids": torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        "attention_mask": torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
    }
