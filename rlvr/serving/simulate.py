"""Simulations of serving rollouts on drawn lengths: request order and allocation. Directions, not speeds."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlvr.budget.solver import solve_allocation
from rlvr.budget.value import value
from rlvr.serving.cost import RolloutCosts, allocate_by_time

ORDERS = ("fifo", "random", "longest group first", "oracle")


def drawn_lengths(prompts: int, rollouts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns (lengths [prompts, rollouts], each prompt's typical length): lognormal, sigma 0.7 between prompts and
    0.45 within one; completions of one prompt resemble each other."""
    typical = 1000 * np.exp(rng.normal(0, 0.7, prompts))
    return typical[:, None] * np.exp(rng.normal(0, 0.45, (prompts, rollouts))), typical


def makespan(lengths: Sequence[float], order: Sequence[int], slots: int) -> float:
    """Returns when the last request ends, if each free slot takes the next in `order` and all are equally fast."""
    free = [0.0] * slots
    for row in order:
        heapq.heapreplace(free, free[0] + lengths[row])
    return max(free)


def order_table(
    *, prompts: int = 256, rollouts: int = 16, slots: int = 256, seeds: int = 5, error: float = 0.1
) -> dict[str, float]:
    """Returns makespan over its lower bound by order of requests, mean of `seeds` draws.

    "longest group first" knows a prompt's typical length up to a lognormal `error`, as an average of earlier rollouts
    does; "oracle" knows every length.
    """
    found: dict[str, list[float]] = {name: [] for name in ORDERS}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        lengths, typical = drawn_lengths(prompts, rollouts, rng)
        flat = lengths.ravel()
        predicted = np.repeat(typical * np.exp(rng.normal(0, error, prompts)), rollouts)
        bound = max(flat.sum() / slots, flat.max())
        orders = {
            "fifo": np.arange(len(flat)),
            "random": rng.permutation(len(flat)),
            "longest group first": np.argsort(-predicted, kind="stable"),
            "oracle": np.argsort(-flat, kind="stable"),
        }
        for name, order in orders.items():
            found[name].append(makespan(flat.tolist(), order.tolist(), slots) / bound)
    return {name: float(np.mean(ratios)) for name, ratios in found.items()}


@dataclass(frozen=True)
class AllocationOutcome:
    """Of one policy: expected value, value and tokens relative to uniform, share of problems with a mixed group."""

    value: float
    tokens: float
    value_per_token: float
    mixed: float


def allocation_table(*, prompts: int = 512, mean: int = 8, seed: int = 0) -> dict[str, AllocationOutcome]:
    """Returns outcomes of uniform allocation, of the knapsack that counts rollouts, and of the one that counts time.

    Success rates are Beta(0.6, 0.6); a hard problem's completions are up to three times as long as an easy one's, with
    a lognormal spread. Known rates, so this is the allocation's gain alone.
    """
    rng = np.random.default_rng(seed)
    p = np.clip(rng.beta(0.6, 0.6, prompts), 0.01, 0.99)
    lengths = 1000 * (3 - 2 * p) * np.exp(rng.normal(0, 0.4, prompts))
    costs = RolloutCosts(np.zeros(prompts), lengths, batch=1)
    uniform = np.full(prompts, mean)
    by_count = solve_allocation(p.tolist(), prompts * mean, low=2, high=64)
    by_time = allocate_by_time(p.tolist(), costs, costs.total(uniform), low=2, high=64)
    base_value = base_tokens = 1.0
    outcomes = {}
    for name, counts in (("uniform", uniform), ("knapsack by count", by_count), ("knapsack by time", by_time)):
        n = np.asarray(counts)
        worth = float(sum(value(int(k), float(rate)) for k, rate in zip(n, p, strict=True)))
        tokens = costs.total(n)
        if name == "uniform":
            base_value, base_tokens = worth, tokens
        mixed = float((1 - p**n - (1 - p) ** n).mean())
        relative, spent = worth / base_value, tokens / base_tokens
        outcomes[name] = AllocationOutcome(relative, spent, relative / spent, mixed)
    return outcomes
