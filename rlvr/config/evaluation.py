"""Recipe of an evaluation."""

from __future__ import annotations

from pydantic import Field, field_validator

from rlvr.config.load import Strict
from rlvr.config.sections import DataSection, JudgeSection, ModelSection, PromptSection


class SamplingSection(Strict):
    """How samples are drawn: `n` at `temperature` for pass@k, plus one greedy sample."""

    n: int = Field(default=8, ge=1)
    k: list[int] = Field(default_factory=lambda: [1, 8])
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_completion_length: int = Field(default=512, ge=1)
    greedy: bool = True
    batch_size: int = Field(default=64, ge=1)

    @field_validator("k")
    @classmethod
    def _positive(cls, k: list[int]) -> list[int]:
        if not k or min(k) < 1:
            raise ValueError("k lists the k of pass@k: whole numbers from 1 on")
        return sorted(set(k))


class EvaluationRecipe(Strict):
    """`rlvr evaluate`: one checkpoint on one suite of problems."""

    suite: str
    output_dir: str
    seed: int = 0
    model: ModelSection
    data: DataSection
    prompt: PromptSection = PromptSection()
    sampling: SamplingSection = SamplingSection()
    judge: JudgeSection = JudgeSection()
