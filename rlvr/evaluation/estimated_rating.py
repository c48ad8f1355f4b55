"""A rating estimated from problem ratings alone: who solves problems of rating d half of the time is rated d."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PRIOR = (1500.0, 400.0)  # mean and standard deviation
_SCALE = math.log(10) / 400
_STEP = 5.0  # of the grid the posterior is summed on, far below its width


@dataclass(frozen=True, slots=True)
class EstimatedRating:
    """Maximum a posteriori `rating` with a 95% credible interval. An estimate, never "a Codeforces rating".

    `informative` False: every problem was solved or every one failed, so the prior decides how far.
    """

    rating: float
    ci95: tuple[float, float]
    problems: int
    informative: bool
    prior: tuple[float, float] = PRIOR

    def __str__(self) -> str:
        low, high = self.ci95
        note = "" if self.informative else "; all or none solved, so the prior sets the distance"
        return f"estimated rating {self.rating:.0f} [{low:.0f}, {high:.0f}] from {self.problems} rated problems{note}"


def estimate_rating(
    ratings: ArrayLike, solve_rates: ArrayLike, *, prior: tuple[float, float] = PRIOR, level: float = 0.95
) -> EstimatedRating:
    """Rating R that maximises prior times product of P(solve)^s (1 - P(solve))^(1 - s) over problems.

    P(solve) = 1 / (1 + 10^((d - R) / 400)) for a problem of rating d, `solve_rates` s in [0, 1] is the share of a
    problem's samples that passed. A problem counts once however many samples it had: samples of one problem share its
    luck, so more of them do not narrow the interval as more problems do. The interval is the equal-tailed one of the
    posterior. ValueError for no problems, lengths that differ, or values out of range.
    """
    d = np.asarray(ratings, dtype=np.float64)
    s = np.asarray(solve_rates, dtype=np.float64)
    if d.ndim != 1 or d.size == 0 or d.shape != s.shape:
        raise ValueError(f"estimate_rating needs one solve rate for each rated problem, got {s.shape} for {d.shape}")
    if not np.isfinite(d).all() or not ((s >= 0) & (s <= 1)).all():
        raise ValueError("estimate_rating: ratings must be finite and solve rates lie in [0, 1]")
    mean, deviation = prior
    if not deviation > 0:
        raise ValueError(f"estimate_rating: the prior's standard deviation must be positive, got {deviation}")
    distinct, where = np.unique(d, return_inverse=True)
    counts, failed = np.bincount(where).astype(np.float64), np.bincount(where, weights=1 - s)

    def log_posterior(grid: NDArray[np.float64]) -> NDArray[np.float64]:
        x = (grid[:, None] - distinct) * _SCALE  # [grid, distinct problem ratings]
        return -0.5 * ((grid - mean) / deviation) ** 2 - np.logaddexp(0.0, -x) @ counts - x @ failed

    reach = 8 * deviation
    coarse = np.arange(math.floor(min(mean, d.min()) - reach), math.ceil(max(mean, d.max()) + reach) + _STEP, _STEP)
    log_density = log_posterior(coarse)
    weights = np.exp(log_density - log_density.max())
    cumulative = np.cumsum(weights) / weights.sum()
    low, high = (float(np.interp(q, cumulative, coarse)) for q in ((1 - level) / 2, (1 + level) / 2))
    peak = float(coarse[int(np.argmax(log_density))])
    fine = np.arange(peak - _STEP, peak + _STEP + 0.5)
    return EstimatedRating(
        rating=float(fine[int(np.argmax(log_posterior(fine)))]),
        ci95=(low, high),
        problems=int(d.size),
        informative=bool(0 < s.sum() < s.size),
        prior=prior,
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """How estimates of simulated solvers of known rating turn out on given problems."""

    true_rating: float
    mean_estimate: float
    rmse: float
    coverage: float  # share of 95% intervals that hold the true rating
    width: float  # mean width of the interval
    solvers: int
    problems: int


def calibrate(
    problem_ratings: Sequence[float], true_ratings: Sequence[float], *, problems: int, solvers: int = 500, seed: int = 0
) -> list[Calibration]:
    """Calibration at each true rating: `solvers` simulated solvers, each on `problems` drawn from `problem_ratings`."""
    pool = np.asarray(problem_ratings, dtype=np.float64)
    if pool.size < problems:
        raise ValueError(f"calibrate: {problems} problems wanted, {pool.size} ratings given")
    rng = np.random.default_rng(seed)
    rows = []
    for truth in true_ratings:
        estimates = []
        for _ in range(solvers):
            d = rng.choice(pool, problems, replace=False)
            estimates.append(estimate_rating(d, rng.random(problems) < 1 / (1 + 10 ** ((d - truth) / 400))))
        values = np.array([e.rating for e in estimates])
        rows.append(
            Calibration(
                true_rating=float(truth),
                mean_estimate=float(values.mean()),
                rmse=float(np.sqrt(np.mean((values - truth) ** 2))),
                coverage=float(np.mean([e.ci95[0] <= truth <= e.ci95[1] for e in estimates])),
                width=float(np.mean([e.ci95[1] - e.ci95[0] for e in estimates])),
                solvers=solvers,
                problems=problems,
            )
        )
    return rows
