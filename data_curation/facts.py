"""What tables and charts need to know of a problem, so that they can be made without holding its texts and tests."""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_curation.schema import Problem
from data_curation.stages.split import HELDOUT


@dataclass(frozen=True, slots=True)
class Fact:
    """Facts of one problem; `kilobytes` are those of all tests, rounded up so that 0 means no tests."""

    id: str
    family: str
    source: str
    license: str
    difficulty: str
    rating: float | None
    date: datetime.date | None
    heldout: bool
    tests: int
    kilobytes: int
    words: int
    solutions: int
    statement: bytes  # hash

    @classmethod
    def of(cls, problem: Problem) -> Fact:
        """The facts of `problem`."""
        return cls(
            problem.id,
            problem.family,
            problem.source,
            problem.license,
            problem.difficulty,
            problem.rating,
            problem.date,
            HELDOUT in problem.tags,
            len(problem.tests),
            math.ceil(sum(test.characters for test in problem.tests) / 1000),
            len(problem.statement.split()),
            len(problem.solutions),
            statement_hash(problem.statement),
        )


@dataclass
class SftCounts:
    """What an SFT corpus shares with the problems of both sides, counted while its rows pass by."""

    train_statements: set[bytes]
    heldout_statements: set[bytes]
    heldout_families: set[str]
    rows: int = 0
    passing: int = 0
    _statements: set[bytes] = field(default_factory=set)
    _families: set[str] = field(default_factory=set)

    @classmethod
    def beside(cls, train: Sequence[Fact], heldout: Sequence[Fact]) -> SftCounts:
        """Counts beside the problems of both sides."""
        return cls({f.statement for f in train}, {f.statement for f in heldout}, {f.family for f in heldout})

    def counted(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows, each counted; they have `statement`, `family` and `passes`."""
        for row in rows:
            self.rows += 1
            self.passing += bool(row["passes"])
            self._statements.add(statement_hash(row["statement"]))
            self._families.add(row["family"])
            yield row

    def figures(self) -> dict[str, int]:
        """The section `sft` of funnel.json."""
        return {
            "rows": self.rows,
            "passing": self.passing,
            "statements_shared_with_train": len(self._statements & self.train_statements),
            "statements_shared_with_heldout": len(self._statements & self.heldout_statements),
            "families_shared_with_heldout": len(self._families & self.heldout_families),
        }


def statement_hash(statement: str) -> bytes:
    """16 bytes that stand for a statement."""
    return hashlib.sha256(statement.encode("utf-8", "surrogatepass")).digest()[:16]
