"""What every stage gives back, and what it may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from data_curation.schema import Problem

Item = TypeVar("Item")
Part = TypeVar("Part")
Result = TypeVar("Result")
Options = TypeVar("Options")
PART_PROBLEMS, PART_CHARACTERS = 64, 4 << 20
SCRATCH = "scratch"  # in a stage's folder: removed when the stage is done


@dataclass(frozen=True)
class Dropped:
    """A problem that left: `reason` is one of a few per stage (counted), `detail` says it of this problem."""

    id: str
    reason: str
    detail: str = ""
    kept_instead: str = ""  # the id that stands for a duplicate


@dataclass
class Notes:
    """What a stage says of its work besides the problems that go on; complete when the last of them has come.

    `figures` are the stage's own counts and rates; `rows` are per-problem records.
    """

    dropped: list[Dropped] = field(default_factory=list)
    figures: dict[str, int | float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class StageResult(Notes):
    """The notes, and the problems that go on, in order."""

    problems: list[Problem] = field(default_factory=list)


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


def parts_of(items: Iterable[Item], size: int = PART_PROBLEMS) -> Iterator[list[Item]]:
    """The items in lists of `size`."""
    source = iter(items)
    while part := list(islice(source, size)):
        yield part


class Stage(Generic[Options]):
    """A stage, from the generator that does its work: problems in, problems out, and its notes.

    `stream` holds few problems at a time if the sequence it reads does; calling the stage gives all in a list.
    """

    def __init__(self, stream: Callable[[Sequence[Problem], Options, Workplace, Notes], Iterator[Problem]]) -> None:
        self.stream = stream
        self.module = stream.__module__
        self.__doc__ = stream.__doc__

    def __call__(self, problems: Sequence[Problem], options: Options, work: Workplace) -> StageResult:
        notes = Notes()
        kept = list(self.stream(problems, options, work, notes))
        return StageResult(notes.dropped, notes.figures, notes.rows, kept)
