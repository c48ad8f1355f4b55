"""One computation a problem, many at once, each result kept in a file, so that an interrupted stage continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic

from data_curation.schema import Problem
from data_curation.stages.result import Result, Workplace, parts_of
from data_curation.stages.threads import in_threads
from data_curation.stored import characters

PART = 4  # problems in one call on another machine
HELD_CHARACTERS = 32 << 20  # of tests, programs and statements of problems under way


@dataclass(frozen=True)
class Kept(Generic[Result]):
    """Where a result lies (None: it is not kept), and how it is read and written."""

    file: Callable[[Problem], Path | None]
    read: Callable[[Path], Result]
    save: Callable[[Result, Path], None]

    def get(self, problem: Problem) -> Result | None:
        """The kept result, if there is one."""
        file = self.file(problem)
        return self.read(file) if file is not None and file.exists() else None

    def put(self, problem: Problem, result: Result) -> Result:
        """Keeps the result and gives it back."""
        if (file := self.file(problem)) is not None:
            self.save(result, file)
        return result


NOT_KEPT: Kept[Any] = Kept(lambda problem: None, lambda file: None, lambda result, file: None)


def computed(
    compute: Callable[[Problem], Result],
    problems: Sequence[Problem],
    kept: Kept[Result],
    work: Workplace,
    what: str,
    threads: int,
) -> Iterator[tuple[Problem, Result]]:
    """Every problem with `compute` of it, in order: by threads here, or on the machines there are.

    `compute` can be pickled. A few problems for every thread are held, fewer where their tests are large.
    """

    def once(problem: Problem) -> Result:
        found = kept.get(problem)
        return kept.put(problem, compute(problem)) if found is None else found

    if work.machines is not None:
        yield from work.track(_elsewhere(compute, problems, kept, work), len(problems), what, "problem")
        return
    tracked = work.track(problems, len(problems), what, "problem")
    yield from in_threads(once, tracked, threads, weight=characters, most_weight=HELD_CHARACTERS)


def _elsewhere(
    compute: Callable[[Problem], Result], problems: Sequence[Problem], kept: Kept[Result], work: Workplace
) -> Iterator[tuple[Problem, Result]]:
    todo = (problem for problem in problems if kept.get(problem) is None)
    fresh = chain.from_iterable(work.map(partial(_each, compute), parts_of(todo, PART)))
    for problem in problems:
        found = kept.get(problem)
        yield problem, kept.put(problem, next(fresh)) if found is None else found


def _each(compute: Callable[[Problem], Result], problems: Sequence[Problem]) -> list[Result]:
    return [compute(problem) for problem in problems]
