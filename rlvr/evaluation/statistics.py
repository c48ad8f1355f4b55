"""Unbiased pass@k and honest intervals over problems; pure functions of numbers, numpy only."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK_CELLS = 4_000_000  # cells of a resampling matrix held at once: 32 MB


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of `k` samples drawn without replacement from `n`, of which `c` pass, passes.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), exact to rounding for
    any size: the ratio of binomials is a product of min(c, k) factors (it is symmetric in c and k), summed as
    logarithms. ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    n, c, k = _whole("n", n), _whole("c", c), _whole("k", k)
    if n < 1:
        raise ValueError(f"pass@k needs at least one sample, got n={n}")
    if not 0 <= c <= n:
        raise ValueError(f"pass@k: c must lie between 0 and n={n}, got c={c}")
    if not 1 <= k <= n:
        raise ValueError(f"pass@k: k must lie between 1 and n={n}, got k={k}")
    if n - c < k:
        return 1.0
    few, many = min(c, k), max(c, k)
    factors = many / np.arange(n, n - few, -1, dtype=np.float64)
    return float(-np.expm1(np.log1p(-factors).sum())) + 0.0  # + 0.0: no negative zero


def mean_pass_at_k(successes: Sequence[int], n: int | Sequence[int], k: int) -> float:
    """Mean of pass@k over problems; `successes[i]` of the `n` (or `n[i]`) samples of problem i passed."""
    return float(np.mean(pass_at_k_values(successes, n, k)))


def pass_at_k_values(successes: Sequence[int], n: int | Sequence[int], k: int) -> NDArray[np.float64]:
    """pass@k of each problem, [problems]. ValueError when empty or when lengths differ."""
    if len(successes) == 0:
        raise ValueError("pass@k over no problems is undefined: give at least one count of successes")
    sizes = [n] * len(successes) if isinstance(n, int | np.integer) else list(n)
    if len(sizes) != len(successes):
        raise ValueError(f"pass@k: {len(successes)} counts of successes but {len(sizes)} counts of samples")
    pairs = list(zip(sizes, successes, strict=True))
    known = {pair: pass_at_k(pair[0], pair[1], k) for pair in set(pairs)}  # few distinct pairs, many problems
    return np.array([known[pair] for pair in pairs], dtype=np.float64)


def standard_error(values: ArrayLike) -> float:
    """Standard error of the mean (sample standard deviation / sqrt(n)); NaN for a single value."""
    data = _vector("standard_error", values)
    return float(data.std(ddof=1) / math.sqrt(data.size)) if data.size > 1 else math.nan


def bootstrap_ci(
    values: ArrayLike, *, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean of `values`, one value a problem.

    Resampling the problems, not the samples, is what generalises to other problems. The interval of a constant
    is a point: for shares near 0 or 1 use `mean_ci`. Same seed, same interval.
    """
    data = _vector("bootstrap_ci", values)
    _check_level(level)
    if resamples < 1:
        raise ValueError(f"bootstrap_ci: resamples must be at least 1, got {resamples}")
    # Drawing how often each distinct value occurs has the same law as drawing indices, and pass rates of n samples
    # take at most n + 1 values.
    distinct, counts = np.unique(data, return_counts=True)
    if distinct.size == 1:
        return float(distinct[0]), float(distinct[0])
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _CHUNK_CELLS // distinct.size)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        draws = rng.multinomial(data.size, counts / data.size, size=size)  # [resamples, distinct values]
        means[start : start + size] = draws @ distinct / data.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_ci(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (low, high) of a share: `successes` of `n`. Never a point, also at 0 of n and n of n."""
    successes, n = _whole("successes", successes), _whole("n", n)
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson_ci: need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    return _wilson(successes / n, n, level)


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound equals 0 or 1 exactly; rounding would leave 1e-17.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


def mean_ci(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Interval of a mean of shares in [0, 1]: Wilson where all are 0 or 1, or all are equal; otherwise bootstrap.

    Greedy results are 0 or 1, and so are pass rates when a problem set is solved always or never: there the
    bootstrap would claim certainty, as it would of equal shares (one problem, say). Shares of a mean vary at most as
    zeros and ones of that mean do, so Wilson's interval is then too wide rather than too narrow.
    """
    data = _vector("mean_ci", values)
    if np.isin(data, (0.0, 1.0)).all() or np.ptp(data) == 0:
        _check_level(level)
        return _wilson(float(data.mean()), data.size, level)
    return bootstrap_ci(data, level=level, seed=seed)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """`difference` = mean of b - a over the same problems, its interval and a two-sided sign-flip p-value."""

    mean_a: float
    mean_b: float
    difference: float
    ci95: tuple[float, float]
    p_value: float
    problems: int


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, seed: int = 0, resamples: int = 2000, permutations: int = 10_000
) -> PairedDifference:
    """What b gained over a on the same problems, in the same order; positive means that b is better.

    p-value: share of sign flips of the per-problem differences whose |mean| reaches the observed one. All flips are
    enumerated up to 13 problems that differ; beyond that `permutations` random ones, counting the observed one, so
    that it is never 0. ValueError when lengths differ.
    """
    first, second = _vector("paired_difference", a), _vector("paired_difference", b)
    if first.size != second.size:
        raise ValueError(f"paired_difference: {first.size} values against {second.size}; pair them by problem first")
    differences = second - first
    return PairedDifference(
        mean_a=float(first.mean()),
        mean_b=float(second.mean()),
        difference=float(differences.mean()),
        ci95=bootstrap_ci(differences, seed=seed, resamples=resamples),
        p_value=_sign_flip_p_value(differences, seed, permutations),
        problems=int(first.size),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down rule, in their order; each at least as large as before.

    Calling those below 0.05 real keeps the chance of any false call among all of them at 5%, whatever their
    dependence. ValueError for a value outside [0, 1].
    """
    bad = next((p for p in p_values if not 0 <= p <= 1), None)
    if bad is not None:
        raise ValueError(f"holm: a p-value lies in [0, 1], got {bad}")
    adjusted, running = [0.0] * len(p_values), 0.0
    for position, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _sign_flip_p_value(differences: NDArray[np.float64], seed: int, permutations: int) -> float:
    moved = np.abs(differences[differences != 0.0])
    if moved.size == 0:
        return 1.0
    observed = abs(differences.sum()) - 1e-9 * moved.sum()  # ties are decided by rounding otherwise
    if moved.size <= 13:
        bits = np.arange(2**moved.size)[:, None] >> np.arange(moved.size) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ moved) >= observed))
    rng = np.random.default_rng(seed)
    reached, rows = 0, max(1, _CHUNK_CELLS // moved.size)
    for start in range(0, permutations, rows):
        size = min(rows, permutations - start)
        signs = rng.integers(0, 2, size=(size, moved.size), dtype=np.int8) * 2.0 - 1.0
        reached += int(np.count_nonzero(np.abs(signs @ moved) >= observed))
    return (reached + 1) / (permutations + 1)


_NAMED_LEVELS = {
    name: rank
    for rank, names in enumerate(
        (("trivial", "beginner", "introductory"), ("easy",), ("medium", "interview", "medium_hard"), ("hard",),
         ("competition", "very_hard", "expert"))
    )
    for name in names
}  # fmt: skip


def difficulty_key(label: str) -> tuple[Any, ...]:
    """Sort key from easy to hard: names (easy, medium, hard, ...), then numbers by value, then the rest by name."""
    name = label.strip().lower().replace(" ", "_").replace("-", "_")
    if name in _NAMED_LEVELS:
        return (0, _NAMED_LEVELS[name], name)
    parts = [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in re.findall(r"\d+|\D+", name)]
    return (2,) if not name else (1, parts)


def by_difficulty(labels: Iterable[str], values: Iterable[Any]) -> dict[str, list[Any]]:
    """Values grouped by their difficulty label, labels from easy to hard. ValueError when lengths differ."""
    groups: dict[str, list[Any]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(label, []).append(value)
    return {label: groups[label] for label in sorted(groups, key=difficulty_key)}


def _whole(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def _vector(function: str, values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"{function} needs a non-empty list of numbers, one a problem, got shape {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"{function}: value {int(np.flatnonzero(~np.isfinite(data))[0])} is not a finite number")
    return data


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"confidence level must lie between 0 and 1 (0.95 is usual), got {level}")
