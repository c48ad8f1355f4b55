"""Typed recipes: YAML in, validated objects out; nothing here imports torch."""

from rlvr.config.evaluation import EvaluationRecipe
from rlvr.config.grpo import (
    AlarmSection,
    Arithmetic,
    BudgetSection,
    CurriculumSection,
    GRPORecipe,
    GRPOSection,
    PhaseSection,
    PlateauSection,
    RetireSection,
    RewardSection,
)
from rlvr.config.load import (
    RecipeError,
    Strict,
    load_recipe,
    require_folder,
    require_own_folder,
    require_same_run,
    write_resolved,
)
from rlvr.config.quickstart import QuickstartRecipe
from rlvr.config.sections import DataSection, JudgeSection, ModelSection, PromptSection, TrackingSection
from rlvr.config.sft import SFTRecipe

__all__ = [
    "AlarmSection",
    "Arithmetic",
    "BudgetSection",
    "CurriculumSection",
    "DataSection",
    "EvaluationRecipe",
    "GRPORecipe",
    "GRPOSection",
    "JudgeSection",
    "ModelSection",
    "PhaseSection",
    "PlateauSection",
    "PromptSection",
    "QuickstartRecipe",
    "RecipeError",
    "RetireSection",
    "RewardSection",
    "SFTRecipe",
    "Strict",
    "TrackingSection",
    "load_recipe",
    "require_folder",
    "require_own_folder",
    "require_same_run",
    "write_resolved",
]
