"""What a group of N rollouts is worth for a problem solved with probability p (Knapsack RL, arXiv 2509.25849).

A group whose rewards are all equal has no advantage and so no gradient. `p_nonzero` is the chance that this does not
happen, `info_gain` how much a gradient from this problem is expected to help, `value` their product. All functions
broadcast over numpy arrays; n counts rollouts, p is a success probability in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def p_nonzero(n: ArrayLike, p: ArrayLike) -> FloatArray:
    """Probability that n rollouts hold a success and a failure: 1 - p^n - (1-p)^n, and 0 for n < 2."""
    count = np.asarray(n, dtype=np.float64)
    prob = np.asarray(p, dtype=np.float64)
    rare = np.minimum(prob, 1.0 - prob)  # symmetric in p, and expm1 keeps the digits of a small one
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = -np.expm1(count * np.log1p(-rare)) - rare**count
    return np.where(count < 2, 0.0, mixed)[()]


def info_gain(p: ArrayLike) -> FloatArray:
    """First-order gain in success probability from one step on a success, up to a constant: p (1-p)^2.

    With p = sigmoid(z), d log p / dz = 1-p and dp/dz = p(1-p). The maximum, 4/27, lies at p = 1/3: hard, not hopeless.
    """
    prob = np.asarray(p, dtype=np.float64)
    return (prob * (1.0 - prob) ** 2)[()]


def value(n: ArrayLike, p: ArrayLike) -> FloatArray:
    """Expected worth of n rollouts: p_nonzero(n, p) * info_gain(p); 0 at p = 0 and p = 1."""
    return p_nonzero(n, p) * info_gain(p)


def expected_first_mixed(p: ArrayLike) -> FloatArray:
    """Expected rollouts until both a success and a failure were seen: 1/p + 1/(1-p) - 1; infinite at p in {0, 1}."""
    prob = np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return (1.0 / prob + 1.0 / (1.0 - prob) - 1.0)[()]


def rollouts_for_confidence(p: ArrayLike, confidence: float = 0.9) -> FloatArray:
    """Rollouts that make a mixed group this likely, by the paper's formula ln(1-c) / ln max(p, 1-p); a real number.

    It leaves out min(p, 1-p)^n and is a little low near p = 0.5 (3.3 at 0.9, where 5 are needed);
    `exact_rollouts_for_confidence` has no such error. Infinite at p in {0, 1}.
    """
    _check_confidence(confidence)
    prob = np.asarray(p, dtype=np.float64)
    rare = np.minimum(prob, 1.0 - prob)
    with np.errstate(divide="ignore"):
        return (math.log1p(-confidence) / np.log1p(-rare))[()]


def exact_rollouts_for_confidence(p: float, confidence: float = 0.9) -> int:
    """Smallest n with p_nonzero(n, p) >= confidence. Raises ValueError at p in {0, 1}, where there is none."""
    _check_confidence(confidence)
    if not 0.0 < p < 1.0:
        raise ValueError(f"success probability {p}: a mixed group is impossible; give one strictly between 0 and 1")
    n = max(2, math.ceil(float(rollouts_for_confidence(p, confidence))))
    while float(p_nonzero(n, p)) < confidence:
        n += 1
    while n > 2 and float(p_nonzero(n - 1, p)) >= confidence:
        n -= 1
    return n


def marginal_gains(success_rates: ArrayLike, low: int, levels: int) -> FloatArray:
    """What rollout low+1, low+2, ... adds to each problem's value: [levels, problems], falling down each column.

    value(n+1, p) - value(n, p) = info_gain(p) * (p^n (1-p) + (1-p)^n p) for n >= 1.
    """
    p = np.asarray(success_rates, dtype=np.float64)  # [problems]
    q = 1.0 - p
    # Products, not powers: rounding cannot break the order down a column, and every platform agrees on every bit.
    rows = (low + levels, p.size)
    success_first = np.multiply.accumulate(np.broadcast_to(p, rows), axis=0) * q  # row k: p^(k+1) (1-p)
    failure_first = np.multiply.accumulate(np.broadcast_to(q, rows), axis=0) * p
    return info_gain(p) * (success_first + failure_first)[low - 1 : low - 1 + levels]


def expected_marginal_gains(alpha: ArrayLike, beta: ArrayLike, low: int, levels: int) -> FloatArray:
    """`marginal_gains` averaged over p ~ Beta(alpha, beta): [levels, problems], falling down each column.

    Exact: the gain of rollout n+1 is E[p^(n+1) (1-p)^3] + E[p^2 (1-p)^(n+2)], both moments of the Beta distribution,
    and the moment of the next n follows from the one before by one ratio.
    """
    a = np.asarray(alpha, dtype=np.float64)  # [problems]
    b = np.asarray(beta, dtype=np.float64)
    n = low + np.arange(max(levels - 1, 0), dtype=np.float64)[:, None]  # [levels - 1, 1]
    total = a + b
    success_first = _falling(_beta_moment(a, b, low + 1, 3), (a + n + 1) / (total + n + 4))
    failure_first = _falling(_beta_moment(a, b, 2, low + 2), (b + n + 2) / (total + n + 4))
    return (success_first + failure_first)[:levels]


def effective_gradient_ratio(allocation: Sequence[int], success_rates: ArrayLike) -> float:
    """Expected share of rollouts that land in a mixed group: sum n_i p_nonzero(n_i, p_i) / sum n_i."""
    counts = np.asarray(allocation, dtype=np.float64)
    if not counts.sum() > 0:
        raise ValueError("effective gradient ratio: the allocation holds no rollouts")
    return float((counts * p_nonzero(counts, success_rates)).sum() / counts.sum())


def effective_prompt_ratio(allocation: Sequence[int], success_rates: ArrayLike) -> float:
    """Expected share of problems whose group is mixed: the mean of p_nonzero(n_i, p_i)."""
    if len(allocation) == 0:
        raise ValueError("effective prompt ratio: the allocation holds no problems")
    return float(np.mean(p_nonzero(allocation, success_rates)))


def _falling(first: FloatArray, ratios: FloatArray) -> FloatArray:
    """Rows first, first*r0, first*r0*r1, ...: [len(ratios) + 1, problems]."""
    return np.multiply.accumulate(np.concatenate([first[None, :], ratios]), axis=0)


def _beta_moment(a: FloatArray, b: FloatArray, i: int, j: int) -> FloatArray:
    """E[p^i (1-p)^j] for p ~ Beta(a, b)."""
    moment = np.ones_like(a)
    for k in range(i):
        moment = moment * (a + k) / (a + b + k)
    for k in range(j):
        moment = moment * (b + k) / (a + b + i + k)
    return moment


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence}: give a probability strictly between 0 and 1, such as 0.9")
