"""Balancing experts without an auxiliary loss: a bias on the selection scores follows the load (arXiv 2408.15664).

The update is one primal-dual step on the problem of sending every token to K experts at equal load (arXiv 2512.03915):
the bias is the price of an expert's capacity, and it enters the choice only, never the weights, so it has no gradient.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Rule = Literal["sign", "proportional", "inverse", "inverse_sqrt"]
RULES: tuple[Rule, ...] = ("sign", "proportional", "inverse", "inverse_sqrt")


def bias_step(counts: np.ndarray, rule: Rule, rate: float, step: int) -> np.ndarray:
    """Returns the change of the bias [layers, experts] for the counts of one update, the `step`-th from 1 on.

    With the relative error e = (L - c) / L of every expert, L the mean count: sign gives rate * sign(e); proportional
    rate * e; inverse rate / step * e; inverse_sqrt rate / sqrt(step) * sign(e). A layer without load gets no change.
    """
    counts = np.asarray(counts, dtype=float)
    mean = counts.mean(axis=-1, keepdims=True)
    error = np.divide(mean - counts, mean, out=np.zeros_like(counts), where=mean > 0)
    if rule == "sign":
        return rate * np.sign(error)
    if rule == "proportional":
        return rate * error
    if rule == "inverse":
        return rate / step * error
    if rule == "inverse_sqrt":
        return rate / np.sqrt(step) * np.sign(error)
    raise ValueError(f"unknown rule {rule!r}; one of {', '.join(RULES)}")


def recentred(bias: np.ndarray) -> np.ndarray:
    """Returns the bias with zero mean a layer: the same choices, and no drift under the sign rule."""
    return bias - bias.mean(axis=-1, keepdims=True)


def chosen(scores: np.ndarray, bias: np.ndarray, k: int) -> np.ndarray:
    """Returns ids [tokens, k] of the greatest scores + bias."""
    return np.argpartition(-(scores + bias), k - 1, axis=-1)[:, :k]


def simulate_balancing(
    scores: np.ndarray, k: int, rule: Rule, rate: float, steps: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns (final bias [experts], counts of every step) of the controller alone.

    `scores` [tokens, experts] is one fixed batch, or [batches, tokens, experts] fresh ones used in turn.
    """
    batches = scores[None] if scores.ndim == 2 else scores
    bias, history = np.zeros(batches.shape[-1]), []
    for step in range(1, steps + 1):
        ids = chosen(batches[(step - 1) % len(batches)], bias, k)
        counts = np.bincount(ids.ravel(), minlength=len(bias))
        history.append(counts)
        bias = recentred(bias + bias_step(counts, rule, rate, step))
    return bias, history
