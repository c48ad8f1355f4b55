"""Early warnings: what a metric must not do, said once while it lasts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from rlvr.config import AlarmSection

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alarm:
    """A bound on a metric, and what to do about it."""

    name: str
    metric: str
    bound: float | None
    above: bool
    advice: str

    def rings(self, metrics: Mapping[str, float | None]) -> bool:
        value = metrics.get(self.metric)
        if value is None or self.bound is None:
            return False
        return value > self.bound if self.above else value < self.bound


class Alarms:
    """Checks every step's metrics against the recipe's bounds."""

    def __init__(self, section: AlarmSection) -> None:
        self.alarms = (
            Alarm(
                "entropy", "entropy", section.min_entropy, False,
                "the policy is collapsing to one answer: lower the learning rate, raise epsilon_high, add problems",
            ),
            Alarm(
                "entropy_high", "entropy", section.max_entropy, True,
                "the policy is coming apart: lower the learning rate, look at grad_norm",
            ),
            Alarm(
                "truncation", "completions/clipped_ratio", section.max_truncation, True,
                "answers are cut off: raise max_completion_length, or turn on overlong shaping",
            ),
            Alarm(
                "repetition", "repetition_ratio", section.max_repetition, True,
                "answers run in circles: read some in the report, shorten the window, lower the learning rate",
            ),
            Alarm(
                "logprob_gap", "sampling/logprob_gap", section.max_logprob_gap, True,
                "what was sampled is not what is trained on: stale weights, another precision, another temperature",
            ),
        )  # fmt: skip
        self._ringing: set[str] = set()

    def check(self, step: int, metrics: Mapping[str, float | None]) -> list[str]:
        """Returns the names of the alarms that ring; each is written out when it begins."""
        ringing = [alarm for alarm in self.alarms if alarm.rings(metrics)]
        for alarm in ringing:
            if alarm.name not in self._ringing:
                logger.warning(
                    "step %d: %s is %.4g, %s %g: %s",
                    step,
                    alarm.metric,
                    metrics[alarm.metric],
                    "above" if alarm.above else "below",
                    alarm.bound,
                    alarm.advice,
                )
        self._ringing = {alarm.name for alarm in ringing}
        return [alarm.name for alarm in ringing]
