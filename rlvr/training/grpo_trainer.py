"""TRL's GRPOTrainer with groups of any size: who is tried, how often, and what each rollout is worth."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation

from data_curation import Problem
from rlvr.algorithms.advantages import group_advantages
from rlvr.algorithms.packing import DENOMINATOR, PackedUpdate
from rlvr.budget import AllocationPolicy, SuccessRates
from rlvr.config import GRPORecipe
from rlvr.curriculum import ProblemSchedule
from rlvr.rewards import GradedRollout, GradingStream, ProgramGrader, overlong_penalty
from rlvr.rollouts.prompts import completion_text
from rlvr.rollouts.records import RolloutRecord, write_records
from rlvr.rollouts.sampling import sample
from rlvr.training.checkpoints import STAGING, clear_staging, publish_checkpoint, rotate
from rlvr.training.step_metrics import rollout_metrics

# The private methods this subclass overrides or calls. TRL may change them in any release: fail at import, by name.
_SIGNATURES = {
    "_generate_and_score_completions": ["self", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    "_prepare_inputs": ["self", "generation_batch"],
    "_compute_loss": ["self", "model", "inputs"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_get_output_dir": ["self", "trial"],
}


def check_trl() -> None:
    """Raises ImportError where the installed TRL is not one this trainer was written for."""
    for name, expected in _SIGNATURES.items():
        method = getattr(GRPOTrainer, name, None)
        found = list(inspect.signature(method).parameters) if method else None
        if found != expected:
            import trl

            raise ImportError(
                f"trl {trl.__version__}: GRPOTrainer.{name} has parameters {found}, expected {expected};"
                " install a version in the range of pyproject.toml (pip install 'rlvr[train]')"
            )


check_trl()


class InfrastructureError(RuntimeError):
    """The judge failed on too many rollouts of a step for the step to mean anything."""


class GroupedGRPOTrainer(GRPOTrainer):
    """GRPO in which every step's problems come from a schedule and its rollouts from an allocation policy.

    Both are decided when the step's generation starts, from state every process shares, so they see every reward so
    far. The number of rollouts of a step is always `problems_per_step x num_generations`; TRL's sampler, buffers and
    losses see ordinary rows. With the uniform policy the result equals the stock trainer's bit for bit, where the
    recipe's three savings that reorder sums are off (`fast_sampling`, `skip_zero_signal`, `pack_micro_batches`).
    """

    args: Any  # TRL's GRPOConfig
    model: Any
    _buffered_inputs: Any  # the micro-batches of the step

    def __init__(
        self,
        *,
        recipe: GRPORecipe,
        problems: Mapping[str, Problem],
        prompts: Mapping[str, Any],
        schedule: ProblemSchedule,
        policy: AllocationPolicy,
        rates: SuccessRates,
        grader: ProgramGrader,
        state_extras: Callable[[], Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.recipe = recipe
        self.problems = problems
        self.prompts = prompts
        self.schedule = schedule
        self.policy = policy
        self.rates = rates
        self.grader = grader
        self.state_extras = state_extras or dict
        self.updates_per_generation = recipe.grpo.updates_per_step * recipe.grpo.num_iterations
        self.metrics_file: Any = None  # set by the caller: receives values that are not numbers
        self._graded: list[GradedRollout] = []
        self._records: list[RolloutRecord] = []
        self._gathered_rewards: torch.Tensor | None = None
        self._generate_seconds = 0.0
        self._step_times = {"generate": 0.0, "grade": 0.0, "logprob": 0.0}
        self._stream: GradingStream | None = None
        self._sampling = False
        super().__init__(reward_funcs=[self._judge_reward], **kwargs)

    # -- one generation step -------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self._training():
            return super()._generate_and_score_completions(inputs)
        step = self.state.global_step // self.updates_per_generation
        keys = self.schedule.problems(step, pass_rates(self.rates))
        counts = self.policy.allocate(keys, self.rates, len(inputs) * self.accelerator.num_processes)
        groups = [number for number, count in enumerate(counts) for _ in range(count)]
        local = slice(self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs))
        rows = [{"prompt": self.prompts[keys[group]], "problem_id": keys[group]} for group in groups[local]]
        estimates = [self.rates.window(key) for key in keys]

        generated, graded = self._generate_seconds, self.grader.seconds
        self._stream = GradingStream(self.grader, [self.problems[row["problem_id"]] for row in rows])
        self._sampling = True
        output = super()._generate_and_score_completions(rows)
        self._sampling = False
        self._stream = None
        self._step_times = {
            "generate": self._generate_seconds - generated,
            "grade": self.grader.seconds - graded,
            "logprob": 0.0,
        }

        assert self._gathered_rewards is not None
        rewards = self._gathered_rewards[:, 0]
        section = self.recipe.grpo
        advantages, mixed = group_advantages(rewards, groups, scale=section.scale_rewards, clip=section.advantage_clip)
        if section.prompt_weighting == "problem":
            sizes = torch.tensor(counts, dtype=advantages.dtype, device=advantages.device)
            advantages = advantages * (section.num_generations / sizes)[torch.tensor(groups, device=advantages.device)]
        output["advantages"] = advantages[local]
        logged: Any = self._logs["advantages"]  # a deque as long as a generation batch
        logged.clear()
        logged.extend(advantages.tolist())
        self._finish(step + 1, keys, counts, groups, estimates, rewards, advantages, mixed)
        return output

    def _training(self) -> bool:
        assert self.model is not None
        return self.model.training

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        if self._training() and self.use_vllm and self.vllm_mode == "server":
            num_generations = 1  # rows are no longer equal strides of one prompt, so the server must not collapse them
        started = time.perf_counter()
        if self.use_vllm or self.use_transformers_continuous_batching:
            result = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        else:
            result = self._sample(prompt_ids), None
        self._generate_seconds += time.perf_counter() - started
        return result

    def _sample(self, prompt_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Samples with transformers' `generate`, as TRL does, handing each finished rollout to the judge at once."""
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            # sharded weights make every process step until the slowest is done, which only generate's own loop does
            sharded = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
            return sample(
                model,
                prompt_ids,
                generation_config=self.generation_config,
                pad_token_id=self._tokenizer.pad_token_id,
                end_token_ids=self.eos_token_ids,
                fast=self.recipe.grpo.fast_sampling and not sharded,
                finished=self._submit if self._training() else None,
            )

    def _submit(self, row: int, tokens: list[int]) -> None:
        assert self._stream is not None
        self._stream.submit(row, self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        self._gathered_rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._gathered_rewards

    # -- updates ------------------------------------------------------------------------------------------------

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
        alone = not self._entropy_bonus_enabled and not self.aux_loss_enabled and self.top_entropy_quantile == 1.0
        skips = alone and self.beta == 0.0 and section.skip_zero_signal
        moves = alone and (self.beta == 0.0 or DENOMINATOR[self.loss_type] == "items") and section.pack_micro_batches
        return skips, moves

    def _repack(self) -> None:
        """Repacks every update of the buffered step, and works out the log-probabilities that were put off."""
        skips, moves = self._repacks
        if not (skips or moves):
            return
        window = self.args.gradient_accumulation_steps if moves else 1
        buffered = self._buffered_inputs
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
        cells = sum(batch["attention_mask"].numel() for batch in map(_whole, real))
        metrics["padding"].append(1.0 - sum(int(_whole(b)["attention_mask"].sum()) for b in real) / cells)
        if self._puts_off_logps and "old_per_token_logps" in buffered[0]:
            started = time.perf_counter()
            with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
                for batch in real:
                    whole = _whole(batch)
                    batch["old_per_token_logps"], _, _ = self._get_per_token_logps_and_entropies(
                        self.model, whole["input_ids"], whole["attention_mask"], batch["completion_ids"].size(1)
                    )
            self._step_times["logprob"] = time.perf_counter() - started
        self._buffered_inputs = packed

    @property
    def _puts_off_logps(self) -> bool:
        """Whether the sampling policy's log-probabilities can wait until it is known which rollouts need them."""
        return any(self._repacks) and self.beta == 0.0 and not self.use_vllm

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, **options: Any
    ) -> Any:
        if self._sampling and self._puts_off_logps:
            return input_ids.new_zeros((len(input_ids), logits_to_keep), dtype=torch.float32), None, None
        return super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep, **options)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if not inputs:  # repacking left nothing for this micro-batch
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        return super()._compute_loss(model, inputs)

    # -- rewards and records --------------------------------------------------------------------------------------

    def _judge_reward(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        problem_id: Sequence[str],
        **columns: Any,
    ) -> list[float | None]:
        texts = [completion_text(completion) for completion in completions]
        problems = [self.problems[key] for key in problem_id]
        self._graded = self.grader.grade(problems, texts, self._stream)
        limit, shaping = self.recipe.grpo.max_completion_length, self.recipe.reward
        rewards: list[float | None] = []
        self._records = []
        for problem, prompt, text, ids, graded in zip(
            problems, prompts, texts, completion_ids, self._graded, strict=True
        ):
            reward = graded.score
            if reward is not None:
                reward += overlong_penalty(len(ids), limit, shaping.overlong_buffer, shaping.overlong_penalty)
            rewards.append(reward)
            truncated = len(ids) >= limit and (not ids or ids[-1] not in self.eos_token_ids)
            self._records.append(
                RolloutRecord(
                    problem_id=problem.id,
                    family=problem.family,
                    difficulty=problem.difficulty,
                    prompt=prompt if isinstance(prompt, str) else completion_text(prompt),
                    completion=text,
                    program=graded.program,
                    verdict=str(graded.judgement.verdict),
                    reward=reward,
                    passed=graded.judgement.passed,
                    tests=len(problem.tests),
                    cases=[str(case.verdict) for case in graded.judgement.cases],
                    message=graded.judgement.message,
                    completion_tokens=len(ids),
                    finish_reason="length" if truncated else "stop",
                )
            )
        return rewards

    def _finish(
        self,
        step: int,
        keys: Sequence[str],
        counts: Sequence[int],
        groups: Sequence[int],
        estimates: Sequence[float | None],
        rewards: torch.Tensor,
        advantages: torch.Tensor,
        mixed: torch.Tensor,
    ) -> None:
        """Records the step: success rates on every process, the rollouts' file and the metrics on the first."""
        accuracies: list[float | None] = gather_object([graded.accuracy for graded in self._graded])
        by_group: list[list[float | None]] = [[] for _ in keys]
        for group, accuracy in zip(groups, accuracies, strict=True):
            by_group[group].append(accuracy)
        for key, outcomes in zip(keys, by_group, strict=True):
            self.rates.record(key, outcomes, step)

        records: list[RolloutRecord] = gather_object(self._records)
        for position, record in enumerate(records):
            group = groups[position]
            record.step, record.stage, record.group = step, self.recipe.stage, group
            record.advantage = float(advantages[position])
            record.n_allocated, record.success_rate = counts[group], estimates[group]
        if self.accelerator.is_main_process:
            write_records(Path(self.recipe.output_dir) / "rollouts" / self.recipe.stage, step, records)

        failures = sum(accuracy is None for accuracy in accuracies)
        allowed = self.recipe.judge.max_infrastructure_errors
        if failures > allowed * len(accuracies):
            reason = next((record.message for record in records if record.reward is None and record.message), "")
            raise InfrastructureError(
                f"step {step}: the judge failed on {failures} of {len(accuracies)} rollouts, above the allowed share"
                f" {allowed} (judge.max_infrastructure_errors); first reason: {reason or 'none given'}"
            )
        metrics = self._metrics["train"]
        metrics["frac_reward_zero_std"][-1] = 1.0 - mixed.float().mean().item()
        metrics["curriculum/phase"].append(self.schedule.phase_at(step - 1)[0] + 1)
        for name, value in rollout_metrics(records, counts, by_group, mixed.tolist()).items():
            metrics[name].append(value)
        if self.metrics_file is not None:
            histogram = Counter(counts)
            self.metrics_file.extras["budget/allocation_histogram"] = {str(n): histogram[n] for n in sorted(histogram)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics = self._metrics["train"]
        if self._training() and metrics.get("step_time"):
            for name, seconds in self._step_times.items():
                metrics[f"time/{name}"].append(seconds)
            metrics["time/update"].append(sum(metrics["step_time"]) - sum(self._step_times.values()))
        super().log(logs, start_time)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(super()._get_output_dir(trial)) / STAGING)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.recipe.output_dir)
        if self.accelerator.is_main_process:
            clear_staging(folder)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            name = f"checkpoint-{self.state.global_step}"
            publish_checkpoint(folder / STAGING / name, folder / name, self.own_state())
            rotate(folder, self.args.save_total_limit)
            clear_staging(folder)
        self.accelerator.wait_for_everyone()

    def own_state(self) -> dict[str, Any]:
        """Returns what the run needs beside weights, optimizer, schedule and RNG, as JSON types."""
        return {
            "step": self.state.global_step // self.updates_per_generation,
            "stage": self.recipe.stage,
            "success_rates": self.rates.state_dict(),
            "schedule": self.schedule.state_dict(),
            **self.state_extras(),
        }


def pass_rates(rates: SuccessRates) -> dict[str, float | None]:
    """Returns every known problem's pass rate: the sliding window, or the plain mean while that is not yet valid."""
    known: dict[str, float | None] = {}
    for key in rates:
        rate = rates.window(key)
        if rate is None:
            groups = rates.groups(key)
            rate = sum(group.successes for group in groups) / sum(group.rollouts for group in groups)
        known[key] = rate
    return known


def positions_are_relative(model: Any) -> bool:
    """Whether shifting a whole sequence changes nothing: rotary embeddings whose angles do not depend on its length."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return False
    kinds = [part.get("rope_type", "default") for part in ([rope] if "rope_theta" in rope else rope.values())]
    return not {"dynamic", "longrope"} & set(kinds)


def _whole(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Prompt and completion of a micro-batch side by side: [rows, prompt + completion]."""
    return {
        "input_ids": torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        "attention_mask": torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
    }
