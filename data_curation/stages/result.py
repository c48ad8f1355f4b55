"""What every stage gives back, and what it may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Part = TypeVar("Part")
Result = TypeVar("Result")
PART_PROBLEMS = 64


@dataclass(frozen=True)
class Dropped:
    """A problem that left: `reason` is one of a few per stage (counted), `detail` says it of this problem."""

    id: str
    reason: str
    detail: str = ""
    kept_instead: str = ""  # the id that stands for a duplicate


@dataclass
class StageResult:
    """`problems` go on in order; `figures` are the stage's own counts and rates; `rows` are per-problem records."""

    problems: list[Any]
    dropped: list[Dropped] = field(default_factory=list)
    figures: Mapping[str, int | float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


class Machines(Protocol):
    """More machines than this one; `data_curation.cluster.RayData` is one."""

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """The results in the order of `parts`; function and parts can be pickled."""
        ...


@dataclass(frozen=True)
class Workplace:
    """A stage's folder for intermediate results that survive an interruption, and how it shows progress."""

    folder: Path
    show_progress: bool = False
    sampler: Callable[..., Any] | None = None  # the policy whose pass rates are measured (`pass_rates.Sampler`)
    policy: str = ""  # its name
    machines: Machines | None = None  # None: this one

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """The results in the order of `parts`, computed here or on the machines there are."""
        return map(function, parts) if self.machines is None else self.machines.map(function, parts)

    def track(self, items: Iterable[Item], total: int, what: str, unit: str) -> Iterable[Item]:
        """`items` with a progress bar on a terminal, and without one elsewhere."""
        disable = None if self.show_progress else True
        return tqdm(items, total=total, desc=what, unit=unit, disable=disable, leave=False)


def parts_of(items: Sequence[Item], size: int = PART_PROBLEMS) -> Iterator[list[Item]]:
    """The items in lists of `size`."""
    return (list(items[start : start + size]) for start in range(0, len(items), size))


StageFunction = Callable[..., StageResult]
