"""Work on many items by threads that wait for the sandbox: none idles while there is something to begin."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import sandbox
from data_curation.stages.result import Item, Result

AHEAD = 16  # items a thread that may be begun before the first of them is done: a slow one holds up few others


def waiting_threads() -> int:
    """Threads that keep every worker of the sandbox busy: while one is between two programs, another's program runs."""
    return 2 * len(os.sched_getaffinity(0))


def in_threads(
    compute: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    *,
    weight: Callable[[Item], int] = lambda item: 0,
    most_weight: int = 0,
) -> Iterator[tuple[Item, Result]]:
    """Every item with `compute` of it, in order.

    Begun and not yet given back are at most 16 items a thread, and only one beyond `most_weight`. A failure, Ctrl-C or
    leaving the loop ends the programs that run.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix="curation")
    under_way: deque[tuple[Item, int, Future[Result]]] = deque()
    held = 0
    try:
        for item in items:
            held += (heavy := weight(item))
            under_way.append((item, heavy, executor.submit(compute, item)))
            while len(under_way) >= AHEAD * threads or (under_way and held > most_weight > 0):
                first, lighter, future = under_way.popleft()
                held -= lighter
                yield first, future.result()
        while under_way:
            first, _, future = under_way.popleft()
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
