"""What one allocation of rollouts to problems came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rlvr.rollouts.records import RolloutRecord


@dataclass
class Attempt:
    """One allocation of rollouts to problems, sampled and graded; lists run over all processes' rollouts."""

    output: dict[str, Any]  # TRL's tensors, of this process's rows
    keys: Sequence[str]
    counts: Sequence[int]
    groups: Sequence[int]  # of every rollout
    advantages: torch.Tensor  # [rollouts]
    mixed: Sequence[bool]  # of every rollout: the rewards of its group differ
    outcomes: Sequence[Sequence[float | None]]  # of every problem
    lengths: Sequence[Sequence[int]]
    records: list[RolloutRecord]
    dropped: set[int] = field(default_factory=set)  # groups a refill took the place of

    @property
    def effective(self) -> list[bool]:
        """For every problem, whether its verdicts differ: accuracy decides, not the shaped reward."""
        return [len({outcome for outcome in group if outcome is not None}) == 2 for group in self.outcomes]

    @property
    def signal(self) -> int:
        """Rollouts in groups whose verdicts differ."""
        return sum(count for count, good in zip(self.counts, self.effective, strict=True) if good)
