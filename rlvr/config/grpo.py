"""Recipe of a GRPO stage: model, problems, budget, phases, and the arithmetic between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_curation.config import FolderName
from rlvr.config.evaluation import EvaluationSchedule
from rlvr.config.load import Strict
from rlvr.config.lora import LoRASection
from rlvr.config.moe import MoESection
from rlvr.config.sections import DataSection, JudgeSection, LRSchedule, ModelSection, PromptSection, TrackingSection
from rlvr.serving.hardware import parse_hardware

KNAPSACK_ADVANTAGE_CLIP = 5.0  # a single success among 64 has an advantage near 8, among 128 over 11


class GRPOSection(Strict):
    """Sampling and optimiser settings under the names of TRL's GRPOConfig; `extra` reaches every other field of it.

    A step generates `problems_per_step x num_generations` rollouts and makes `updates_per_step` optimiser updates of
    them. `num_generations` is the mean group size; the budget policy decides each group's own.
    """

    problems_per_step: int = Field(default=32, ge=1)
    num_generations: int = Field(default=8, ge=2)
    updates_per_step: int = Field(default=1, ge=1)
    per_device_train_batch_size: int = Field(default=8, ge=1)
    max_steps: int = Field(default=100, ge=1)
    max_length: int | None = Field(default=None, ge=16)  # the window: prompt + completion
    max_completion_length: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=1e-6, gt=0)
    lr_scheduler_type: LRSchedule = "constant_with_warmup"
    warmup_steps: float = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = Field(default=1.0, ge=0)
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    beta: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=0.2, gt=0)
    epsilon_high: float | None = Field(default=0.28, gt=0)
    mask_truncated_completions: bool = False
    num_iterations: int = Field(default=1, ge=1)
    bf16: bool = False
    gradient_checkpointing: bool = False
    use_vllm: bool = False
    vllm_mode: Literal["colocate", "server", "file"] = "colocate"  # file: a server of this machine, weights by file
    vllm_url: str = "http://127.0.0.1:8000"  # of vllm_mode file
    vllm_token_file: Path | None = None  # of the same; RLVR_SERVE_TOKEN goes before it
    save_steps: int = Field(default=50, ge=1)  # in steps, not in updates
    save_total_limit: int | None = Field(default=2, ge=1)
    # what TRL lacks against the difference of two engines, and against entropy that falls too fast
    geometric_rejection: tuple[float, float] | None = None  # keep rollouts whose mean ratio to the sampler is within
    clip_cov: float = Field(default=0.0, ge=0, lt=1)  # share of tokens of high covariance left out (paper: 2e-4)
    clip_cov_range: tuple[float, float] = (1.0, 5.0)
    kl_cov: float = Field(default=0.0, ge=0, lt=1)  # share of tokens of highest covariance held back (paper: 2e-4)
    kl_cov_coef: float = Field(default=1.0, ge=0)
    advantage_clip: float | Literal["auto"] | None = "auto"  # auto: 5 with knapsack
    prompt_weighting: Literal["rollout", "problem"] = "rollout"
    skip_zero_signal: bool = True  # no forward/backward for rollouts of advantage 0; the gradient is the same
    padding_free: bool = False  # a micro-batch is run as one row without padding; refused where a model cannot
    pack_micro_batches: bool = True  # rollouts of similar length share a micro-batch; the gradient is the same
    fast_sampling: bool = True  # transformers: one prefill a prompt, finished rollouts leave the batch
    sampling_threads: int | None = Field(default=None, ge=1)  # transformers on CPU: the other cores judge meanwhile
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("vllm_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"an address as in http://127.0.0.1:8000 is wanted (got {url!r})")
        return url.rstrip("/")

    @field_validator("advantage_clip", mode="before")
    @classmethod
    def _bound(cls, value: Any) -> Any:
        if value is None or value == "auto" or (isinstance(value, int | float) and value > 0):
            return value
        raise ValueError(f"a number above 0, auto or null is wanted (got {value!r})")


class BudgetSection(Strict):
    """How a step's rollouts are shared among its problems (Knapsack RL, arXiv 2509.25849)."""

    policy: Literal["uniform", "knapsack", "dynamic_sampling"] = "uniform"
    estimator: Literal["window", "beta"] = "window"
    low: int = Field(default=2, ge=2)  # a lone rollout has no baseline and no gradient
    high: int = Field(default=128, ge=1)
    fallback: bool = True
    confidence: float = Field(default=0.9, gt=0, lt=1)
    cost: Literal["rollouts", "tokens", "time"] = "rollouts"  # what knapsack economises
    hardware: str | None = None  # for cost time: what samples, such as 8xH100
    skew: float = Field(default=1.0, ge=1)  # for cost time: busiest over mean load of the expert-parallel ranks
    window: int = Field(default=16, ge=1)  # outcomes the window estimate looks back on
    min_rollouts: int = Field(default=8, ge=1)  # outcomes below which it knows nothing
    half_life: float | None = Field(default=40.0, gt=0)  # steps after which an outcome weighs half, for `beta`
    prior_strength: float = Field(default=0.0, ge=0)  # what a pass rate measured by curation weighs, in rollouts
    max_rounds: int = Field(default=3, ge=1)  # dynamic_sampling: sampling budget, in steps' worth of rollouts

    @model_validator(mode="after")
    def _ordered(self) -> BudgetSection:
        if self.prior_strength and (self.policy, self.estimator) != ("knapsack", "beta"):
            raise ValueError(
                "budget.prior_strength is for policy knapsack with estimator beta; nothing else has priors"
            )
        if self.low > self.high:
            raise ValueError(f"budget.low ({self.low}) exceeds budget.high ({self.high})")
        if self.cost == "time" and self.hardware is None:
            raise ValueError(
                "budget.cost time needs budget.hardware, what samples: a number and a device, as in 8xH100"
            )
        if self.hardware is not None:
            try:
                parse_hardware(self.hardware)
            except ValueError as error:
                raise ValueError(f"budget.hardware: {error}") from None
        return self


class PhaseSection(Strict):
    """A phase of hard focus: `steps` steps on the `problems` hardest of the phase before (None: all of them)."""

    steps: int = Field(ge=1)
    problems: int | None = Field(default=None, ge=1)


class PlateauSection(Strict):
    """A phase ends before its `steps` where its problems' mean pass rate no longer rises.

    Compared are the means of the latest `window` steps and of the `window` steps before; both lie in the phase.
    """

    window: int = Field(default=10, ge=1)
    delta: float = Field(default=0.01, ge=-1, le=1)  # a smaller rise than this ends the phase


class RetireSection(Strict):
    """Solved problems are left out of a phase's steps until their outcomes have faded (`budget.half_life`)."""

    above: float = Field(default=0.9, gt=0, le=1)  # posterior mean from which a problem counts as solved
    min_rollouts: float = Field(default=8, gt=0)  # what its outcomes must still weigh, in rollouts


class CurriculumSection(Strict):
    """DRIVE's hard focus (arXiv 2511.06307, section 3.2).

    `measure_rollouts` > 0: every problem is first tried that many times by the starting policy (Pre-GRPO) and the
    pass rates rank the problems and open the success-rate history. `keep_easy` mixes that share of problems from
    outside the phase's hard subset into every step, because hard-only training forgets.
    """

    measure_rollouts: int = Field(default=0, ge=0)
    phases: list[PhaseSection] = Field(default_factory=list)
    plateau: PlateauSection | None = None
    retire: RetireSection | None = None
    keep_easy: float = Field(default=0.0, ge=0, lt=1)
    max_pass_rate: float = Field(default=1.0, gt=0, le=1)  # a measured rate above it is not "hard"
    min_pass_rate: float = Field(default=0.0, ge=0, le=1)  # a measured rate below it is set aside as hopeless for now


class AlarmSection(Strict):
    """Bounds on metrics: beyond them a line is logged and the step marked; null turns one off."""

    min_entropy: float | None = Field(default=0.01, ge=0)
    max_entropy: float | None = Field(default=None, ge=0)
    max_truncation: float | None = Field(default=0.3, ge=0, le=1)
    max_repetition: float | None = Field(default=0.2, ge=0, le=1)
    max_logprob_gap: float | None = Field(default=0.05, ge=0)  # mean over tokens, sampler against trainer
    stop_logprob_gap: float | None = Field(default=1.0, ge=0)  # above it the run ends: sampler and trainer differ


class SyncSection(Strict):
    """The canary of weight sync: fixed tokens that an engine with weights of its own must score as the trainer does."""

    canary_first: int = Field(default=3, ge=0)  # checked after each of the first syncs
    canary_every: int = Field(default=50, ge=0)  # and then after every so many; 0: no more
    canary_bound: float = Field(default=0.1, gt=0)  # nats a token; tightened by what a freshly loaded engine shows


class RewardSection(Strict):
    """From verdict to reward; an infrastructure failure never has one."""

    scoring: Literal["all_pass", "fraction", "weighted", "subtasks"] = "all_pass"
    overlong_buffer: int = Field(default=0, ge=0)  # tokens before the limit over which DAPO's soft penalty grows
    overlong_penalty: float = Field(default=1.0, ge=0)


@dataclass(frozen=True)
class Arithmetic:
    """What a step costs, worked out from a recipe and the number of processes."""

    problems_per_step: int
    rollouts_per_step: int
    processes: int
    per_device_train_batch_size: int
    micro_batches: int  # per process and step
    gradient_accumulation_steps: int
    updates_per_step: int
    steps: int

    def __str__(self) -> str:
        return (
            f"{self.problems_per_step} problems x {self.rollouts_per_step // self.problems_per_step} rollouts"
            f" = {self.rollouts_per_step} rollouts a step; {self.processes} process(es) x {self.micro_batches}"
            f" micro-batches of {self.per_device_train_batch_size}; {self.updates_per_step} update(s) a step;"
            f" {self.steps} steps = {self.steps * self.rollouts_per_step:,} rollouts"
        )


class GRPORecipe(Strict):
    """`rlvr train`: one GRPO stage."""

    name: FolderName
    output_dir: str = ""  # default: runs/<name>
    stage: FolderName = "stage1"
    seed: int = Field(default=0, ge=0, lt=2**32)
    model: ModelSection
    data: DataSection
    prompt: PromptSection = PromptSection()
    grpo: GRPOSection = GRPOSection()
    lora: LoRASection | None = None
    budget: BudgetSection = BudgetSection()
    curriculum: CurriculumSection = CurriculumSection()
    reward: RewardSection = RewardSection()
    alarms: AlarmSection = AlarmSection()
    sync: SyncSection = SyncSection()
    moe: MoESection = MoESection()
    judge: JudgeSection = JudgeSection()
    tracking: TrackingSection = TrackingSection()
    evaluation: EvaluationSchedule | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_folder(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") and not values.get("output_dir"):
            values = {**values, "output_dir": f"runs/{values['name']}"}
        return values

    @model_validator(mode="after")
    def _possible(self) -> GRPORecipe:
        self.arithmetic(1)
        grpo, budget = self.grpo, self.budget
        if grpo.max_length is not None and grpo.max_completion_length >= grpo.max_length:
            raise ValueError(
                f"grpo.max_completion_length ({grpo.max_completion_length}) must be below grpo.max_length"
                f" ({grpo.max_length}), the window of prompt and completion together"
            )
        if budget.policy == "knapsack" and not budget.low <= grpo.num_generations <= budget.high:
            raise ValueError(
                f"grpo.num_generations ({grpo.num_generations}), the mean group size, must lie between"
                f" budget.low ({budget.low}) and budget.high ({budget.high})"
            )
        for number, phase in enumerate(self.curriculum.phases, 1):
            if budget.policy == "knapsack" and phase.problems is not None and not self.curriculum.keep_easy:
                self.check_room(f"curriculum.phases: phase {number}", min(phase.problems, grpo.problems_per_step))
        if budget.policy == "dynamic_sampling" and grpo.beta:
            raise ValueError("budget.policy dynamic_sampling cannot go with grpo.beta above 0: refills have no KL term")
        if grpo.geometric_rejection is not None and not (
            0 < grpo.geometric_rejection[0] < 1 < grpo.geometric_rejection[1]
        ):
            raise ValueError(
                f"grpo.geometric_rejection must enclose 1, as in [0.99, 1.01] (got {list(grpo.geometric_rejection)})"
            )
        if grpo.clip_cov and grpo.kl_cov:
            raise ValueError("grpo.clip_cov and grpo.kl_cov are alternatives: set one of them")
        if self.reward.overlong_buffer >= grpo.max_completion_length:
            raise ValueError(
                f"reward.overlong_buffer ({self.reward.overlong_buffer}) must be below"
                f" grpo.max_completion_length ({grpo.max_completion_length})"
            )
        if self.curriculum.min_pass_rate > self.curriculum.max_pass_rate:
            raise ValueError("curriculum.min_pass_rate exceeds curriculum.max_pass_rate: no problem would be left")
        if self.curriculum.plateau is not None and not self.curriculum.phases:
            raise ValueError(
                "curriculum.plateau ends phases, and curriculum.phases has none; for one phase of all problems write"
                f" [{{steps: {grpo.max_steps}}}]"
            )
        for number, phase in enumerate(self.curriculum.phases, 1):
            if self.curriculum.plateau is not None and phase.steps < 2 * self.curriculum.plateau.window:
                raise ValueError(
                    f"curriculum.phases: phase {number} has {phase.steps} steps, fewer than the two windows that"
                    f" curriculum.plateau compares (window: {self.curriculum.plateau.window})"
                )
        sizes = [phase.problems for phase in self.curriculum.phases if phase.problems is not None]
        if sizes != sorted(sizes, reverse=True):
            raise ValueError(f"curriculum.phases: subsets are nested, so sizes must not grow (got {sizes})")
        return self

    def check_room(self, where: str, problems: int) -> None:
        """Raises ValueError where so many problems cannot take a step's rollouts with knapsack's caps."""
        rollouts = self.grpo.problems_per_step * self.grpo.num_generations
        if self.budget.policy == "knapsack" and rollouts > problems * self.budget.high:
            raise ValueError(
                f"{where}: {problems} problem(s) take at most {problems} x budget.high {self.budget.high} ="
                f" {problems * self.budget.high} of a step's {rollouts} rollouts; raise budget.high to"
                f" {-(-rollouts // problems)}, or lower grpo.problems_per_step"
            )

    @property
    def steps(self) -> int:
        """Steps of the whole run: the phases' sum where there are phases; with a plateau rule the most there can be."""
        return sum(phase.steps for phase in self.curriculum.phases) or self.grpo.max_steps

    @property
    def advantage_clip(self) -> float | None:
        """Bound on the size of an advantage: the recipe's, or Knapsack RL's where the budget is allocated that way."""
        clip = self.grpo.advantage_clip
        if clip == "auto":
            return KNAPSACK_ADVANTAGE_CLIP if self.budget.policy == "knapsack" else None
        return clip

    def arithmetic(self, processes: int) -> Arithmetic:
        """Returns the batch arithmetic on `processes` processes; raises ValueError where it does not divide."""
        grpo = self.grpo
        rollouts = grpo.problems_per_step * grpo.num_generations
        share = processes * grpo.per_device_train_batch_size
        if rollouts % share:
            raise ValueError(
                f"grpo.problems_per_step x grpo.num_generations = {grpo.problems_per_step} x {grpo.num_generations}"
                f" = {rollouts} rollouts do not divide into micro-batches of {processes} process(es) x"
                f" grpo.per_device_train_batch_size {grpo.per_device_train_batch_size} = {share}"
            )
        micro = rollouts // share
        if micro % grpo.updates_per_step:
            raise ValueError(
                f"grpo.updates_per_step ({grpo.updates_per_step}) must divide the {micro} micro-batches of a step;"
                f" lower it or lower grpo.per_device_train_batch_size ({grpo.per_device_train_batch_size})"
            )
        return Arithmetic(
            problems_per_step=grpo.problems_per_step,
            rollouts_per_step=rollouts,
            processes=processes,
            per_device_train_batch_size=grpo.per_device_train_batch_size,
            micro_batches=micro,
            gradient_accumulation_steps=micro // grpo.updates_per_step,
            updates_per_step=grpo.updates_per_step,
            steps=self.steps,
        )
