"""Recipe of the quickstart: the whole road at a size that two cores walk in minutes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rlvr.config.evaluation import SamplingSection
from rlvr.config.grpo import BudgetSection, CurriculumSection, GRPOSection
from rlvr.config.load import Strict
from rlvr.config.moe import MoESection
from rlvr.config.sections import JudgeSection, TrackingSection
from rlvr.config.sft import SFTSection

# What `--model tiny-moe` changes: experts, and two updates a step, so that the second replays the first one's routes.
TINY_MOE = (
    "name=quickstart-moe",
    "output_dir=runs/quickstart-moe",
    "model.family=qwen3_moe",
    "moe.replay=r2",
    "moe.ranks=4",
    *(f"stage{n}.grpo.{key}" for n in (1, 2) for key in ("updates_per_step=2", "per_device_train_batch_size=64")),
)


class TinyModelSection(Strict):
    """Size of the policy that is built on the spot."""

    vocab_size: int = Field(default=1024, ge=300)
    hidden: int = Field(default=128, ge=8)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp: int = Field(default=384, ge=8)
    max_positions: int = Field(default=256, ge=64)
    tokenizer_samples: int = Field(default=4000, ge=100)
    family: Literal["llama", "qwen3_moe", "glm4_moe"] = "llama"
    experts: int = Field(default=8, ge=2)  # of a mixture-of-experts family
    top_k: int = Field(default=2, ge=1)
    expert_mlp: int = Field(default=128, ge=8)


class StageSection(Strict):
    """One GRPO stage of the quickstart."""

    tags: list[str]  # which training problems, by tag
    grpo: GRPOSection
    budget: BudgetSection = BudgetSection()
    curriculum: CurriculumSection = CurriculumSection()


class QuickstartRecipe(Strict):
    """`rlvr quickstart`: curate, SFT, stage 1, stage 2, evaluate, report."""

    name: str = "quickstart"
    output_dir: str = Field(default="runs/quickstart", min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    threads: int | None = Field(default=None, ge=1)  # torch threads; None: the cores, at most 4
    curation: dict[str, Any] = Field(default_factory=dict)  # keys of data_curation.CurationConfig
    model: TinyModelSection = TinyModelSection()
    sft: SFTSection
    stage1: StageSection
    stage2: StageSection
    moe: MoESection = MoESection()
    evaluation: SamplingSection = SamplingSection()
    judge: JudgeSection = JudgeSection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="after")
    def _samples_for_k(self) -> QuickstartRecipe:
        self.evaluation.check("evaluation")
        return self
