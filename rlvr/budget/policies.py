"""Allocation policies: from what is known of a step's problems to the rollouts each of them gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from rlvr.budget.solver import check_budget, take_largest
from rlvr.budget.success_rates import SuccessRates
from rlvr.budget.value import (
    FloatArray,
    expected_marginal_gains,
    marginal_gains,
    rollouts_for_confidence,
)


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


class AllocationPolicy(Protocol):
    """Anything that divides a step's rollouts among its problems."""

    def allocate(self, problem_keys: Sequence[str], rates: SuccessRates, budget: int) -> list[int]:
        """Rollouts per problem, in the order of `problem_keys`; they sum to `budget`.

        A pure function of its arguments: every process of a distributed run computes the same plan by itself.
        """
        ...


class Uniform:
    """Every problem the same; what does not divide goes to the problems listed first."""

    def allocate(self, problem_keys: Sequence[str], rates: SuccessRates, budget: int) -> list[int]:
        """Rollouts per problem.

        Raises ValueError for no problems, a repeated problem, or fewer rollouts than problems.
        """
        _check_keys(problem_keys)
        check_budget(len(problem_keys), budget, 1, max(budget, 1))
        return _even(budget, len(problem_keys))


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
        _check_keys(problem_keys)
        check_budget(len(problem_keys), budget, self.low, self.high)
        known = self._estimate(problem_keys, rates)

        share = budget // len(problem_keys)  # within [low, high], because the budget is
        counts = np.full(len(problem_keys), self.low, dtype=np.int64)
        counts[known.unseen] = share
        remaining = budget - int(counts.sum())
        if not known.candidates and not known.unsolved:
            return _even(budget, len(problem_keys))

        set_aside = self._fallback_amount(known, counts, remaining)
        to_solve = min(remaining - set_aside, (self.high - self.low) * len(known.candidates))
        if to_solve:
            levels = min(self.high - self.low, to_solve)
            gains = known.gains(self.low, levels)
            if self.cost == "tokens":
                gains = gains / _relative_lengths([problem_keys[i] for i in known.candidates], rates)
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
        lengths = _expected_lengths(problem_keys, rates)
        return self.time.costs(problem_keys, lengths, rollouts) if lengths else None

    def _worth(self, known: _Window | _Beta, counts: Sequence[int]) -> float:
        """Expected value of the rollouts beyond `low` of the problems that can have one."""
        beyond = [counts[i] - self.low for i in known.candidates]
        if not any(beyond):
            return 0.0
        gains = known.gains(self.low, max(beyond)).T
        return float(sum(row[:n].sum() for row, n in zip(gains, beyond, strict=True)))

    def _estimate(self, problem_keys: Sequence[str], rates: SuccessRates) -> _Window | _Beta:
        known: _Window | _Beta = _Window() if self.estimator == "window" else _Beta()
        for position, key in enumerate(problem_keys):
            known.add(position, key, rates)
        return known

    def _fallback_amount(self, known: _Window | _Beta, counts: np.ndarray, remaining: int) -> int:
        """Rollouts kept from the solver for the never solved problems: what is beyond every candidate's need."""
        members = known.unsolved or known.solved
        if not self.fallback or not members:
            return 0
        need = np.minimum(self.high, rollouts_for_confidence(known.means(), self.confidence))
        room = int((self.high - counts[members]).sum())
        return min(max(0, remaining - int(np.floor(need).sum())), room)


@dataclass(frozen=True)
class DynamicSampling:
    """DAPO's dynamic sampling, for comparison: equal groups, and other problems in place of those without a signal.

    The trainer keeps groups that hold passes and failures and draws further problems, `max_rounds` times the step's
    budget at most, until the step is full of such groups; what then lacks is filled with groups without a signal. The
    update always sees the budget; sampling costs up to `max_rounds` times as much.
    """

    max_rounds: int = 3

    def __post_init__(self) -> None:
        if self.max_rounds < 1:
            raise ValueError(f"dynamic sampling: max_rounds={self.max_rounds}; at least one round is needed")

    def allocate(self, problem_keys: Sequence[str], rates: SuccessRates, budget: int) -> list[int]:
        """Rollouts per problem of one round: as `Uniform`."""
        return Uniform().allocate(problem_keys, rates, budget)

    @staticmethod
    def keep(mixed: Sequence[bool], counts: Sequence[int], budget: int) -> list[int]:
        """Positions of the groups that make up the step, in order: those with a signal first, `budget` rollouts in all.

        mixed, counts: for every group drawn so far, whether its verdicts differ, and its rollouts. Raises ValueError
        where no choice of whole groups gives the budget, which equal groups always do.
        """
        chosen: list[int] = []
        left = budget
        for wanted in (True, False):
            for position, (good, count) in enumerate(zip(mixed, counts, strict=True)):
                if good == wanted and count <= left:
                    chosen.append(position)
                    left -= count
        if left:
            raise ValueError(f"dynamic sampling: groups of {sorted(set(counts))} do not add up to {budget} rollouts")
        return sorted(chosen)


class _Window:
    """The step's problems sorted by their window estimate; indices are positions in the step."""

    def __init__(self) -> None:
        self.unseen: list[int] = []
        self.candidates: list[int] = []  # strictly between 0 and 1
        self.unsolved: list[int] = []
        self.solved: list[int] = []
        self._rates: list[float] = []

    def add(self, position: int, key: str, rates: SuccessRates) -> None:
        rate = rates.window(key)
        if rate is None:
            self.unseen.append(position)
        elif rate == 0.0:
            self.unsolved.append(position)
        elif rate == 1.0:
            self.solved.append(position)
        else:
            self.candidates.append(position)
            self._rates.append(rate)

    def means(self) -> FloatArray:
        return np.asarray(self._rates)

    def gains(self, low: int, levels: int) -> FloatArray:
        return marginal_gains(self._rates, low, levels)


class _Beta:
    """The step's problems with their posteriors: every problem something is known of is a candidate."""

    def __init__(self) -> None:
        self.unseen: list[int] = []
        self.candidates: list[int] = []
        self.unsolved: list[int] = []  # a part of the candidates, as is `solved`
        self.solved: list[int] = []
        self._alpha: list[float] = []
        self._beta: list[float] = []

    def add(self, position: int, key: str, rates: SuccessRates) -> None:
        posterior = rates.posterior(key)
        if posterior is None:
            self.unseen.append(position)
            return
        self.candidates.append(position)
        self._alpha.append(posterior.alpha)
        self._beta.append(posterior.beta)
        groups = rates.groups(key)
        rollouts, successes = sum(g.rollouts for g in groups), sum(g.successes for g in groups)
        if rollouts and successes == 0:
            self.unsolved.append(position)
        elif rollouts and successes == rollouts:
            self.solved.append(position)

    def means(self) -> FloatArray:
        alpha = np.asarray(self._alpha)
        return alpha / (alpha + np.asarray(self._beta))

    def gains(self, low: int, levels: int) -> FloatArray:
        return expected_marginal_gains(self._alpha, self._beta, low, levels)


def _expected_lengths(keys: Sequence[str], rates: SuccessRates) -> list[float]:
    """Mean completion length of each problem, the mean of all for those not known; empty where none is known."""
    lengths = [rates.mean_tokens(key) for key in keys]
    known = [length for length in lengths if length is not None]
    if not known:
        return []
    mean = max(1.0, sum(known) / len(known))
    return [max(1.0, mean if length is None else length) for length in lengths]


def _relative_lengths(keys: Sequence[str], rates: SuccessRates) -> FloatArray:
    """Mean completion length of each problem over the mean of all; 1 where nothing is known: [problems]."""
    lengths = np.asarray(_expected_lengths(keys, rates) or np.ones(len(keys)))
    return lengths / lengths.mean()


def _check_keys(problem_keys: Sequence[str]) -> None:
    if not problem_keys:
        raise ValueError("rollout allocation: no problems given")
    seen: set[str] = set()
    for key in problem_keys:
        if key in seen:
            raise ValueError(f"rollout allocation: problem {key!r} is listed twice in one step")
        seen.add(key)


def _even(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _spread(counts: np.ndarray, members: Iterable[int], amount: int, high: int) -> int:
    """Add `amount` rollouts to the members' counts evenly, the remainder to the first, none above `high`.

    Returns what did not fit.
    """
    open_members = [m for m in members if counts[m] < high]
    while amount and open_members:
        for member, extra in zip(open_members, _even(amount, len(open_members)), strict=True):
            added = min(extra, high - int(counts[member]))
            counts[member] += added
            amount -= added
        open_members = [m for m in open_members if counts[m] < high]
    return amount
