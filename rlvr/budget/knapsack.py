"""Knapsack RL's allocation of a step's rollouts, by number, tokens or seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from rlvr.budget.estimates import Beta, Window, expected_lengths, relative_lengths
from rlvr.budget.policies import check_keys, even
from rlvr.budget.solver import check_budget, take_largest
from rlvr.budget.success_rates import SuccessRates
from rlvr.budget.value import FloatArray, rollouts_for_confidence


class RolloutSeconds(Protocol):
    """What rollouts cost in time: `once` for a problem's prompt, `each` for every rollout, of one sampling replica."""

    @property
    def once(self) -> FloatArray: ...

    @property
    def each(self) -> FloatArray: ...

    @property
    def batch(self) -> int: ...

    def total(self, counts: Sequence[int]) -> float:
        """Seconds of an allocation."""
        ...


class TimeModel(Protocol):
    """Anything that knows how long sampling takes; it must not read a clock, or a resumed run would be another run."""

    @property
    def replicas(self) -> int: ...

    def costs(self, problem_keys: Sequence[str], lengths: Sequence[float], rollouts: int) -> RolloutSeconds:
        """Costs by problem of a step of `rollouts` rollouts whose completions have `lengths` expected tokens."""
        ...


@dataclass(frozen=True)
class Knapsack:
    """The allocation with the largest expected gradient value (Knapsack RL), exact in its sum whatever the mix.

    Every problem gets at least `low` and at most `high` rollouts. A problem nothing is known of gets the uniform share,
    so a first epoch is uniform. The rest depends on the estimator:

    - "window" (as in the paper): the sliding-window rate is taken at its word. Problems at rate 0 or 1 stay at
      `low`, the others share the budget by `solve_allocation`'s rule.
    - "beta": the value is averaged over the Beta posterior, for every problem seen; 0 of 8 is then not hopeless but
      uncertain.

    `fallback` keeps a budget that the estimated problems cannot use from being poured on them: what is left when each
    has `low` plus the rollouts that make a mixed group `confidence` likely goes evenly to the problems never solved, or
    if there are none to the always solved ones. It lies outside the objective: it buys first successes with some
    effective gradient.

    `cost` "tokens" counts what a rollout costs: gains are weighed by the step's mean length over the problem's own mean
    length, so the budget buys the largest value a token. "time" weighs them by the seconds that `time` says a rollout
    of the problem takes. The sum of rollouts stays the budget.

    Three choices differ from the released code, where they are defects: unseen problems do not
    receive the fallback on top of their share, with no problem to fall back on the solver gets the whole budget, and
    the solver compares against the value of `low` rollouts, not against 0.
    """

    estimator: Literal["window", "beta"] = "window"
    low: int = 2
    high: int = 128
    confidence: float = 0.9
    fallback: bool = True
    cost: Literal["rollouts", "tokens", "time"] = "rollouts"
    time: TimeModel | None = None

    def __post_init__(self) -> None:
        if self.cost not in ("rollouts", "tokens", "time"):
            raise ValueError(f"knapsack: cost {self.cost!r} is none of 'rollouts', 'tokens' and 'time'")
        if self.cost == "time" and self.time is None:
            raise ValueError("knapsack: cost 'time' needs a model of the time that sampling takes")
        if self.estimator not in ("window", "beta"):
            raise ValueError(f"knapsack: estimator {self.estimator!r} is neither 'window' nor 'beta'")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"knapsack: confidence {self.confidence}: give a probability strictly between 0 and 1")
        if self.low < 1 or self.high < self.low:
            raise ValueError(f"knapsack: low={self.low}, high={self.high}; 1 <= low <= high is needed")

    def allocate(self, problem_keys: Sequence[str], rates: SuccessRates, budget: int) -> list[int]:
        """Rollouts per problem, each in [low, high], summing to `budget`.

        Raises ValueError for no problems, a repeated problem, or a budget outside [low, high] * problems.
        """
        check_keys(problem_keys)
        check_budget(len(problem_keys), budget, self.low, self.high)
        known = self._estimate(problem_keys, rates)

        share = budget // len(problem_keys)  # within [low, high], because the budget is
        counts = np.full(len(problem_keys), self.low, dtype=np.int64)
        counts[known.unseen] = share
        remaining = budget - int(counts.sum())
        if not known.candidates and not known.unsolved:
            return even(budget, len(problem_keys))

        set_aside = self._fallback_amount(known, counts, remaining)
        to_solve = min(remaining - set_aside, (self.high - self.low) * len(known.candidates))
        if to_solve:
            levels = min(self.high - self.low, to_solve)
            gains = known.gains(self.low, levels)
            if self.cost == "tokens":
                gains = gains / relative_lengths([problem_keys[i] for i in known.candidates], rates)
            seconds = self._seconds(problem_keys, rates, budget)
            if seconds is not None:
                gains = gains / (seconds.each / seconds.each.mean())[known.candidates]
            counts[known.candidates] += take_largest(gains, to_solve)

        # Also reached when caps bind, or nothing has a value: the sum stays exact and the caps hold.
        left = budget - int(counts.sum())
        targets = (
            known.unsolved or known.solved,
            known.candidates,
            known.unsolved,
            known.unseen,
            known.solved,
        )
        for members in targets:
            left = _spread(counts, members, left, self.high)
        return [int(n) for n in counts]

    def beside_count(self, problem_keys: Sequence[str], rates: SuccessRates, counts: Sequence[int]) -> dict[str, float]:
        """An allocation beside the one by number of rollouts; empty where that is the cost.

        moved_by_cost: share of the rollouts that the other gives to other problems. With cost "time" also planned_s and
        planned_s_by_count, seconds all replicas take to sample either; planned_batch, sequences at once on a replica;
        and value_kept, what the rollouts beyond `low` are expected to be worth over the same of the allocation by
        number (1 where nothing is known yet).
        """
        if self.cost == "rollouts":
            return {}
        total = sum(counts)
        plain = replace(self, cost="rollouts").allocate(problem_keys, rates, total)
        moved = sum(abs(ours - theirs) for ours, theirs in zip(counts, plain, strict=True)) / (2 * total)
        found = {"moved_by_cost": moved}
        seconds = self._seconds(problem_keys, rates, total)
        if seconds is not None:
            assert self.time is not None
            found["planned_s"] = seconds.total(counts) / self.time.replicas
            found["planned_s_by_count"] = seconds.total(plain) / self.time.replicas
            found["planned_batch"] = float(seconds.batch)
            known = self._estimate(problem_keys, rates)
            ours, theirs = (self._worth(known, allocated) for allocated in (counts, plain))
            found["value_kept"] = ours / theirs if theirs else 1.0
        return found

    def _seconds(self, problem_keys: Sequence[str], rates: SuccessRates, rollouts: int) -> RolloutSeconds | None:
        """What rollouts cost, None where time is not the cost or no length is known yet."""
        if self.cost != "time" or self.time is None:
            return None
        lengths = expected_lengths(problem_keys, rates)
        return self.time.costs(problem_keys, lengths, rollouts) if lengths else None

    def _worth(self, known: Window | Beta, counts: Sequence[int]) -> float:
        """Expected value of the rollouts beyond `low` of the problems that can have one."""
        beyond = [counts[i] - self.low for i in known.candidates]
        if not any(beyond):
            return 0.0
        gains = known.gains(self.low, max(beyond)).T
        return float(sum(row[:n].sum() for row, n in zip(gains, beyond, strict=True)))

    def _estimate(self, problem_keys: Sequence[str], rates: SuccessRates) -> Window | Beta:
        known: Window | Beta = Window() if self.estimator == "window" else Beta()
        for position, key in enumerate(problem_keys):
            known.add(position, key, rates)
        return known

    def _fallback_amount(self, known: Window | Beta, counts: np.ndarray, remaining: int) -> int:
        """Rollouts kept from the solver for the never solved problems: what is beyond every candidate's need."""
        members = known.unsolved or known.solved
        if not self.fallback or not members:
            return 0
        need = np.minimum(self.high, rollouts_for_confidence(known.means(), self.confidence))
        room = int((self.high - counts[members]).sum())
        return min(max(0, remaining - int(np.floor(need).sum())), room)


def _spread(counts: np.ndarray, members: Iterable[int], amount: int, high: int) -> int:
    """Add `amount` rollouts to the members' counts evenly, the remainder to the first, none above `high`.

    Returns what did not fit.
    """
    open_members = [m for m in members if counts[m] < high]
    while amount and open_members:
        for member, extra in zip(open_members, even(amount, len(open_members)), strict=True):
            added = min(extra, high - int(counts[member]))
            counts[member] += added
            amount -= added
        open_members = [m for m in open_members if counts[m] < high]
    return amount
