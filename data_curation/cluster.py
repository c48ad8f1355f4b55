"""Stages on more than one machine: parts of the work as rows of a Ray Data pipeline, results in order.

The stages themselves are the same code as on one machine: what they compute part by part goes through
`Workplace.map`, and this module gives that map a cluster. So the output is the same, byte for byte.
"""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
import ray.data
from ray import cloudpickle

import sandbox
from data_curation.stages.result import Part, Result
from data_curation.storage import weighed

CONNECT_S = 30.0
WINDOW_PARTS, WINDOW_BYTES = 2048, 256 << 20  # parts that are in the object store at once


class ClusterUnreachable(ValueError):
    """There is no Ray cluster at the address; the message says which was asked for."""


class RayData:
    """The Ray cluster at `address` ("auto": the one this machine belongs to; "local": one of its own, for trying out).

    A context manager. Every part is a task on one CPU; Ray runs it again elsewhere if its node dies. All nodes need
    this package and the same toolchains. ClusterUnreachable where no cluster answers.
    """

    def __init__(self, address: str = "auto") -> None:
        self._started = not ray.is_initialized()
        if self._started:
            _require_listener(address)
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
            except (ConnectionError, ValueError) as error:
                said = str(error).splitlines()[0]
                raise ClusterUnreachable(
                    f"no Ray cluster at {address!r}: {said}; `ray start --head` starts one"
                ) from None
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)

    def __enter__(self) -> RayData:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the cluster, if this object joined it."""
        if self._started:
            ray.shutdown()

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """The results in the order of `parts`."""
        shared = ray.put(cloudpickle.dumps(function))
        for rows in _windows(parts):
            data = ray.data.from_items(rows, override_num_blocks=len(rows))
            done: dict[int, bytes] = {}
            following = 0
            for row in data.map(_applied, fn_kwargs={"function": shared}, num_cpus=1).iter_rows():
                done[row["number"]] = row["body"]
                while following in done:
                    yield pickle.loads(done.pop(following))  # made by ourselves, on nodes we chose
                    following += 1


def _require_listener(address: str) -> None:
    """ClusterUnreachable if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        said = error.strerror or str(error)
        raise ClusterUnreachable(f"no Ray cluster at {address!r}: {said}; `ray start --head` starts one") from None


def _windows(parts: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
    for bodies in weighed(map(pickle.dumps, parts), len, WINDOW_PARTS, WINDOW_BYTES):
        yield [{"number": number, "body": body} for number, body in enumerate(bodies)]


_functions: dict[Any, Callable[[Any], Any]] = {}  # in a process of the cluster: the functions it has been given


def _applied(row: dict[str, Any], function: Any = None) -> dict[str, Any]:
    if not _functions:
        sandbox.configure(workers=1)  # the task holds one CPU
    if function not in _functions:
        _functions[function] = pickle.loads(ray.get(function))
    return {"number": row["number"], "body": pickle.dumps(_functions[function](pickle.loads(row["body"])))}
