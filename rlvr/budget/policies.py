"""Allocation policies: from what is known of a step's problems to the rollouts each of them gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlvr.budget.solver import check_budget
from rlvr.budget.success_rates import SuccessRates


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
        check_keys(problem_keys)
        check_budget(len(problem_keys), budget, 1, max(budget, 1))
        return even(budget, len(problem_keys))


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


def check_keys(problem_keys: Sequence[str]) -> None:
    if not problem_keys:
        raise ValueError("rollout allocation: no problems given")
    seen: set[str] = set()
    for key in problem_keys:
        if key in seen:
            raise ValueError(f"rollout allocation: problem {key!r} is listed twice in one step")
        seen.add(key)


def even(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]
