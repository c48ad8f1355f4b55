"""One computation a problem, many at once, each result kept in a file, so that an interrupted stage continues."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Generic

import sandbox
from data_curation.schema import Problem
from data_curation.stages.result import Result, Workplace, parts_of

PART = 4  # problems in one call on another machine
AHEAD = 16  # problems a thread that may be begun before the first of them is done: a slow one holds up few others


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


def computed(
    compute: Callable[[Problem], Result],
    problems: Sequence[Problem],
    kept: Kept[Result],
    work: Workplace,
    what: str,
    threads: int,
) -> Iterator[tuple[Problem, Result]]:
    """Every problem with `compute` of it, in order: by threads here, or on the machines there are.

    `compute` can be pickled. A few problems for every thread are held, whatever their number.
    """

    def once(problem: Problem) -> Result:
        found = kept.get(problem)
        return kept.put(problem, compute(problem)) if found is None else found

    if work.machines is not None:
        yield from work.track(_elsewhere(compute, problems, kept, work), len(problems), what, "problem")
        return
    executor = ThreadPoolExecutor(threads, thread_name_prefix=what)
    under_way: deque[tuple[Problem, Future[Result]]] = deque()
    try:
        for problem in work.track(problems, len(problems), what, "problem"):
            under_way.append((problem, executor.submit(once, problem)))
            if len(under_way) == AHEAD * threads:
                first, future = under_way.popleft()
                yield first, future.result()
        for first, future in under_way:
            yield first, future.result()
    except BaseException:  # Ctrl-C, too: the programs that the threads wait for may run for minutes
        ending = threading.Thread(target=partial(executor.shutdown, cancel_futures=True))
        ending.start()
        while ending.is_alive():
            sandbox.close()
            ending.join(0.2)
        raise
    finally:
        executor.shutdown()


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
