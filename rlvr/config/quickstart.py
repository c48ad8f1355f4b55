"""Recipe of the quickstart: the whole road at a size that two cores walk in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from data_curation import CurationConfig
from data_curation.config import FolderName
from rlvr.config.evaluation import SamplingSection
from rlvr.config.grpo import BudgetSection, CurriculumSection, GRPORecipe, GRPOSection
from rlvr.config.load import Strict
from rlvr.config.moe import MoESection
from rlvr.config.sections import DataSection, JudgeSection, ModelSection, PromptSection, TrackingSection
from rlvr.config.sft import SFTSection


def _with_experts(name: str, family: str) -> tuple[str, ...]:
    return (
        f"name={name}",
        f"output_dir=runs/{name}",
        f"model.family={family}",
        "moe.replay=r2",
        "moe.ranks=4",
        *(f"stage{n}.grpo.{key}" for n in (1, 2) for key in ("updates_per_step=2", "per_device_train_batch_size=64")),
    )


# What `--model` changes: experts, and two updates a step, so that the second replays the first one's routes.
MODELS: dict[str, tuple[str, ...]] = {
    "tiny": (),
    "tiny-moe": _with_experts("quickstart-moe", "qwen3_moe"),
    "tiny-moe-glm4": _with_experts("quickstart-moe-glm4", "glm4_moe"),  # sigmoid router with a bias, a dense layer
}


PROMPT = PromptSection(style="plain")


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

    @model_validator(mode="after")
    def _shapes(self) -> TinyModelSection:
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(
                f"heads {self.heads}: hidden {self.hidden} must be an even multiple of it, such as"
                f" {2 * self.heads * max(1, round(self.hidden / (2 * self.heads)))}"
            )
        if self.family != "llama" and self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k}: at most as many as experts ({self.experts})")
        return self


class StageSection(Strict):
    """One GRPO stage of the quickstart."""

    tags: list[str]  # which training problems, by tag
    grpo: GRPOSection
    budget: BudgetSection = BudgetSection()
    curriculum: CurriculumSection = CurriculumSection()


class QuickstartRecipe(Strict):
    """`rlvr quickstart`: curate, SFT, stage 1, stage 2, evaluate, report."""

    name: FolderName = "quickstart"
    output_dir: str = Field(default="runs/quickstart", min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    threads: int | None = Field(default=None, ge=1)  # torch threads; None: the cores, at most 4
    curation: CurationConfig = CurationConfig()  # its seed is this recipe's unless it has its own
    model: TinyModelSection = TinyModelSection()
    sft: SFTSection
    stage1: StageSection
    stage2: StageSection
    moe: MoESection = MoESection()
    evaluation: SamplingSection = SamplingSection()
    judge: JudgeSection = JudgeSection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, values: Any) -> Any:
        curation = values.get("curation", {}) if isinstance(values, dict) else None
        if isinstance(curation, dict) and isinstance(values.get("seed"), int):
            return values | {"curation": {"seed": values["seed"]} | curation}
        return values

    @property
    def curated(self) -> Path:
        """The folder of the curated problems."""
        return Path(self.output_dir) / "curation"

    def stage(self, name: Literal["stage1", "stage2"], start: Path) -> GRPORecipe:
        """The recipe of a GRPO stage that begins with the checkpoint `start`."""
        section = self.stage1 if name == "stage1" else self.stage2
        return GRPORecipe(
            name=f"{self.name}-{name}",
            output_dir=str(Path(self.output_dir) / name),
            stage=name,
            seed=self.seed,
            model=ModelSection(name_or_path=str(start)),
            data=DataSection(problems=str(self.curated / "train.parquet"), tags=section.tags),
            prompt=PROMPT,
            grpo=section.grpo,
            budget=section.budget,
            curriculum=section.curriculum,
            moe=self.moe,
            judge=self.judge,
            tracking=self.tracking,
        )

    @model_validator(mode="after")
    def _stages_and_samples(self) -> QuickstartRecipe:
        """What a stage cannot do is said before the first begins."""
        self.evaluation.check("evaluation")
        if self.moe.keep_routes and self.model.family == "llama":
            raise ValueError(
                "moe.keep_routes: model.family llama has no experts, so no routes; choose qwen3_moe or glm4_moe"
            )
        names: tuple[Literal["stage1", "stage2"], ...] = ("stage1", "stage2")
        for name in names:
            try:
                self.stage(name, Path("start"))
            except ValidationError as error:
                raise ValueError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self
