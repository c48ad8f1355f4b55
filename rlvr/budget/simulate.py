"""Training without a model: how often groups carry a signal under a policy, for any distribution of success rates.

Every problem is a coin. A step draws problems, the policy divides the rollouts by what it has seen of them, the coins
fall, and where a group is mixed the logit of p rises by `speed` x (1 - p). That is the first-order model behind
InfoGain = p (1-p)^2, made a dynamic; it says how fast signal is used up and what an allocation saves, not what a model
will score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlvr.budget.policies import AllocationPolicy, DynamicSampling
from rlvr.budget.solver import solve_allocation
from rlvr.budget.success_rates import SuccessRates
from rlvr.budget.value import FloatArray


@dataclass(frozen=True)
class TrueRates:
    """The exact optimum for success rates that only a simulator knows: what estimating them costs a knapsack."""

    low: int = 2
    high: int = 128

    def allocate(self, success_rates: Sequence[float] | FloatArray, budget: int) -> list[int]:
        """Rollouts per problem; errors as of `solve_allocation`."""
        return solve_allocation([float(p) for p in success_rates], budget, self.low, self.high)


@dataclass(frozen=True)
class SimulatedStep:
    """One step: shares of rollouts and of problems with a signal, mean success rate of the pool after it."""

    step: int
    rollouts: int  # sampled so far, refills included
    effective_gradient_ratio: float
    effective_prompt_ratio: float
    pass_rate: float
    largest_group: int


def population(name: str, problems: int, rng: np.random.Generator) -> FloatArray:
    """Success rates drawn from a named distribution: [problems].

    "beta:A,B"; "uniform"; "late" (40 % solved, 20 % never solved, the rest uniform); "late-rare" (the same with rare
    successes instead of none, the rest Beta(1, 3)). Raises ValueError for another name.
    """
    if name.startswith("beta:"):
        try:
            a, b = (float(part) for part in name[5:].split(","))
        except ValueError:
            raise ValueError(f"population {name!r}: give two numbers, as in beta:0.5,3") from None
        if not (0 < a < math.inf and 0 < b < math.inf):
            raise ValueError(f"population {name!r}: both numbers must be above 0, and finite")
        return rng.beta(a, b, problems)
    if name == "uniform":
        return rng.random(problems)
    if name in ("late", "late-rare"):
        kind = rng.random(problems)
        others = rng.random(problems) if name == "late" else rng.beta(1, 3, problems)
        return np.where(kind < 0.4, 1.0, np.where(kind < 0.6, 0.0 if name == "late" else 0.005, others))
    raise ValueError(f"population {name!r}: unknown; give beta:A,B, uniform, late or late-rare")


def simulate(
    rates: Sequence[float] | FloatArray,
    policy: AllocationPolicy | TrueRates,
    *,
    steps: int,
    problems_per_step: int,
    mean_rollouts: int,
    speed: float = 0.0,
    seed: int = 0,
    estimates: SuccessRates | None = None,
) -> list[SimulatedStep]:
    """Returns what happened in every step; problems are visited in random epochs.

    `speed` 0 leaves the success rates where they are. `estimates`: the store the policy reads, empty by default.
    """
    rng = np.random.default_rng(seed)
    p = np.clip(np.asarray(rates, dtype=np.float64), 0.0, 1.0).copy()
    if not 0.0 <= speed < math.inf:
        raise ValueError(f"simulation: speed {speed}; give 0 (nothing is learnt) or a positive number")
    problems_per_step = min(problems_per_step, len(p))
    budget = problems_per_step * mean_rollouts
    known = estimates if estimates is not None else SuccessRates()
    order: list[int] = []
    sampled = 0
    found = []
    for step in range(1, steps + 1):
        drawn: list[int] = []
        counts: list[int] = []
        successes: list[int] = []
        mixed: list[bool] = []
        for _ in range(policy.max_rounds if isinstance(policy, DynamicSampling) else 1):
            if len(order) < problems_per_step:
                order = [int(i) for i in rng.permutation(len(p))]
            chosen = [i for i in order[:problems_per_step] if i not in drawn]
            order = order[problems_per_step:]
            if not chosen:
                break
            if isinstance(policy, TrueRates):
                allotted = policy.allocate(p[chosen], len(chosen) * mean_rollouts)
            else:
                allotted = policy.allocate([str(i) for i in chosen], known, len(chosen) * mean_rollouts)
            outcomes = rng.binomial(allotted, p[chosen])
            drawn, counts = drawn + chosen, counts + allotted
            successes += outcomes.tolist()
            sampled += sum(allotted)
            mixed = [0 < s < n for s, n in zip(successes, counts, strict=True)]
            if sum(n for n, good in zip(counts, mixed, strict=True) if good) >= budget:
                break
        for i, n, s in zip(drawn, counts, successes, strict=True):
            known.record(str(i), [1] * s + [0] * (n - s), step)
        kept = list(range(len(drawn)))
        if isinstance(policy, DynamicSampling):
            kept = DynamicSampling.keep(mixed, counts, budget)
        good = [position for position in kept if mixed[position]]
        if speed:
            learn = np.array([drawn[i] for i in good], dtype=int)
            inner = np.clip(p[learn], 1e-6, 1 - 1e-6)
            p[learn] = 1 / (1 + (1 - inner) / inner * np.exp(-speed * (1 - inner)))
        found.append(
            SimulatedStep(
                step=step,
                rollouts=sampled,
                effective_gradient_ratio=sum(counts[i] for i in good) / sum(counts[i] for i in kept),
                effective_prompt_ratio=len(good) / len(kept),
                pass_rate=float(p.mean()),
                largest_group=max(counts),
            )
        )
    return found
