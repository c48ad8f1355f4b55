"""Judging on a Ray cluster: one actor a node around the same pool of workers, and a node may die at any time."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sandbox.cases import TestCase
from sandbox.isolation import levels
from sandbox.judge import Judge
from sandbox.submission import Submission
from sandbox.verdicts import Judgement, Verdict

_log = logging.getLogger("sandbox")
_BATCH = 16  # programs in one call: a lost node costs at most two calls' work
_CALLS_A_NODE = 2  # so that a node never waits for the next batch
_TRIES = 3  # calls in which a batch may lose its node before it is IE
_LOOK_EVERY_S = 5.0
_SHARED_TEST_SETS = 4096


class ClusterUnusable(RuntimeError):
    """No node of the cluster can judge; the message says why."""


class _NodeJudge:
    """The actor: a judge with `workers` processes on its node."""

    def __init__(self, workers: int, min_protection: str, allow_unconfined: bool) -> None:
        self._judge = Judge(workers, min_protection, allow_unconfined)

    def protection(self) -> str:
        return self._judge.protection

    def judge(self, batch: Sequence[tuple[Submission, Any]], stop: str, keep_output: bool) -> list[Judgement]:
        """Judgements of programs whose tests lie in the object store."""
        tests = {shared: ray.get(shared) for _, shared in batch}
        submissions = [replace(submission, tests=tests[shared]) for submission, shared in batch]
        return self._judge.judge_batch(submissions, stop=stop, keep_output=keep_output)


@dataclass(eq=False)
class _Node:
    """A node's actor. `ready` resolves to its protection level once its judge has started."""

    name: str
    actor: Any
    ready: Any
    level: str | None = None


@dataclass(eq=False)
class _Batch:
    indices: list[int]
    orders: list[tuple[Submission, Any]]
    tries: int = 0


@dataclass(eq=False)
class _Run:
    """One call of `as_completed`."""

    waiting: deque[_Batch]
    flying: dict[Any, tuple[_Node, _Batch]] = field(default_factory=dict)

    def calls_on(self, node: _Node) -> int:
        return sum(each is node for each, _ in self.flying.values())


class RayJudge:
    """Judges programs on every node of the Ray cluster at `address` ("auto": the one this machine belongs to; "local":
    one of its own). Thread-safe; a context manager.

    Each node's actor reserves `workers` CPUs, by default all the node has. A batch whose node dies goes to another, at
    most twice; nodes that join are used. A program is answered once; where no node is left for `patience_s`, with IE.
    ClusterUnusable when no node can judge within `start_s`.
    """

    def __init__(
        self,
        address: str = "auto",
        workers: int | None = None,
        min_protection: str = "confined",
        allow_unconfined: bool = False,
        *,
        start_s: float = 120.0,
        patience_s: float = 120.0,
    ) -> None:
        self._workers = workers
        self._options = (min_protection, allow_unconfined)
        self._patience_s = patience_s
        self._nodes: dict[str, _Node] = {}
        self._lock = threading.RLock()
        self._looked_at = 0.0
        self._refusal = ""
        self._shared: OrderedDict[tuple[TestCase, ...], Any] = OrderedDict()
        self.nodes_lost = 0
        self.infrastructure_errors = 0
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
            except ConnectionError as error:
                raise ClusterUnusable(f"Ray cluster {address!r}: {str(error).splitlines()[0]}") from None
        try:
            self._await_first(start_s)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RayJudge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def protection(self) -> str:
        """The weakest level among the nodes."""
        found = [node.level for node in list(self._nodes.values()) if node.level is not None]
        return max(found, key=levels.LEVELS.index, default="")

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that judge."""
        return [node.name for node in list(self._nodes.values()) if node.level is not None]

    def judge(
        self,
        code: str,
        tests: Sequence[TestCase],
        *,
        stop: str = "first_failure",
        keep_output: bool = False,
        **how: Any,
    ) -> Judgement:
        """As `sandbox.Judge.judge`; `how` are the further fields of a `Submission`."""
        return self.judge_batch([Submission(code, tests, **how)], stop=stop, keep_output=keep_output)[0]

    def judge_batch(
        self,
        submissions: Iterable[Submission],
        *,
        stop: str = "first_failure",
        progress: Callable[[int, int], object] | None = None,
        keep_output: bool = False,
    ) -> list[Judgement]:
        """Judgements in the order of `submissions`."""
        submissions = list(submissions)
        found: dict[int, Judgement] = {}
        for index, judgement in self.as_completed(submissions, stop=stop, keep_output=keep_output):
            found[index] = judgement
            if progress is not None:
                progress(len(found), len(submissions))
        return [found[index] for index in range(len(submissions))]

    def as_completed(
        self, submissions: Iterable[Submission], *, stop: str = "first_failure", keep_output: bool = False
    ) -> Iterator[tuple[int, Judgement]]:
        """(index, judgement) pairs as they come, those of one batch together."""
        run = _Run(deque(self._batches(list(submissions))))
        alone_since: float | None = None
        while run.waiting or run.flying:
            self._look()
            self._send(run, stop, keep_output)
            yield from self._take(run)
            if run.flying or any(node.level is not None for node in list(self._nodes.values())):
                alone_since = None
                continue
            alone_since = alone_since or time.monotonic()
            if time.monotonic() - alone_since > self._patience_s:
                while run.waiting:
                    yield from self._failed(run.waiting.popleft(), f"no node of the cluster is left {self._refusal}")
            time.sleep(0.2)

    def close(self) -> None:
        """Ends the actors, and Ray where this judge started it."""
        with self._lock:
            nodes, self._nodes = list(self._nodes.values()), {}
            self._shared.clear()
        for node in nodes:
            ray.kill(node.actor)
        if self._started_ray:
            self._started_ray = False
            ray.shutdown()

    def _batches(self, submissions: list[Submission]) -> Iterator[_Batch]:
        numbered = enumerate(submissions)
        while part := list(itertools.islice(numbered, _BATCH)):
            orders = []
            for _, submission in part:
                if not submission.tests:
                    raise ValueError("no tests: a program cannot be judged on an empty list of tests")
                orders.append((replace(submission, tests=()), self._share(tuple(submission.tests))))
            yield _Batch([index for index, _ in part], orders)

    def _share(self, tests: tuple[TestCase, ...]) -> Any:
        """Tests go into the object store once, however many programs meet them."""
        with self._lock:
            found = self._shared.get(tests)
            if found is None:
                found = self._shared[tests] = ray.put(tests)
                if len(self._shared) > _SHARED_TEST_SETS:
                    self._shared.popitem(last=False)
            else:
                self._shared.move_to_end(tests)
            return found

    def _await_first(self, start_s: float) -> None:
        deadline = time.monotonic() + start_s
        while not self.nodes:
            self._look()
            waiting = [node.ready for node in self._nodes.values() if node.level is None]
            if waiting:
                ray.wait(waiting, timeout=1.0)
                self._meet()
            if time.monotonic() > deadline or (self._refusal and not waiting):
                why = self._refusal or "no node has the CPUs free that its judge wants (give fewer `workers`)"
                raise ClusterUnusable(f"no node of the Ray cluster can judge: {why}")

    def _look(self) -> None:
        """Starts judges on nodes that have none and greets those that have started."""
        with self._lock:
            if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = time.monotonic()
                for node in ray.nodes():
                    cpus = int(node["Resources"].get("CPU", 0))
                    if node["Alive"] and cpus and node["NodeID"] not in self._nodes:
                        self._start(node["NodeID"], min(self._workers or cpus, cpus))
            self._meet()

    def _start(self, name: str, workers: int) -> None:
        here = NodeAffinitySchedulingStrategy(node_id=name, soft=False)
        options = {"num_cpus": workers, "max_concurrency": 64, "scheduling_strategy": here, "max_restarts": 0}
        actor: Any = ray.remote(_NodeJudge).options(**options).remote(workers, *self._options)
        self._nodes[name] = _Node(name, actor, actor.protection.remote())

    def _meet(self) -> None:
        with self._lock:
            for node in list(self._nodes.values()):
                if node.level is None:
                    try:
                        node.level = str(ray.get(node.ready, timeout=0))
                    except GetTimeoutError:
                        continue
                    except RayError as error:
                        self._refusal = str(error.__cause__ or error).strip().splitlines()[-1]
                        self._drop(node, f"its judge did not start: {self._refusal}")

    def _drop(self, node: _Node, reason: str) -> None:
        with self._lock:
            if self._nodes.get(node.name) is node:
                del self._nodes[node.name]
                self.nodes_lost += node.level is not None
                _log.warning("node %s is no longer judged on: %s", node.name[:8], reason)

    def _send(self, run: _Run, stop: str, keep_output: bool) -> None:
        for node in list(self._nodes.values()):
            while run.waiting and node.level is not None and run.calls_on(node) < _CALLS_A_NODE:
                batch = run.waiting.popleft()
                run.flying[node.actor.judge.remote(batch.orders, stop, keep_output)] = (node, batch)

    def _take(self, run: _Run) -> Iterator[tuple[int, Judgement]]:
        if not run.flying:
            return
        done, _ = ray.wait(list(run.flying), timeout=1.0)
        for call in done:
            node, batch = run.flying.pop(call)
            try:
                judgements = ray.get(call)
            except RayTaskError as error:
                raise error.as_instanceof_cause() from None  # a bad submission, as a local judge would say
            except RayError as error:
                self._drop(node, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
                batch.tries += 1
                if batch.tries < _TRIES:
                    run.waiting.appendleft(batch)
                else:
                    yield from self._failed(batch, f"lost {batch.tries} nodes while it was judged")
                continue
            yield from zip(batch.indices, judgements, strict=True)

    def _failed(self, batch: _Batch, reason: str) -> Iterator[tuple[int, Judgement]]:
        self.infrastructure_errors += len(batch.indices)
        for index in batch.indices:
            yield index, Judgement(Verdict.IE, (), self.protection, reason)
