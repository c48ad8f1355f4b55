"""What samples a step's rollouts: one protocol for every engine the trainer can use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

Finished = Callable[[int, list[int]], None]


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens of each rollout, the end token included, and their log-probabilities where the engine gives them.

    routes: from engines that return them, experts [prompt and completion tokens - 1, layers, k] of each rollout.
    """

    tokens: list[list[int]]
    logps: list[list[float]] | None
    routes: list[np.ndarray] | None = None


class EngineFailure(RuntimeError):
    """An engine is gone, refuses, or answers nonsense; the message names it and the reason."""


class PolicyEngine(Protocol):
    """Samples with the policy's present weights.

    corrects: the log-probabilities are another program's, so TRL's importance-sampling corrections apply. url: where
    the engine is another process, its address; `url`/health says whether it is alive.
    """

    name: str
    corrects: bool
    url: str | None

    def sync(self, version: int) -> bool:
        """Gives the engine the policy's weights where it holds a copy of its own; every process calls it.

        `version` names them. Returns whether anything was handed over.
        """
        ...

    def score(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """Log-probabilities [rows, positions - 1] of tokens [rows, positions] at temperature 1; None where the engine
        holds no copy of the weights, or has no way to say."""
        ...

    def sample(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        """One rollout a prompt, in the order of `prompt_ids`.

        `order`: rows by expected length, longest first, for engines that queue. `finished(row, tokens)` hears of a
        rollout that has ended while others go on, from any thread.
        """
        ...


def longest_first(expected: Sequence[float | None]) -> list[int]:
    """Rows by expected tokens, longest first and unknown ones before all, since they may be the longest; stable."""
    lengths = [float("inf") if length is None else length for length in expected]
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])
