"""Near-duplicate candidates: 5-word shingles, MinHash signatures, banded lookup, exact Jaccard at the end.

With 32 bands of 4 rows a pair of Jaccard 0.5 is found with probability 0.87, of 0.6 with 0.99, of 0.7 with 0.9998.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SHINGLE_WORDS = 5
BANDS, ROWS = 32, 4
_TOKEN = re.compile(r"\w+|[^\w\s]")

Shingles = npt.NDArray[np.uint64]


def shingles(text: str) -> Shingles:
    """Sorted distinct hashes of the text's 5-token windows (words and signs, case folded); shorter texts give one."""
    tokens = _TOKEN.findall(text.casefold())
    if not tokens:
        return np.empty(0, dtype=np.uint64)
    hashes = np.array([zlib.crc32(token.encode()) for token in tokens], dtype=np.uint64)
    width = min(SHINGLE_WORDS, len(hashes))
    windows = np.lib.stride_tricks.sliding_window_view(hashes, width)
    mixed = np.zeros(len(windows), dtype=np.uint64)
    for column in range(width):  # a polynomial in an odd multiplier modulo 2^64, so that order matters
        mixed = (mixed + windows[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def jaccard(a: Shingles, b: Shingles) -> float:
    """Shared share of two shingle sets, in [0, 1]; 0 if both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


def signatures(sets: Sequence[Shingles], seed: int = 1) -> npt.NDArray[np.uint64]:
    """MinHash signatures [texts, BANDS * ROWS]; a row of an empty set is all ones."""
    random = np.random.default_rng(seed)
    multiplier = random.integers(1, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64) | np.uint64(1)
    offset = random.integers(0, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64)
    result = np.full((len(sets), BANDS * ROWS), np.iinfo(np.uint64).max, dtype=np.uint64)
    for index, hashes in enumerate(sets):
        if len(hashes):
            # multiply-shift hashing: the high half of an odd multiple modulo 2^64
            result[index] = ((hashes[None, :] * multiplier + offset) >> np.uint64(32)).min(axis=1)
    return result


def candidate_pairs(sets: Sequence[Shingles], threshold: float) -> list[tuple[int, int, float]]:
    """(i, j, Jaccard) with i < j of the pairs found with Jaccard >= `threshold`, in order of i and j."""
    signature = signatures(sets).reshape(len(sets), BANDS, ROWS)
    checked: set[tuple[int, int]] = set()
    found: list[tuple[int, int, float]] = []
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for index in range(len(sets)):
            if len(sets[index]):
                buckets[signature[index, band].tobytes()].append(index)
        for members in buckets.values():
            for position, j in enumerate(members):
                for i in members[:position]:
                    if (i, j) in checked:
                        continue
                    checked.add((i, j))
                    # sizes alone bound the Jaccard index, and cost nothing
                    small, large = sorted((len(sets[i]), len(sets[j])))
                    if small >= threshold * large and (similarity := jaccard(sets[i], sets[j])) >= threshold:
                        found.append((i, j, similarity))
    return sorted(found)
