"""Balancing rules on drawn scores: steps to balance, what is left, and the distance from the optimum.

    python benchmarks/moe_balancing.py

T = 4096 tokens a batch, E = 64 experts, K = 6, fresh sigmoid scores with an offset an expert: the controller alone, no
model. Then one fixed batch (T = 256, E = 16, K = 4) against scipy's optimum.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import identity, kron, vstack

from rlvr.moe.balancing import Rule, bias_step, chosen, recentred, simulate_balancing
from rlvr.moe.statistics import max_violation

RULES: tuple[tuple[Rule, float, int], ...] = (
    ("sign", 1e-3, 153),
    ("sign", 1e-2, 31),
    ("proportional", 1e-2, 20),
    ("inverse", 1.0, 15),
    ("inverse_sqrt", 1e-2, 72),
)


def fresh_batches(rule: Rule, rate: float, steps: int, last: int) -> tuple[int, float, float]:
    """(first step with MaxVio below 0.2, mean MaxVio of the last batches, MaxVio of their sum)."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=64) * 0.7
    bias, first, total, batch = np.zeros(64), 0, np.zeros((1, 64)), []
    for step in range(1, steps + 1):
        scores = 1 / (1 + np.exp(-(rng.normal(size=(4096, 64)) + offsets)))
        counts = np.bincount(chosen(scores, bias, 6).ravel(), minlength=64)[None]
        violation = float(max_violation(counts)[0])
        first = first or (step if violation < 0.2 else 0)
        if step > steps - last:
            total += counts
            batch.append(violation)
        bias = recentred(bias + bias_step(counts, rule, rate, step)[0])
    return first, float(np.mean(batch)), float(max_violation(total)[0])


def optimum(scores: np.ndarray, k: int) -> float:
    """Greatest sum of scores at equal load, by linear programming."""
    tokens, experts = scores.shape
    rows = [kron(identity(tokens), np.ones((1, experts))), kron(np.ones((1, tokens)), identity(experts))]
    bounds = np.concatenate([np.full(tokens, k), np.full(experts, k * tokens / experts)])
    return float(-linprog(-scores.ravel(), A_eq=vstack(rows).tocsr(), b_eq=bounds, bounds=(0, 1), method="highs").fun)


def main() -> None:
    print("rule          rate   steps to 0.2 (reference)  batch  window, last 100 of 300 steps")
    for rule, rate, reference in RULES:
        first, batch, window = fresh_batches(rule, rate, 300, 100)
        print(f"{rule:13s} {rate:<6g} {first:4d} ({reference:d}){'':14s} {batch:.3f}  {window:.3f}")
    rng = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-(rng.normal(size=(256, 16)) + rng.normal(size=16) * 0.7)))
    best = optimum(scores, 4)
    print("one fixed batch, 4000 steps: value over the optimum, MaxVio")
    for rule, rate, _ in RULES:
        bias, _ = simulate_balancing(scores, 4, rule, rate, 4000)
        ids = chosen(scores, bias, 4)
        counts = np.bincount(ids.ravel(), minlength=16)[None]
        ratio = np.take_along_axis(scores, ids, 1).sum() / best
        print(f"{rule:13s} {rate:<6g} {ratio:.4f}  {max_violation(counts)[0]:.3f}")


if __name__ == "__main__":
    main()
