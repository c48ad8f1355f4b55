"""Which problems a step trains on: a pure function of seed, step and the recorded phase subsets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr.config import PhaseSection, RecipeError
from rlvr.curriculum.ranking import hardest


class ProblemSchedule:
    """Chooses the problems of every step, phase by phase.

    Without phases all problems are visited in seeded random epochs. A phase with `problems` focuses on that many of
    the hardest of the phase before (nested subsets, DRIVE section 3.2), ranked when the phase starts by the pass
    rates known then. Every step holds distinct problems: the last, incomplete batch of an epoch is left out, and a
    subset smaller than a batch is taken whole, so that its rollouts share the step's budget.
    """

    def __init__(
        self,
        keys: Sequence[str],
        problems_per_step: int,
        phases: Sequence[PhaseSection],
        *,
        seed: int = 0,
        keep_easy: float = 0.0,
        min_rate: float = 0.0,
        max_rate: float = 1.0,
        shuffle: bool = True,
    ) -> None:
        if not keys:
            raise RecipeError("no problems to train on")
        if len(set(keys)) != len(keys):
            raise RecipeError("problem ids must be distinct")
        self.keys = list(keys)
        self.problems_per_step = problems_per_step
        self.phases = list(phases)
        self.seed = seed
        self.keep_easy = keep_easy
        self.min_rate = min_rate
        self.max_rate = max_rate
        self.shuffle = shuffle
        self.subsets: list[list[str]] = []  # one for each phase begun so far

    def phase_at(self, step: int) -> tuple[int, int]:
        """Returns (phase, step within it) of a 0-based step; the last phase goes on for ever."""
        start = 0
        for number, phase in enumerate(self.phases):
            if step < start + phase.steps or number == len(self.phases) - 1:
                return number, step - start
            start += phase.steps
        return 0, step

    def problems(self, step: int, pass_rates: Mapping[str, float | None]) -> list[str]:
        """Returns the distinct problem keys of a step; `pass_rates` are read only when a phase begins."""
        phase, position = self.phase_at(step)
        while len(self.subsets) <= phase:
            self._begin(len(self.subsets), pass_rates)
        subset = self.subsets[phase]
        if len(subset) == len(self.keys) or not self.keep_easy:
            return self._batch(subset, self.problems_per_step, phase, position)
        easy = min(round(self.problems_per_step * self.keep_easy), len(self.keys) - len(subset))
        hard = self._batch(subset, self.problems_per_step - easy, phase, position)
        others = sorted(set(self.keys) - set(subset))
        chosen = np.random.default_rng([self.seed, phase, position, 1]).choice(len(others), easy, replace=False)
        return hard + [others[i] for i in chosen]

    def refill(self, step: int, round: int, used: Collection[str], size: int) -> list[str]:
        """Returns `size` further problems of the phase for a refill of the step, none where too few are left."""
        phase, position = self.phase_at(step)
        left = sorted(set(self.subsets[phase]) - set(used))
        if len(left) < size:
            return []
        chosen = np.random.default_rng([self.seed, phase, position, 1 + round]).choice(len(left), size, replace=False)
        return [left[i] for i in chosen]

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold: the subsets of the phases begun."""
        return {"subsets": [list(subset) for subset in self.subsets]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        unknown = {key for subset in state["subsets"] for key in subset} - set(self.keys)
        if unknown:
            raise RecipeError(
                f"the checkpoint's curriculum names {len(unknown)} problem(s) that the data no longer holds,"
                f" for example {min(unknown)!r}; resume with the data the run was started with"
            )
        self.subsets = [list(subset) for subset in state["subsets"]]

    def _begin(self, phase: int, pass_rates: Mapping[str, float | None]) -> None:
        count = self.phases[phase].problems if self.phases else None
        parent = self.subsets[phase - 1] if phase else self.keys
        if count is None and self.min_rate == 0.0 and self.max_rate == 1.0:
            self.subsets.append(list(parent))
            return
        subset = hardest(parent, pass_rates, count, min_rate=self.min_rate, max_rate=self.max_rate)
        if not subset:
            raise RecipeError(
                f"phase {phase + 1}: no problem has a pass rate in [{self.min_rate}, {self.max_rate}];"
                " widen curriculum.min_pass_rate/max_pass_rate"
            )
        self.subsets.append(subset)

    def _batch(self, subset: Sequence[str], size: int, phase: int, position: int) -> list[str]:
        size = min(size, len(subset))
        if size == 0:
            return []
        per_epoch = len(subset) // size
        epoch, batch = divmod(position, per_epoch)
        if self.shuffle:
            order = np.random.default_rng([self.seed, phase, epoch]).permutation(len(subset))
        else:
            order = np.arange(len(subset))
        return [subset[i] for i in order[batch * size : (batch + 1) * size]]
