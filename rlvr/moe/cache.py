"""What expert offloading would cost: a cache of experts replayed on recorded routes, with and without prefetching."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Policy = Literal["lru", "lfu"]


@dataclass(frozen=True)
class CacheOutcome:
    """Of one simulation: lookups, those found resident, those a prefetch had brought, and copies over the link.

    A copy that was prefetched overlaps the layer before; one that was not stalls the step.
    """

    lookups: int
    hits: int
    prefetched: int
    copies: int
    tokens: int

    @property
    def hit_rate(self) -> float:
        """Share of lookups that waited for nothing, prefetched ones included."""
        return (self.hits + self.prefetched) / max(1, self.lookups)

    def stall_seconds(self, expert_bytes: int, link: float) -> float:
        """Seconds a token waits for experts over a link of `link` bytes/s, prefetched ones costing nothing: the best a
        prefetcher can do."""
        return (self.lookups - self.hits - self.prefetched) * expert_bytes / link / max(1, self.tokens)

    def traffic(self, expert_bytes: int) -> float:
        """Bytes a token moved over the link, useless prefetches included."""
        return self.copies * expert_bytes / max(1, self.tokens)


class NextLayer:
    """Predicts a layer's experts from those of the layer before, by how often they went together in `routes`
    [tokens, layers, k]."""

    def __init__(self, routes: np.ndarray, experts: int) -> None:
        _, layers, k = routes.shape
        self.scores = np.zeros((layers, experts, experts))
        for layer in range(1, layers):
            before = np.repeat(routes[:, layer - 1], k, axis=1).ravel()
            after = np.tile(routes[:, layer], (1, k)).ravel()
            np.add.at(self.scores[layer], (before, after), 1)
        totals = self.scores.sum(axis=-1, keepdims=True)
        self.scores = np.divide(self.scores, totals, out=np.zeros_like(self.scores), where=totals > 0)

    def __call__(self, layer: int, before: Sequence[int], count: int) -> list[int]:
        """Returns the `count` likeliest experts of `layer` after those of the layer before."""
        scores = self.scores[layer][list(before)].sum(axis=0)
        return [int(e) for e in np.argsort(-scores, kind="stable")[:count] if scores[e] > 0]


def simulate_cache(
    routes: np.ndarray,
    experts: int,
    capacity: int,
    *,
    policy: Policy = "lru",
    predictor: NextLayer | None = None,
) -> CacheOutcome:
    """Returns the outcome of decoding one sequence after the other with room for `capacity` experts a layer.

    `routes` [tokens, layers, k] in the order of decoding. With a predictor the k likeliest experts of the next layer
    are brought in while a layer computes. Raises ValueError where the room is less than a token needs.
    """
    if routes.ndim != 3:
        raise ValueError(f"routes of shape {list(routes.shape)}, expected [tokens, layers, experts a token]")
    tokens, layers, k = routes.shape
    if not k <= capacity:
        raise ValueError(f"room for {capacity} experts a layer, a token needs {k}")
    if routes.size and int(routes.max()) >= experts:
        raise ValueError(f"routes name expert {int(routes.max())}, the model has {experts}: they are another model's")
    resident: list[OrderedDict[int, bool]] = [OrderedDict() for _ in range(layers)]  # expert -> prefetched, unused
    used: list[Counter[int]] = [Counter() for _ in range(layers)]
    hits = prefetched = copies = 0

    def bring(layer: int, expert: int, ahead: bool, needed: frozenset[int]) -> int:
        room = resident[layer]
        if len(room) >= capacity:
            movable = [e for e in room if e not in needed]
            victim = movable[0] if policy == "lru" else min(movable, key=lambda e: used[layer][e])
            del room[victim]
        room[expert] = ahead
        return 1

    for row in routes:
        for layer in range(layers):
            needed = frozenset(int(e) for e in row[layer])
            for expert in needed:
                used[layer][expert] += 1
                if expert in resident[layer]:
                    ahead = resident[layer][expert]
                    prefetched, hits = prefetched + ahead, hits + (not ahead)
                    resident[layer][expert] = False
                    resident[layer].move_to_end(expert)
                else:
                    copies += bring(layer, expert, False, needed)
            if predictor is not None and layer + 1 < layers:
                guesses = predictor(layer + 1, sorted(needed), k)
                for expert in guesses:
                    if expert not in resident[layer + 1]:
                        copies += bring(layer + 1, expert, True, frozenset(guesses))
    return CacheOutcome(tokens * layers * k, hits, prefetched, copies, tokens)
