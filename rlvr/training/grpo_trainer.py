"""TRL's GRPOTrainer with groups of any size: who is tried, how often, and what each rollout is worth."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from data_curation import Problem
from rlvr.algorithms.advantages import group_advantages
from rlvr.algorithms.refill import regrouped
from rlvr.budget import AllocationPolicy, DynamicSampling, Knapsack, SuccessRates
from rlvr.config import GRPORecipe
from rlvr.curriculum import ProblemSchedule
from rlvr.moe.session import RoutingSession
from rlvr.moe.sync import SyncRefused
from rlvr.rewards import GradedRollout, GradingStream, ProgramGrader, overlong_penalty
from rlvr.rollouts.policy_engine import EngineFailure, Finished, Sampled, longest_first
from rlvr.rollouts.prompts import completion_text
from rlvr.rollouts.records import RolloutRecord, write_records
from rlvr.training.alarms import Alarms
from rlvr.training.attempt import Attempt
from rlvr.training.engines import open_engine
from rlvr.training.faults import CONTINUES, InfrastructureError, TrainingFault, watched_server, writing
from rlvr.training.measurement import measure_pass_rates
from rlvr.training.publishing import PublishesWhole
from rlvr.training.step_metrics import rollout_metrics
from rlvr.training.sync_check import SyncCheck
from rlvr.training.trl_methods import check_trl
from rlvr.training.update import UpdateTrainer

MOSTLY_SKIPPED = 0.9  # share of skipped rollouts above which the mean entropy of the others says nothing

check_trl()


class GroupedGRPOTrainer(PublishesWhole, UpdateTrainer):
    """GRPO in which every step's problems come from a schedule and its rollouts from an allocation policy.

    Both are decided when the step's generation starts, from state every process shares, so they see every reward so
    far. The number of rollouts of a step is always `problems_per_step x num_generations`; TRL's sampler, buffers and
    losses see ordinary rows. With the uniform policy the result equals the stock trainer's bit for bit, where the
    recipe's three savings that reorder sums are off (`fast_sampling`, `skip_zero_signal`, `pack_micro_batches`).
    """

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
        probe: torch.Tensor | None = None,
        routing: RoutingSession | None = None,
        **kwargs: Any,
    ) -> None:
        self.recipe = recipe
        self.routing = routing
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
        self._generate_seconds = self._sync_seconds = 0.0
        self._order: list[int] = []  # rows of this process, the longest expected first
        self._tokens_logged = 0
        self._stream: GradingStream | None = None
        self._measured = False
        self.alarms = Alarms(recipe.alarms)
        super().__init__(reward_funcs=[self._judge_reward], **kwargs)
        self.engine = open_engine(self, recipe)
        self.sync_engine = SyncCheck(self, recipe.sync, probe)

    # -- one generation step -------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self._training():
            return super()._generate_and_score_completions(inputs)
        step = self.state.global_step // self.updates_per_generation
        budget = len(inputs) * self.accelerator.num_processes
        self._step_times = {"generate": 0.0, "grade": 0.0, "sync": 0.0, "logprob": 0.0}
        if not self._measured:
            self._measure(step, len(inputs))
        generated, synced, graded = self._generate_seconds, self._sync_seconds, self.grader.seconds
        keys = self.schedule.problems(step, self.rates)
        passed_over = len(self.schedule.retired(step, self.rates))
        attempts = [self._attempt(step, keys, len(inputs))]
        if isinstance(self.policy, DynamicSampling):
            while len(attempts) < self.policy.max_rounds and sum(a.signal for a in attempts) < budget:
                used = {key for attempt in attempts for key in attempt.keys}
                keys = self.schedule.refill(step, len(attempts), used, len(keys), self.rates)
                if not keys:
                    break
                attempts.append(self._attempt(step, keys, len(inputs)))
        self._step_times["generate"] = self._generate_seconds - generated
        self._step_times["sync"] = self._sync_seconds - synced
        self._step_times["grade"] = self.grader.seconds - graded

        output = attempts[0].output
        if len(attempts) > 1:
            output = self._kept_groups(attempts, budget)
        logged: Any = self._logs["advantages"]  # a deque as long as a generation batch
        logged.clear()
        logged.extend(attempts[0].advantages.tolist())
        self._checks_gap = True
        output = self._leave_out(output)
        self._finish(step + 1, attempts, passed_over)
        return output

    def _measure(self, step: int, rows_here: int) -> None:
        """Opens the history with pass rates of the starting policy, where the recipe asks; before step 0 only."""
        self._measured = True
        count = self.recipe.curriculum.measure_rollouts
        if step or not count:
            return
        started = time.perf_counter()
        measure_pass_rates(self, count, rows_here * self.accelerator.num_processes)
        self._step_times["measure"] = time.perf_counter() - started

    def _attempt(self, step: int, keys: Sequence[str], rows_here: int) -> Attempt:
        """Samples and grades one allocation of rollouts to problems."""
        counts = self.policy.allocate(keys, self.rates, rows_here * self.accelerator.num_processes)
        if isinstance(self.policy, Knapsack):
            for name, figure in self.policy.beside_count(keys, self.rates, counts).items():
                self._metrics["train"][f"budget/{name}"].append(figure)
        groups = [number for number, count in enumerate(counts) for _ in range(count)]
        first = self.accelerator.process_index * rows_here
        local = slice(first, first + rows_here)
        rows = [{"prompt": self.prompts[keys[group]], "problem_id": keys[group]} for group in groups[local]]
        estimates = [self.rates.window(key) for key in keys]
        self._order = longest_first([self.rates.mean_tokens(row["problem_id"]) for row in rows])
        self._stream = GradingStream(self.grader, [self.problems[row["problem_id"]] for row in rows])
        self._sampling = True
        output = self._with_routes(super()._generate_and_score_completions(rows))
        self._record_routes(output, self._records)
        self._sampling = False
        self._stream = None

        assert self._gathered_rewards is not None
        section = self.recipe.grpo
        advantages, mixed = group_advantages(
            self._gathered_rewards[:, 0], groups, scale=section.scale_rewards, clip=self.recipe.advantage_clip
        )
        if section.prompt_weighting == "problem":
            sizes = torch.tensor(counts, dtype=advantages.dtype, device=advantages.device)
            advantages = advantages * (section.num_generations / sizes)[torch.tensor(groups, device=advantages.device)]
        output["advantages"] = advantages[local]
        accuracies: list[float | None] = gather_object([graded.accuracy for graded in self._graded])
        records: list[RolloutRecord] = gather_object(self._records)
        outcomes: list[list[float | None]] = [[] for _ in keys]
        lengths: list[list[int]] = [[] for _ in keys]
        for group, accuracy, record in zip(groups, accuracies, records, strict=True):
            outcomes[group].append(accuracy)
            lengths[group].append(record.completion_tokens)
        for position, (group, record) in enumerate(zip(groups, records, strict=True)):
            record.step, record.stage, record.group = step + 1, self.recipe.stage, group
            record.advantage = float(advantages[position])
            record.n_allocated, record.success_rate = counts[group], estimates[group]
        return Attempt(output, keys, counts, groups, advantages, mixed.tolist(), outcomes, lengths, records)

    def _kept_groups(self, attempts: Sequence[Attempt], budget: int) -> dict[str, Any]:
        """The step that dynamic sampling leaves: groups with a signal first, this process's share of their rows."""
        mixed = [good for attempt in attempts for good in attempt.effective]
        counts = [count for attempt in attempts for count in attempt.counts]
        kept = set(DynamicSampling.keep(mixed, counts, budget))
        rows: list[int] = []  # of all attempts, one after the other
        first = place = 0
        for attempt in attempts:
            for number, count in enumerate(attempt.counts):
                if first + number in kept:
                    rows += range(place, place + count)
                else:
                    attempt.dropped.add(number)
                place += count
            first += len(attempt.counts)
        return regrouped([attempt.output for attempt in attempts], rows, self.accelerator, self._tokenizer.pad_token_id)

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        done = self.draw(prompt_ids, self._order, self._submit if self._training() else None)
        self._keep_routes(prompt_ids, done)
        return done.tokens, done.logps

    def draw(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        """Samples with the present policy, handed to the engine first; as `PolicyEngine.sample`, and TrainingFault
        naming the step where the engine fails."""
        started = time.perf_counter()
        url = self.engine.url
        doing = "handing over the weights"
        try:
            with watched_server(url) if url else contextlib.nullcontext():
                gap = self.sync_engine(self.engine, self.state.global_step)
            synced = time.perf_counter()
            doing = "sampling"
            with watched_server(url, sampling=True) if url else contextlib.nullcontext():
                done = self.engine.sample(prompt_ids, order, finished)
        except (EngineFailure, SyncRefused, FloatingPointError, torch.OutOfMemoryError) as error:
            hint = "; lower grpo.learning_rate" if isinstance(error, FloatingPointError) else ""
            what: object = error
            if isinstance(error, torch.OutOfMemoryError):
                what = f"{self.engine.name}: out of memory while {doing} ({str(error).splitlines()[0]})"
                hint = "; lower grpo.problems_per_step or max_completion_length, or share the model among more devices"
            raise TrainingFault(f"step {self.step_under_way}: {what}{hint}; {CONTINUES}") from None
        if gap is not None:
            self._metrics["train" if self._training() else "eval"]["sync/canary_gap"].append(gap)
        self._sync_seconds += synced - started
        self._generate_seconds += time.perf_counter() - synced
        return done

    def _submit(self, row: int, tokens: list[int]) -> None:
        assert self._stream is not None
        self._stream.submit(row, self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        self._gathered_rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._gathered_rewards

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
                    policy_version=self.state.global_step,
                )
            )
        return rewards

    def _finish(self, step: int, attempts: Sequence[Attempt], passed_over: int) -> None:
        """Records the step: success rates on every process, the rollouts' file and the metrics on the first."""
        offset = 0
        for attempt in attempts:
            for key, group, lengths in zip(attempt.keys, attempt.outcomes, attempt.lengths, strict=True):
                self.rates.record(key, group, step, lengths)
            for record in attempt.records:
                if record.group in attempt.dropped:
                    record.advantage = 0.0
                record.group += offset
            offset += len(attempt.keys)
        records = [record for attempt in attempts for record in attempt.records]
        if self.accelerator.is_main_process:
            kept = Path(self.recipe.output_dir) / "rollouts" / self.recipe.stage
            with writing(f"step {step}: the rollouts", kept):
                write_records(kept, step, records)

        outcomes = [group for attempt in attempts for group in attempt.outcomes]
        reason = next((record.message for record in records if record.reward is None and record.message), "")
        self.check_judge([outcome for group in outcomes for outcome in group], f"step {step}", reason)
        metrics = self._metrics["train"]
        mixed = [good for attempt in attempts for good in attempt.mixed]
        counts = [count for attempt in attempts for count in attempt.counts]
        metrics["frac_reward_zero_std"] = [1.0 - sum(mixed) / len(mixed)]  # of all rounds; TRL's has one of each
        metrics["curriculum/phase"].append(self.schedule.phase_at(step - 1)[0] + 1)
        if self.schedule.retire is not None:
            metrics["curriculum/retired"].append(float(passed_over))
        risen = self.schedule.improvement(step, self.rates)
        if risen is not None:
            metrics["curriculum/improvement"].append(risen)
        if len(attempts) > 1 or isinstance(self.policy, DynamicSampling):
            metrics["budget/rounds"].append(float(len(attempts)))
        metrics["budget/rollouts"].append(float(len(records)))
        for name, value in rollout_metrics(records, counts, outcomes, mixed).items():
            metrics[name].append(value)
        if self.metrics_file is not None:
            histogram = Counter(counts)
            self.metrics_file.extras["budget/allocation_histogram"] = {str(n): histogram[n] for n in sorted(histogram)}

    def check_judge(self, outcomes: Sequence[float | None], when: str, reason: str = "") -> None:
        """Raises InfrastructureError where the judge failed on more of these rollouts than the recipe allows."""
        failures = sum(outcome is None for outcome in outcomes)
        allowed = self.recipe.judge.max_infrastructure_errors
        if failures > allowed * len(outcomes):
            raise InfrastructureError(
                f"{when}: the judge failed on {failures} of {len(outcomes)} rollouts, above the allowed share {allowed}"
                f" (judge.max_infrastructure_errors); first reason: {reason or 'none given'}; {CONTINUES}"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics = self._metrics["train"]
        if self._training() and metrics.get("step_time"):
            if metrics.get("skipped_rollouts", [0.0])[-1] > MOSTLY_SKIPPED:
                metrics.pop("entropy", None)  # of a handful of rollouts, and those not drawn at random
            for name, seconds in self._step_times.items():
                metrics[f"time/{name}"].append(seconds)
            spent = sum(metrics["step_time"])
            metrics["step_time"] = [spent]  # TRL's is of an update
            metrics["time/update"].append(spent - sum(self._step_times.values()))
            tokens = self.state.num_input_tokens_seen
            spent -= self._step_times.get("measure", 0.0)  # whose tokens are not the step's
            metrics["tokens_per_second"].append((tokens - self._tokens_logged) / max(spent, 1e-9))
            self._tokens_logged = tokens
            step = self.state.global_step // self.updates_per_generation
            ringing = self.alarms.check(step, {**logs, **{name: v[-1] for name, v in metrics.items() if v}})
            metrics["alarms"].append(float(len(ringing)))
            if ringing and self.metrics_file is not None:
                self.metrics_file.extras["alarms/ringing"] = ringing
        super().log(logs, start_time)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def own_state(self) -> dict[str, Any]:
        return {
            "step": self.state.global_step // self.updates_per_generation,
            "stage": self.recipe.stage,
            "success_rates": self.rates.state_dict(),
            "schedule": self.schedule.state_dict(),
            **self.state_extras(),
        }
