"""Reward shaping that does not depend on the verdict."""

from __future__ import annotations


def overlong_penalty(tokens: int, limit: int, buffer: int, factor: float = 1.0) -> float:
    """Returns DAPO's soft overlong penalty in [-factor, 0]: 0 up to `limit - buffer` tokens, then linear.

    `buffer` 0 turns it off. Added to the reward; never used to decide which groups carry signal.
    """
    if buffer <= 0:
        return 0.0
    over = tokens - (limit - buffer)
    return -factor * min(1.0, max(0.0, over / buffer))
