"""How many rollouts each problem gets so that their summed value is the largest the budget can buy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlvr.budget.value import FloatArray, marginal_gains


def solve_allocation(success_rates: Sequence[float], budget: int, low: int = 2, high: int = 128) -> list[int]:
    """Rollouts per problem, in the order given: the exact optimum of sum value(n_i, p_i) with sum n_i = budget.

    Every n_i lies in [low, high]; a rollout costs 1. Equal gains go first to the problem with fewer rollouts, then to
    the one listed first, so the same input gives the same answer everywhere.

    Why greedy is exact (the paper solves a dynamic programme): for n >= 1 the gain of one more rollout,
    info_gain(p) (p^n (1-p) + (1-p)^n p), falls with n, so each value is concave in n. Take any feasible allocation that
    lacks one of the `budget - low * problems` largest gains: it holds a smaller gain elsewhere, and swapping
    the two rollouts keeps the sum and cannot lower the value. So the largest gains overall are an optimum, and since
    gains fall within a problem, choosing them never skips a rollout.

    Raises ValueError when the budget is below low * problems or above high * problems, or a rate is outside [0, 1].
    Time and memory are problems * min(high - low, budget - low * problems).
    """
    rates = np.asarray(success_rates, dtype=np.float64)
    if rates.ndim != 1 or rates.size == 0:
        raise ValueError("rollout allocation: no problems given")
    bad = np.flatnonzero(~((rates >= 0.0) & (rates <= 1.0)))
    if bad.size:
        raise ValueError(f"rollout allocation: success rate {rates[bad[0]]} of problem {bad[0]} is not in [0, 1]")
    check_budget(rates.size, budget, low, high)
    spare = budget - low * rates.size
    gains = marginal_gains(rates, low, min(high - low, spare))
    return [int(n) for n in low + take_largest(gains, spare)]


def check_budget(problems: int, budget: int, low: int, high: int) -> None:
    """Raises ValueError, naming the numbers, unless `budget` rollouts fit `problems` groups of low to high."""
    if low < 1:
        raise ValueError(f"rollout allocation: low={low}, but every problem needs at least 1 rollout (2 to learn)")
    if high < low:
        raise ValueError(f"rollout allocation: high={high} is below low={low}")
    if budget < low * problems:
        raise ValueError(
            f"rollout allocation: a budget of {budget} is below low * problems = {low} * {problems}"
            f" = {low * problems}; raise the budget or take fewer problems per step"
        )
    if budget > high * problems:
        raise ValueError(
            f"rollout allocation: a budget of {budget} is above high * problems = {high} * {problems}"
            f" = {high * problems}; raise high or take more problems per step"
        )


def take_largest(gains: FloatArray, count: int) -> NDArray[np.int64]:
    """How many of the `count` largest gains lie in each column: [problems]. Ties: upper row first, then left.

    `gains` is [levels, problems] with every column falling (or level), so each column is taken from its top.
    """
    if count > gains.size:
        raise ValueError(f"rollout allocation: {count} rollouts to place, room for {gains.size}")
    taken = np.zeros(gains.shape[1] if gains.ndim == 2 else 0, dtype=np.int64)
    if count == 0:
        return taken
    flat = gains.ravel()  # row-major: index order is (level, problem), the order of ties
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    chosen = flat > threshold
    ties = np.flatnonzero(flat == threshold)[: count - int(chosen.sum())]
    chosen[ties] = True
    return chosen.reshape(gains.shape).sum(axis=0)
