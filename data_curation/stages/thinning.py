"""Test sets too large to be run in every rollout, made smaller by a fixed rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from data_curation.schema import Test

RULE = "samples, then the largest of each subtask, then an even spread over input sizes"


def thinned(tests: Sequence[Test], maximum_tests: int, maximum_bytes: int) -> list[Test]:
    """At most `maximum_tests` tests of together at most `maximum_bytes`, in their old order.

    First come the samples, then the largest test of each subtask that fits, then tests evenly spread over the order
    of input sizes, largest first. The first test is kept whatever its size, so that a problem never loses all.
    """
    sizes = [test.characters for test in tests]
    if len(tests) <= maximum_tests and sum(sizes) <= maximum_bytes:
        return list(tests)
    chosen: set[int] = set()
    held = 0
    for index in _order(tests, sizes, maximum_tests):
        if len(chosen) == maximum_tests:
            break
        if index not in chosen and (not chosen or held + sizes[index] <= maximum_bytes):
            chosen.add(index)
            held += sizes[index]
    return [test for index, test in enumerate(tests) if index in chosen]


def _order(tests: Sequence[Test], sizes: Sequence[int], maximum_tests: int) -> list[int]:
    by_size = sorted(range(len(tests)), key=lambda index: (-sizes[index], index))
    groups: dict[str, list[int]] = defaultdict(list)
    for index in by_size:
        groups[tests[index].group].append(index)
    largest = [members[0] for _, members in sorted(groups.items())]
    steps = max(1, min(maximum_tests, len(by_size)))
    spread = [by_size[round(step * (len(by_size) - 1) / max(1, steps - 1))] for step in range(steps)]
    samples = [index for index, test in enumerate(tests) if test.sample]
    return [*samples, *largest, *spread, *by_size[::-1]]
