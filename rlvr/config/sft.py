"""Recipe of supervised fine-tuning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_curation.config import FolderName
from rlvr.config.load import Strict
from rlvr.config.lora import LoRASection
from rlvr.config.moe import SupervisedMoESection
from rlvr.config.sections import LRSchedule, ModelSection, PromptSection, TrackingSection


class SFTSection(Strict):
    """Optimiser settings under the names of TRL's SFTConfig; `extra` reaches every other field of it."""

    num_train_epochs: float = Field(default=1.0, gt=0)
    max_steps: int = Field(default=-1, ge=-1)  # -1: as the epochs say
    per_device_train_batch_size: int = Field(default=8, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    lr_scheduler_type: LRSchedule = "cosine"
    lr_scheduler_kwargs: dict[str, Any] = Field(default_factory=dict)
    warmup_steps: float = Field(default=0.05, ge=0)  # a value below 1 is a share of all steps
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = Field(default=1.0, ge=0)
    max_length: int = Field(default=2048, ge=8)
    bf16: bool = False
    gradient_checkpointing: bool = False
    packing: bool = False
    group_by_length: bool = False
    logging_steps: int = Field(default=10, ge=1)
    save_steps: int = Field(default=500, ge=1)
    save_total_limit: int | None = Field(default=2, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("max_steps")
    @classmethod
    def _some(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("a number of steps is wanted, or -1 for num_train_epochs (got 0)")
        return steps


class ArenaSection(Strict):
    """Demonstrations of the problems that arena learning selects; `rlvr arena` keeps the books."""

    books: str  # JSON of `rlvr arena new`
    teach: Literal["training_ids", "hard_ids"] = "hard_ids"  # what was kept of the last fold, or of all folds
    keep_first: bool = True  # of hard_ids: also the first fold, which nobody has predicted
    hard_repeat: int = Field(default=2, ge=1)  # of hard_ids: how often a problem the model failed is shown in all


class SFTRecipe(Strict):
    """`rlvr sft`: a warm start on solutions.

    `data` holds rows of prompt and completion (parquet, JSONL), or problems whose accepted solutions are taught.
    """

    name: FolderName
    output_dir: str = ""  # default: runs/<name>
    seed: int = Field(default=0, ge=0, lt=2**32)
    model: ModelSection
    data: str
    arena: ArenaSection | None = None
    limit: int | None = Field(default=None, ge=1)
    prompt: PromptSection = PromptSection()  # renders problems; rows of prompt and completion are taken as they are
    sft: SFTSection = SFTSection()
    lora: LoRASection | None = None
    moe: SupervisedMoESection = SupervisedMoESection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="before")
    @classmethod
    def _default_folder(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") and not values.get("output_dir"):
            values = {**values, "output_dir": f"runs/{values['name']}"}
        return values
