"""What is known of every problem's success rate: the one thing that flows back from verdicts to the next allocation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Group:
    """The outcomes of one problem's rollouts at one step; `passed` holds "1" or "0" for each, `tokens` their sum."""

    step: int
    passed: str
    tokens: int = 0

    @property
    def rollouts(self) -> int:
        return len(self.passed)

    @property
    def successes(self) -> int:
        return self.passed.count("1")


@dataclass(frozen=True)
class Posterior:
    """Beta(alpha, beta) over a problem's success probability."""

    alpha: float
    beta: float

    @property
    def mean(self) -> float:
        return self.alpha / (self.alpha + self.beta)


class SuccessRates:
    """Per-problem history of outcomes, each stamped with the step of the policy that made them, and two estimates.

    - `window`: the paper's sliding window. Known from `min_rollouts` outcomes on; the mean of the latest group when it
      has at least `window` outcomes, otherwise of the latest `window` outcomes, walking back over earlier groups.
    - `posterior`: a Beta posterior, which tells 0 of 8 (unknown) from 0 of 800 (hopeless). Outcomes lose half their
      weight every `half_life` steps, since the policy that made them is gone; None keeps them all in full.
    """

    def __init__(
        self,
        *,
        window: int = 16,
        min_rollouts: int = 8,
        prior: tuple[float, float] = (1.0, 1.0),
        half_life: float | None = 40.0,
    ) -> None:
        if window < 1 or min_rollouts < 1:
            raise ValueError(f"success rates: window={window}, min_rollouts={min_rollouts}; both must be at least 1")
        if not (prior[0] > 0 and prior[1] > 0):
            raise ValueError(f"success rates: prior {prior}; both numbers of a Beta prior must be above 0")
        if half_life is not None and not half_life > 0:
            raise ValueError(f"success rates: half_life={half_life} must be a positive number of steps, or None")
        self.window_size = window
        self.min_rollouts = min_rollouts
        self.prior = Posterior(float(prior[0]), float(prior[1]))
        self.half_life = half_life
        self._history: dict[str, list[Group]] = {}
        self._priors: dict[str, Posterior] = {}
        self._latest_step = 0

    def record(
        self,
        problem: str,
        rewards: Sequence[float | bool | None],
        step: int,
        tokens: Sequence[int] | None = None,
    ) -> None:
        """Add a group's outcomes: 1 passed, 0 or -1 failed, None an infrastructure failure, which says nothing.

        `tokens`: length of each completion, where allocation is to count tokens.
        Raises ValueError for any other number: the estimate needs verdicts, not shaped rewards.
        """
        passed, spent = [], 0
        for position, reward in enumerate(rewards):
            if reward is None:
                continue
            spent += tokens[position] if tokens is not None else 0
            if reward not in (-1, 0, 1):
                raise ValueError(
                    f"success rates: reward {reward} of problem {problem!r} is none of -1, 0, 1;"
                    " record the verdict, not a shaped reward"
                )
            passed.append("1" if reward == 1 else "0")
        if passed:
            self._history.setdefault(problem, []).append(Group(int(step), "".join(passed), spent))
            self._latest_step = max(self._latest_step, int(step))

    def add(self, problem: str, group: Group) -> None:
        """Add a group as it is, its `passed` of "1" and "0" only; ValueError for others."""
        if not group.passed or not set(group.passed) <= {"0", "1"}:
            raise ValueError(f"success rates: {group.passed!r} of problem {problem!r} is not of 1 and 0")
        self._history.setdefault(problem, []).append(group)
        self._latest_step = max(self._latest_step, group.step)

    def set_prior(self, problem: str, rate: float, strength: float = 2.0) -> None:
        """Give one problem its own prior: an expected rate (predicted difficulty), worth `strength` rollouts."""
        if not 0.0 <= rate <= 1.0 or not strength > 0:
            raise ValueError(
                f"success rates: prior of problem {problem!r}: rate {rate} must lie in [0, 1],"
                f" strength {strength} above 0"
            )
        # Half a rollout on either side keeps both parameters above 0 when the predicted rate is exactly 0 or 1.
        self._priors[problem] = Posterior(0.5 + rate * strength, 0.5 + (1.0 - rate) * strength)

    def rollouts(self, problem: str) -> int:
        """Outcomes recorded for the problem, over all steps."""
        return sum(group.rollouts for group in self._history.get(problem, ()))

    def groups(self, problem: str) -> tuple[Group, ...]:
        """The problem's groups, oldest first."""
        return tuple(self._history.get(problem, ()))

    @property
    def latest_step(self) -> int:
        """The highest step any outcome was recorded at; 0 at the start."""
        return self._latest_step

    def window(self, problem: str) -> float | None:
        """Sliding-window success rate in [0, 1], or None while fewer than `min_rollouts` outcomes are known."""
        groups = self._history.get(problem, [])
        if self.rollouts(problem) < self.min_rollouts:
            return None
        if groups[-1].rollouts >= self.window_size:
            return groups[-1].successes / groups[-1].rollouts
        recent = ""
        for group in reversed(groups):
            recent = group.passed + recent
            if len(recent) >= self.window_size:
                break
        recent = recent[-self.window_size :]
        return recent.count("1") / len(recent)

    def posterior(self, problem: str, now: int | None = None) -> Posterior | None:
        """Beta posterior at step `now` (default: the latest recorded), or None for a problem nothing is known of."""
        groups = self._history.get(problem, [])
        if not groups and problem not in self._priors:
            return None
        prior = self._priors.get(problem, self.prior)
        alpha, beta = prior.alpha, prior.beta
        step = self._latest_step if now is None else now
        for group in groups:
            weight = self._weight_of(group, step)
            alpha += weight * group.successes
            beta += weight * (group.rollouts - group.successes)
        return Posterior(alpha, beta)

    def weight(self, problem: str, now: int | None = None) -> float:
        """What the problem's outcomes still weigh at step `now`, in rollouts; priors not counted."""
        step = self._latest_step if now is None else now
        return sum(self._weight_of(group, step) * group.rollouts for group in self._history.get(problem, ()))

    def _weight_of(self, group: Group, step: int) -> float:
        return 1.0 if self.half_life is None else 0.5 ** (max(0, step - group.step) / self.half_life)

    def pass_rate(self, problem: str) -> float | None:
        """The window's rate, or the plain mean while that is not yet valid; None for a problem never tried."""
        rate, groups = self.window(problem), self._history.get(problem)
        if rate is None and groups:
            rate = sum(group.successes for group in groups) / sum(group.rollouts for group in groups)
        return rate

    def mean_tokens(self, problem: str) -> float | None:
        """Mean length of the problem's latest `window` or so completions, None where lengths were never recorded."""
        rollouts = spent = 0
        for group in reversed(self._history.get(problem, ())):
            if group.tokens:
                rollouts, spent = rollouts + group.rollouts, spent + group.tokens
            if rollouts >= self.window_size:
                break
        return spent / rollouts if rollouts else None

    def export(self) -> list[dict[str, Any]]:
        """One row a problem, in the order first seen: counts, estimates, length, first and last step, its groups."""
        rows = []
        for problem, groups in self._history.items():
            known = self.posterior(problem)
            rows.append(
                {
                    "problem_id": problem,
                    "groups": len(groups),
                    "rollouts": sum(group.rollouts for group in groups),
                    "successes": sum(group.successes for group in groups),
                    "window_rate": self.window(problem),
                    "posterior_mean": known.mean if known else None,
                    "mean_tokens": self.mean_tokens(problem),
                    "first_step": groups[0].step,
                    "last_step": groups[-1].step,
                    "history": [asdict(group) for group in groups],
                }
            )
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The whole history as plain JSON types; estimators' settings come from the recipe and are not part of it."""
        return {
            "format": FORMAT,
            "history": {
                problem: [[group.step, group.passed, group.tokens] for group in groups]
                for problem, groups in self._history.items()
            },
            "priors": {problem: [prior.alpha, prior.beta] for problem, prior in self._priors.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the history by a saved one. Raises ValueError, and changes nothing, when it cannot be read."""
        if state.get("format") != FORMAT:
            raise ValueError(
                f"success rates: saved state has format {state.get('format')!r}, this version reads {FORMAT}"
            )
        history: dict[str, list[Group]] = {}
        for problem, groups in state["history"].items():
            for entry in groups:
                if len(entry) not in (2, 3) or not isinstance(entry[0], int) or not set(entry[1]) <= {"0", "1"}:
                    raise ValueError(
                        f"success rates: saved history of problem {problem!r} holds {entry!r};"
                        ' an entry is [step, "0110...", tokens]'
                    )
                history.setdefault(problem, []).append(Group(*entry))
        priors = {problem: Posterior(*map(float, pair)) for problem, pair in state.get("priors", {}).items()}
        self._history = history
        self._priors = priors
        self._latest_step = max((group.step for groups in history.values() for group in groups), default=0)

    def __len__(self) -> int:
        return len(self._history)

    def __iter__(self) -> Iterator[str]:
        return iter(self._history)

    def __contains__(self, problem: object) -> bool:
        return problem in self._history
