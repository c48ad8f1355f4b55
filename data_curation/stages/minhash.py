"""Near-duplicate candidates: 5-word shingles, MinHash signatures, banded lookup, exact Jaccard at the end.

With 32 bands of 4 rows a pair of Jaccard 0.5 is found with probability 0.87, of 0.6 with 0.99, of 0.7 with 0.9998.
Signatures are made for many texts at once in numpy: on the corpus of `benchmarks/dedup_scale.py` that costs a fraction
of a library's signature a text (`--compare` measures it), and the banded lookup is a sort.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

SHINGLE_WORDS = 5
BANDS, ROWS = 32, 4
CHUNK_TEXTS = 512
# In a bucket larger than this, texts are compared with this many neighbours in the order of their signatures only.
# Thousands of texts in one bucket are one template filled in many ways.
LARGE_BUCKET, NEIGHBOURS = 3000, 64
_PAIRS_AT_ONCE = 1 << 18
_TOKEN = re.compile(r"\w+|[^\w\s]")

Hashes = npt.NDArray[np.uint32]


class _TokenHashes(dict[str, int]):
    """token -> 32-bit hash; contest statements share most of their words."""

    def __missing__(self, token: str) -> int:
        if len(self) > 1_000_000:
            self.clear()
        value = self[token] = zlib.crc32(token.encode("utf-8", "surrogatepass"))
        return value


_HASHES = _TokenHashes()


@dataclass(frozen=True)
class Shingled:
    """Shingles of many texts in one array: `values[offsets[i] : offsets[i + 1]]` are those of text i, repeats kept."""

    values: Hashes
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, index: int) -> Hashes:
        """Sorted distinct shingles of one text."""
        return np.unique(self.values[self.offsets[index] : self.offsets[index + 1]])


def tokens(text: str) -> list[str]:
    """Words and signs of a text, case folded."""
    return _TOKEN.findall(text.casefold())


def shingled(texts: Iterable[str], words: int = SHINGLE_WORDS) -> Shingled:
    """Hashes of the texts' windows of `words` tokens; a text of fewer tokens is one window, an empty text has none."""
    source = iter(texts)
    values: list[Hashes] = []
    counts: list[npt.NDArray[np.int64]] = []
    while chunk := list(islice(source, CHUNK_TEXTS)):
        found = [tokens(text) for text in chunk]
        # short texts are filled up with empty tokens, so that every text with a token has one full window
        padded = [row + [""] * (words - len(row)) if 0 < len(row) < words else row for row in found]
        lengths = np.array([len(row) for row in padded], dtype=np.int64)
        hashes = map(_HASHES.__getitem__, chain.from_iterable(padded))
        flat = np.fromiter(hashes, dtype=np.uint32, count=int(lengths.sum()))
        windows = np.maximum(lengths - words + 1, 0)
        starts = np.repeat(np.cumsum(lengths) - lengths - (np.cumsum(windows) - windows), windows)
        starts += np.arange(len(starts))
        values.append(_mixed(flat, starts, words))
        counts.append(windows)
    if not counts:
        return Shingled(np.empty(0, np.uint32), np.zeros(1, np.int64))
    return Shingled(np.concatenate(values), np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))]))


def prepared(texts: Sequence[str]) -> tuple[Shingled, Hashes]:
    """Shingles and signatures of some texts: what can be made of each text alone."""
    found = shingled(texts)
    return found, signatures(found)


def joined(parts: Iterable[tuple[Shingled, Hashes]]) -> tuple[Shingled, Hashes]:
    """Shingles and signatures of parts of a text collection as those of the whole."""
    found = list(parts)
    if not found:
        return prepared([])
    counts = np.concatenate([np.diff(texts.offsets) for texts, _ in found])
    values = np.concatenate([texts.values for texts, _ in found])
    whole = Shingled(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))
    return whole, np.concatenate([signature for _, signature in found])


def _mixed(flat: Hashes, starts: npt.NDArray[np.int64], words: int) -> Hashes:
    mixed = np.zeros(len(starts), dtype=np.uint64)
    for column in range(words):  # a polynomial in an odd multiplier modulo 2^64, so that order matters
        mixed = (mixed + flat[starts + column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def shingles(text: str) -> Hashes:
    """Sorted distinct shingles of one text."""
    return shingled([text]).of(0)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared share of two sets of shingles, in [0, 1]; 0 if both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


def signatures(texts: Shingled, seed: int = 1) -> Hashes:
    """MinHash signatures [texts, BANDS * ROWS]; a row without shingles is all ones."""
    random = np.random.default_rng(seed)
    size = BANDS * ROWS
    multipliers = random.integers(0, 1 << 32, size=size, dtype=np.uint32) | np.uint32(1)
    masks = random.integers(0, 1 << 32, size=size, dtype=np.uint32)
    result = np.full((len(texts), size), np.iinfo(np.uint32).max, dtype=np.uint32)
    for start in range(0, len(texts), CHUNK_TEXTS):
        end = min(start + CHUNK_TEXTS, len(texts))
        rows = start + np.flatnonzero(np.diff(texts.offsets[start : end + 1]))
        if not len(rows):
            continue
        first = texts.offsets[start]
        values = texts.values[first : texts.offsets[end]]
        begins = texts.offsets[rows] - first
        for column in range(size):
            # a bijection of 32-bit numbers that are themselves hashes; the smallest image is the sample
            result[rows, column] = np.minimum.reduceat((values ^ masks[column]) * multipliers[column], begins)
    return result


def candidate_pairs(texts: Shingled, threshold: float, signature: Hashes | None = None) -> list[tuple[int, int, float]]:
    """(i, j, Jaccard) with i < j of the pairs found with Jaccard >= `threshold`, in order of i and j."""
    signature = signatures(texts) if signature is None else signature
    # agreement of signatures estimates the Jaccard index; four standard errors below the threshold is out of question
    least = threshold - 4 * math.sqrt(threshold * (1 - threshold) / signature.shape[1])
    likely = [_agreeing(signature, codes, least) for codes in _bucket_pairs(signature, _nonempty(texts))]
    codes = np.unique(np.concatenate(likely)) if likely else np.empty(0, np.int64)
    distinct: dict[int, Hashes] = {}
    found = []
    for code in codes.tolist():
        i, j = divmod(code, len(texts))
        for index in (i, j):
            if index not in distinct:
                distinct[index] = texts.of(index)
        a, b = distinct[i], distinct[j]
        # sizes alone bound the Jaccard index, and cost nothing
        small, large = sorted((len(a), len(b)))
        if small >= threshold * large and (similarity := jaccard(a, b)) >= threshold:
            found.append((i, j, similarity))
    return found


def _nonempty(texts: Shingled) -> npt.NDArray[np.int64]:
    return np.flatnonzero(np.diff(texts.offsets))


def _bucket_pairs(signature: Hashes, rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Codes `i * texts + j` of pairs i < j that share a band, in batches; a pair may come once a band."""
    count = len(signature)
    for band in range(BANDS):
        _, group, sizes = np.unique(_band_keys(signature[rows, band * ROWS :]), return_inverse=True, return_counts=True)
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(sizes)
        batch: list[npt.NDArray[np.int64]] = []
        held = 0
        for bucket in np.flatnonzero(sizes > 1):
            members = rows[order[ends[bucket] - sizes[bucket] : ends[bucket]]]
            for codes in _pairs_within(members, signature, count):
                batch.append(codes)
                held += len(codes)
                if held >= _PAIRS_AT_ONCE:
                    yield np.unique(np.concatenate(batch))
                    batch, held = [], 0
        if batch:
            yield np.unique(np.concatenate(batch))


def _band_keys(columns: Hashes) -> npt.NDArray[np.uint64]:
    keys = np.zeros(len(columns), dtype=np.uint64)
    for column in range(ROWS):
        keys = (keys + columns[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _pairs_within(members: npt.NDArray[np.int64], signature: Hashes, count: int) -> Iterator[npt.NDArray[np.int64]]:
    reach = len(members) - 1
    if len(members) > LARGE_BUCKET:
        members = members[np.lexsort(signature[members].T[::-1])]
        reach = NEIGHBOURS
    for distance in range(1, reach + 1):
        a, b = members[:-distance], members[distance:]
        yield np.minimum(a, b) * count + np.maximum(a, b)


def _agreeing(signature: Hashes, codes: npt.NDArray[np.int64], least: float) -> npt.NDArray[np.int64]:
    kept = []
    for start in range(0, len(codes), 8192):
        part = codes[start : start + 8192]
        i, j = np.divmod(part, len(signature))
        kept.append(part[(signature[i] == signature[j]).mean(axis=1) >= least])
    return np.concatenate(kept) if kept else codes
