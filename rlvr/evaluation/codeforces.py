"""Codeforces' published rating algorithm: rating changes and performances of a round, exact in integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64] | int

UNRATED = 1400  # what a contestant without a rating counts as
LOWEST, HIGHEST = -500, 6000  # ratings the search looks at
_NEAR = 1e-6  # closer than this to a threshold a seed is summed afresh: the transform rounds at about 1e-9


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of a round's standings. `rating` is the one before the round, None for an unrated newcomer."""

    points: float
    penalty: float = 0.0
    rating: int | None = None

    @property
    def effective_rating(self) -> int:
        return UNRATED if self.rating is None else self.rating


@dataclass(frozen=True, slots=True)
class RatingChange:
    """`delta` as published; `performance` is the old rating that would have made it 0, None (no bound) for a winner."""

    rank: int
    seed: float
    delta: int
    performance: int | None


class Field:
    """The contestants of a round as opponents: expected places for every whole rating, by one convolution.

    Ratings outside [-500, 6000] raise ValueError.
    """

    def __init__(self, ratings: Sequence[int]) -> None:
        self.ratings = np.asarray(ratings, dtype=np.int64)
        if self.ratings.size == 0:
            raise ValueError("a round needs at least one contestant")
        if self.ratings.min() < LOWEST or self.ratings.max() > HIGHEST:
            raise ValueError(
                f"ratings must lie between {LOWEST} and {HIGHEST}, got {self.ratings.min()} to {self.ratings.max()}"
            )
        width = HIGHEST - LOWEST + 1
        histogram = np.bincount(self.ratings - LOWEST, minlength=width).astype(np.float64)
        self._distinct = np.flatnonzero(histogram)
        self._counts = histogram[self._distinct]
        # losses[d + width - 1] = probability to lose against an opponent d points below one's own rating
        losses = beats(np.arange(-(width - 1), width))
        size = 1 << (3 * width).bit_length()
        spectrum = np.fft.rfft(histogram, size) * np.fft.rfft(losses, size)
        self._seeds = 1.0 + np.fft.irfft(spectrum, size)[width - 1 : 2 * width - 1]

    def seed(self, rating: Ints, without: Ints | None = None) -> NDArray[np.float64]:
        """Expected places of `rating` among the contestants, less one of rating `without`: 1 + the sum of losses."""
        expected = self._seeds[np.asarray(rating) - LOWEST]
        return expected if without is None else expected - beats(np.asarray(rating) - np.asarray(without))

    def rating_for_place(self, place: NDArray[np.float64], without: Ints | None = None) -> NDArray[np.int64]:
        """Largest whole ratings from 1 on whose seed is at least `place`; 1 where none above it is."""
        low = np.ones(place.shape, dtype=np.int64)
        high = np.full(place.shape, HIGHEST, dtype=np.int64)
        while (low < high).any():  # the seed falls with the rating
            middle = (low + high + 1) // 2
            reached = self._reaches(middle, place, without)
            low, high = np.where(reached, middle, low), np.where(reached, high, np.maximum(middle - 1, low))
        return low

    def _reaches(self, rating: NDArray[np.int64], place: NDArray[np.float64], without: Ints | None) -> Any:
        seed = self.seed(rating, without)
        reached = seed >= place
        for i in np.flatnonzero(np.abs(seed - place) < _NEAR):
            terms = self._counts * beats(rating[i] - (self._distinct + LOWEST))
            exact = 1.0 + math.fsum(terms)
            if without is not None:
                exact -= float(beats(rating[i] - np.asarray(without)[i]))
            reached[i] = exact >= place[i] - 1e-12
        return reached


def beats(difference: Ints) -> NDArray[np.float64]:
    """Probability that the opponent beats someone rated `difference` above him: 1 / (1 + 10^(difference / 400))."""
    return 1.0 / (1.0 + np.power(10.0, np.asarray(difference, dtype=np.float64) / 400.0))


def ranks(contestants: Sequence[Contestant]) -> list[int]:
    """Places from 1 on: more points first, then less penalty; those who tie share the last place of the tie."""
    keys = [(-contestant.points, contestant.penalty) for contestant in contestants]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    places = [0] * len(keys)
    end = len(order)
    for position in range(len(order) - 1, -1, -1):
        if position + 1 < len(order) and keys[order[position]] != keys[order[position + 1]]:
            end = position + 1
        places[order[position]] = end
    return places


def rating_changes(contestants: Sequence[Contestant], *, performances: bool = False) -> list[RatingChange]:
    """Rating change of every contestant of a round, in their order, as Codeforces computes it.

    With seed(R) = 1 + the sum over the others of P(other beats R): the rating that deserves the geometric mean of seed
    and place, half the way to it, then two corrections that keep the sum of all changes just below 0 and that of the
    strongest 4 sqrt(n) at or below 0. All divisions truncate towards 0. `performances` are found only on request:
    they cost a second search. ValueError for an empty round or ratings out of range.
    """
    field = Field([contestant.effective_rating for contestant in contestants])
    rows = np.array([ranks(contestants), field.ratings]).T
    pairs, where = np.unique(rows, axis=0, return_inverse=True)  # equal place and rating, equal fate
    where = where.reshape(-1)
    places, own = pairs[:, 0], pairs[:, 1]

    def change(assumed: NDArray[np.int64]) -> NDArray[np.int64]:
        need = field.rating_for_place(np.sqrt(places * field.seed(assumed, own)), own)
        return np.trunc((need - assumed) / 2).astype(np.int64)

    raw = change(own)
    deltas = raw[where]
    size = len(deltas)
    shift = math.trunc(-int(deltas.sum()) / size) - 1
    strongest = np.argsort(-field.ratings, kind="stable")[: min(4 * math.floor(math.sqrt(size) + 0.5), size)]
    top = int((deltas[strongest] + shift).sum())
    shift += min(max(math.trunc(-top / len(strongest)), -10), 0)
    found: list[int | None] = [None] * len(pairs)
    if performances:
        low, high = np.full(len(pairs), LOWEST), np.full(len(pairs), HIGHEST)
        while (low < high).any():  # the least rating that would not have gained
            middle = (low + high) // 2
            enough = change(middle) + shift <= 0
            low, high = np.where(enough, low, np.minimum(middle + 1, high)), np.where(enough, middle, high)
        # no rating is high enough to lose points with a first place
        found = [None if place == 1 else int(value) for place, value in zip(places, low, strict=True)]
    seeds = field.seed(own, own)
    return [RatingChange(int(places[i]), float(seeds[i]), int(raw[i]) + shift, found[i]) for i in where]
