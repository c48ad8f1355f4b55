"""What is believed of a step's problems: by the window of their latest outcomes, or by a Beta posterior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlvr.budget.success_rates import SuccessRates
from rlvr.budget.value import FloatArray, expected_marginal_gains, marginal_gains


class Window:
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


class Beta:
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


def expected_lengths(keys: Sequence[str], rates: SuccessRates) -> list[float]:
    """Mean completion length of each problem, the mean of all for those not known; empty where none is known."""
    lengths = [rates.mean_tokens(key) for key in keys]
    known = [length for length in lengths if length is not None]
    if not known:
        return []
    mean = max(1.0, sum(known) / len(known))
    return [max(1.0, mean if length is None else length) for length in lengths]


def relative_lengths(keys: Sequence[str], rates: SuccessRates) -> FloatArray:
    """Mean completion length of each problem over the mean of all; 1 where nothing is known: [problems]."""
    lengths = np.asarray(expected_lengths(keys, rates) or np.ones(len(keys)))
    return lengths / lengths.mean()
