"""Where the rollout budget goes: value of a rollout, exact allocation, success-rate history, policies. No torch."""

from rlvr.budget.knapsack import Knapsack, TimeModel
from rlvr.budget.policies import AllocationPolicy, DynamicSampling, Uniform
from rlvr.budget.solver import solve_allocation
from rlvr.budget.success_rates import Group, Posterior, SuccessRates
from rlvr.budget.value import (
    effective_gradient_ratio,
    effective_prompt_ratio,
    exact_rollouts_for_confidence,
    expected_first_mixed,
    info_gain,
    p_nonzero,
    rollouts_for_confidence,
    value,
)

__all__ = [
    "AllocationPolicy",
    "DynamicSampling",
    "Group",
    "Knapsack",
    "Posterior",
    "SuccessRates",
    "TimeModel",
    "Uniform",
    "effective_gradient_ratio",
    "effective_prompt_ratio",
    "exact_rollouts_for_confidence",
    "expected_first_mixed",
    "info_gain",
    "p_nonzero",
    "rollouts_for_confidence",
    "solve_allocation",
    "value",
]
