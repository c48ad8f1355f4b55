"""Which problems a step trains on: a pure function of seed, step, history and the recorded phases."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr.budget import SuccessRates
from rlvr.config import PhaseSection, PlateauSection, RecipeError, RetireSection
from rlvr.curriculum.progress import improvement, on_plateau, pass_rate_curve, retired
from rlvr.curriculum.ranking import hardest


class ProblemSchedule:
    """Chooses the problems of every step, phase by phase.

    Without phases all problems are visited in seeded random epochs. A phase with `problems` focuses on that many of
    the hardest of the phase before (nested subsets, DRIVE section 3.2), ranked when the phase starts by the pass
    rates known then. Every step holds distinct problems: the last, incomplete batch of an epoch is left out, and a
    subset smaller than a batch is taken whole, so that its rollouts share the step's budget.

    A phase lasts its `steps`; with `plateau` it ends earlier where its pass rate no longer rises. With `retire` solved
    problems are passed over while they are solved. A step is never smaller for it: where too few others are left, the
    retired ones of the lowest posterior mean fill it.

    Steps are counted from 0 here, and the history stamps what step `s` tried with `s + 1`.
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
        plateau: PlateauSection | None = None,
        retire: RetireSection | None = None,
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
        self.plateau = plateau
        self.retire = retire
        self.subsets: list[list[str]] = []  # one for each phase begun so far
        self.starts: list[int] = []  # and the step it began at

    def phase_at(self, step: int) -> tuple[int, int]:
        """Returns (phase, step within it) of a step not before the first begun; the last phase goes on for ever."""
        phase = max(number for number, start in enumerate(self.starts) if start <= step)
        return phase, step - self.starts[phase]

    def problems(self, step: int, rates: SuccessRates) -> list[str]:
        """Returns the distinct problem keys of a step, beginning the next phase where the one under way is over.

        Steps are to be asked for in order: whether a phase ends is decided by the history as it is at that step.
        """
        if not self.starts:
            self._begin(0, 0, rates)
        while len(self.starts) < len(self.phases) and self._over(step, rates):
            self._begin(len(self.starts), step, rates)
        phase, position = self.phase_at(step)
        subset, solved = self.subsets[phase], self.retired(step, rates)
        if len(subset) == len(self.keys) or not self.keep_easy:
            return self._batch(subset, self.problems_per_step, phase, position, solved)
        easy = min(round(self.problems_per_step * self.keep_easy), len(self.keys) - len(subset))
        hard = self._batch(subset, self.problems_per_step - easy, phase, position, solved)
        others = sorted(set(self.keys) - set(subset))
        chosen = np.random.default_rng([self.seed, phase, position, 1]).choice(len(others), easy, replace=False)
        return hard + [others[i] for i in chosen]

    def step_sizes(self) -> list[int]:
        """Returns for each phase the most problems a step of it has; filters by pass rate can leave fewer."""
        sizes, subset = [], len(self.keys)
        for count in [phase.problems for phase in self.phases] or [None]:
            subset, easy = min(subset, count or subset), 0
            if subset < len(self.keys):
                easy = min(round(self.problems_per_step * self.keep_easy), len(self.keys) - subset)
            sizes.append(min(subset, self.problems_per_step - easy) + easy)
        return sizes

    def finished(self, step: int, rates: SuccessRates) -> bool:
        """Whether the last phase is over before `step`, so that the run ends; False where there are no phases."""
        return bool(self.phases) and len(self.starts) == len(self.phases) and self._over(step, rates)

    def retired(self, step: int, rates: SuccessRates) -> dict[str, float]:
        """Returns problem -> posterior mean of the phase's problems that a step passes over."""
        if self.retire is None:
            return {}
        return retired(rates, self.subsets[self.phase_at(step)[0]], self.retire, step + 1)

    def improvement(self, step: int, rates: SuccessRates) -> float | None:
        """Returns the rise of the phase's pass rate that the plateau rule looks at, None while it cannot."""
        return improvement(self._curve(step, rates), self.plateau.window) if self.plateau is not None else None

    def refill(self, step: int, round: int, used: Collection[str], size: int, rates: SuccessRates) -> list[str]:
        """Returns `size` further problems of the phase for a refill of the step, none where too few are left."""
        phase, position = self.phase_at(step)
        left = sorted(set(self.subsets[phase]) - set(used) - set(self.retired(step, rates)))
        if len(left) < size:
            return []
        chosen = np.random.default_rng([self.seed, phase, position, 1 + round]).choice(len(left), size, replace=False)
        return [left[i] for i in chosen]

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold: subsets and first steps of the phases begun."""
        return {"subsets": [list(subset) for subset in self.subsets], "starts": list(self.starts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        unknown = {key for subset in state["subsets"] for key in subset} - set(self.keys)
        if unknown:
            raise RecipeError(
                f"the checkpoint's curriculum names {len(unknown)} problem(s) that the data no longer holds,"
                f" for example {min(unknown)!r}; resume with the data the run was started with"
            )
        self.subsets = [list(subset) for subset in state["subsets"]]
        if "starts" in state:
            self.starts = list(state["starts"])
        else:  # a checkpoint from before phases could end early
            planned = [0, *itertools.accumulate(phase.steps for phase in self.phases)]
            self.starts = planned[: len(self.subsets)]

    def _over(self, step: int, rates: SuccessRates) -> bool:
        """Whether the phase begun last does not reach to `step`."""
        phase = self.phases[len(self.starts) - 1]
        if step >= self.starts[-1] + phase.steps:
            return True
        return self.plateau is not None and on_plateau(self._curve(step, rates), self.plateau)

    def _curve(self, step: int, rates: SuccessRates) -> list[float]:
        """Pass rate of the phase's problems at its steps before `step`."""
        return pass_rate_curve(rates, self.subsets[-1], self.starts[-1] + 1, step)

    def _begin(self, phase: int, step: int, rates: SuccessRates) -> None:
        count = self.phases[phase].problems if self.phases else None
        parent = self.subsets[phase - 1] if phase else self.keys
        subset = list(parent)
        if count is not None or self.min_rate > 0.0 or self.max_rate < 1.0:
            known = {key: rates.pass_rate(key) for key in parent}
            subset = hardest(parent, known, count, min_rate=self.min_rate, max_rate=self.max_rate)
        if not subset:
            raise RecipeError(
                f"phase {phase + 1}: no problem has a pass rate in [{self.min_rate}, {self.max_rate}];"
                " widen curriculum.min_pass_rate/max_pass_rate"
            )
        self.subsets.append(subset)
        self.starts.append(step)

    def _batch(
        self, subset: Sequence[str], size: int, phase: int, position: int, solved: Mapping[str, float]
    ) -> list[str]:
        size = min(size, len(subset))
        if size == 0:
            return []
        per_epoch = len(subset) // size
        epoch, batch = divmod(position, per_epoch)
        if self.shuffle:
            order = np.random.default_rng([self.seed, phase, epoch]).permutation(len(subset))
        else:
            order = np.arange(len(subset))
        place = batch * size
        due = [subset[i] for i in order[place : place + size]]
        if not solved.keys() & set(due):
            return due
        # the place of a retired problem goes to the one that would come after the batch, once round
        queue = [*due, *(subset[i] for i in order[place + size :]), *(subset[i] for i in order[:place])]
        chosen = [key for key in queue if key not in solved][:size]
        unsure = sorted((key for key in queue if key in solved), key=lambda key: solved[key])
        return chosen + unsure[: size - len(chosen)]
