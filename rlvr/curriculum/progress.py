"""When a phase has given what it can, and which problems need no more rollouts: pure functions of the history."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from rlvr.budget import SuccessRates
from rlvr.config import PlateauSection, RetireSection


def pass_rate_curve(rates: SuccessRates, problems: Collection[str], first: int, last: int) -> list[float]:
    """Mean pass rate over `problems` at every step from `first` to `last`, steps that tried none of them left out.

    Every problem tried at a step weighs the same, however many rollouts it got: an allocation that moves rollouts to
    hard problems does not look like a policy that grew worse.
    """
    found: dict[int, list[float]] = {}
    for problem in problems:
        for group in rates.groups(problem):
            if first <= group.step <= last:
                found.setdefault(group.step, []).append(group.successes / group.rollouts)
    return [statistics.fmean(found[step]) for step in sorted(found)]


def improvement(curve: Sequence[float], window: int) -> float | None:
    """Mean of the latest `window` values minus that of the `window` before them; None where there are not as many."""
    if len(curve) < 2 * window:
        return None
    return statistics.fmean(curve[-window:]) - statistics.fmean(curve[-2 * window : -window])


def on_plateau(curve: Sequence[float], section: PlateauSection) -> bool:
    """Whether the pass rate has risen by less than `section.delta` from one window of steps to the next."""
    risen = improvement(curve, section.window)
    return risen is not None and risen < section.delta


def retired(rates: SuccessRates, problems: Collection[str], section: RetireSection, now: int) -> dict[str, float]:
    """Problem -> posterior mean at step `now`, for those that are solved for the time being.

    Solved: the mean is at least `section.above`, on outcomes that still weigh `section.min_rollouts`. Outcomes fade by
    `budget.half_life`, so a retired problem comes back by itself and is looked at again.
    """
    found = {}
    for problem in problems:
        posterior = rates.posterior(problem, now)
        if posterior is None or rates.weight(problem, now) < section.min_rollouts:
            continue
        if posterior.mean >= section.above:
            found[problem] = posterior.mean
    return found
