"""Problems that stay in their file: read one by one, so that memory does not grow with the tests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import overload

import pyarrow as pa
import pyarrow.parquet as pq

from data_curation.schema import Problem
from data_curation.sources.files import given, read_parquet
from data_curation.sources.rows import problem_from_row
from data_curation.storage import weighed

GROUPS_HELD = 4
HEAVY = frozenset({"tests", "solutions", "generator", "preamble", "checker", "interactor"})


class StoredProblems(Sequence[Problem]):
    """The problems of a parquet file written by `save_problems`, as a sequence that holds none of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        metadata = pq.read_metadata(path)
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._groups: dict[int, pa.Table] = {}  # the last ones that were asked for

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[Problem]:
        return read_parquet(self.path)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        index = index + len(self) if index < 0 else index
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._starts, index) - 1
        group = self._groups.pop(number, None)
        if group is None:
            with pq.ParquetFile(self.path) as file:
                group = file.read_row_group(number, use_threads=False)
        self._groups[number] = group
        if len(self._groups) > GROUPS_HELD:
            del self._groups[next(iter(self._groups))]
        row = group.slice(index - self._starts[number], 1).to_pylist()[0]
        return problem_from_row(self.path, index + 1, given(row))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def light(self) -> Iterator[Problem]:
        """The problems without tests, programs and checkers, which are not even read."""
        with pq.ParquetFile(self.path) as file:
            columns = [name for name in file.schema_arrow.names if name not in HEAVY]
            for batch in file.iter_batches(batch_size=256, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    yield Problem.model_validate(given(row))


def light(problems: Sequence[Problem]) -> Iterable[Problem]:
    """The problems for a look at texts and tags: tests and programs may be missing."""
    return problems.light() if isinstance(problems, StoredProblems) else problems


def batches(problems: Iterable[Problem], most: int, most_characters: int) -> Iterator[list[Problem]]:
    """Lists of up to `most` problems whose tests, programs and statements hold about `most_characters` at most."""
    return weighed(problems, characters, most, most_characters)


def characters(problem: Problem) -> int:
    """Characters of its tests, programs and statement."""
    return (
        sum(test.characters for test in problem.tests)
        + sum(len(s.code) for s in problem.solutions)
        + len(problem.statement)
    )
