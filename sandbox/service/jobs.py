"""Batches under way: a bounded queue, and names by which a batch sent twice is run once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from sandbox.judge import Judge
from sandbox.service.metrics import Metrics
from sandbox.submission import Submission
from sandbox.verdicts import Judgement, Verdict

_log = logging.getLogger("sandbox.service")
_REMEMBERED_JOBS = 512
_REMEMBERED_S = 600.0
_HEARTBEAT_S = 5.0
_ABANDONED_S = 30.0  # a batch nobody listens to for that long is given up
_THREADS = 256


class QueueFull(Exception):
    """More work than the service accepts at once; `retry_after_s` is when to ask again."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the queue is full; try again in {retry_after_s} s")


class BatchTooLarge(ValueError):
    """A batch that would not fit even into an empty queue."""


class JobConflict(ValueError):
    """A job's name used for another batch."""


class Job:
    """A batch under way. Answers are kept in the order they came, for everyone who asks."""

    def __init__(self, name: str, digest: str, size: int) -> None:
        self.name = name
        self.digest = digest
        self.size = size
        self.answers: list[tuple[int, Judgement]] = []
        self.finished = False
        self.given_up = False
        self.listeners = 0
        self.accepted_at = self.silent_since = time.monotonic()
        self.ended_at = 0.0
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Gives up what nobody has listened to for a while. In the event loop: no listener comes in between."""
        if not self.listeners and time.monotonic() - self.silent_since > _ABANDONED_S:
            self.given_up = True

    def news(self) -> None:
        """Wakes whoever waits for this job."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[tuple[int, Judgement] | None]:
        """All answers from the first on, as they come; None now and then while there is nothing to tell."""
        self.listeners += 1
        try:
            told = 0
            while True:
                changed = self._changed
                while told < len(self.answers):
                    yield self.answers[told]
                    told += 1
                if self.finished:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), _HEARTBEAT_S)
                except TimeoutError:
                    yield None
        finally:
            self.listeners -= 1
            self.silent_since = time.monotonic()


class Jobs:
    """Runs batches on `judge`. At most `capacity` submissions are accepted and not yet answered. Used from one event
    loop; the judge's iterator runs in a thread of its own for each batch."""

    def __init__(self, judge: Judge, metrics: Metrics, capacity: int = 4096) -> None:
        self.judge = judge
        self.capacity = capacity
        self.open_submissions = 0
        self._metrics = metrics
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="service-batch")
        self._tasks: set[asyncio.Future[None]] = set()

    def known(self, name: str, digest: str) -> Job | None:
        """The job of that name, running or lately ended. JobConflict when it is another batch."""
        self._forget()
        job = self._jobs.get(name)
        if job is not None and job.digest != digest:
            raise JobConflict(f"job {name!r} is another batch: give every batch a name of its own")
        return None if job is None or job.given_up else job

    def start(self, name: str, digest: str, submissions: Sequence[Submission], stop: str, keep_output: bool) -> Job:
        """A new job for `submissions`. QueueFull, or BatchTooLarge when it could never fit."""
        self.reserve(len(submissions))
        job = self._jobs[name] = Job(name, digest, len(submissions))
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._threads, self._run, loop, job, submissions, stop, keep_output)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(job, done))
        return job

    def give_up(self, name: str) -> None:
        """Stops the job of that name, if it is running."""
        job = self._jobs.get(name)
        if job is not None and not job.finished:
            job.given_up = True

    def reserve(self, count: int) -> None:
        """Takes `count` places of the queue; `release` gives them back."""
        if count > self.capacity:
            raise BatchTooLarge(f"a batch may hold at most {self.capacity} submissions, this one has {count}")
        if self.open_submissions + count > self.capacity:
            self._metrics.refused.inc()
            raise QueueFull(self._metrics.seconds_for(self.open_submissions + count - self.capacity))
        self.open_submissions += count

    def release(self, count: int) -> None:
        self.open_submissions -= count

    def close(self) -> None:
        for job in self._jobs.values():
            job.given_up = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    # in a thread of the batch

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        job: Job,
        submissions: Sequence[Submission],
        stop: str,
        keep_output: bool,
    ) -> None:
        def abandoned() -> bool:
            loop.call_soon_threadsafe(job.look)
            return job.given_up

        judging = self.judge.as_completed(submissions, stop=stop, keep_output=keep_output, abandoned=abandoned)
        for index, judgement in judging:
            self._metrics.judged(judgement, time.monotonic() - job.accepted_at)
            loop.call_soon_threadsafe(self._arrived, job, index, judgement)

    # in the event loop

    def _arrived(self, job: Job, index: int, judgement: Judgement) -> None:
        job.answers.append((index, judgement))
        self.release(1)
        job.news()

    def _ended(self, job: Job, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        reason = "the service is shutting down"
        if not task.cancelled() and (error := task.exception()) is not None:
            reason = f"the judge failed: {type(error).__name__}: {error}"
            _log.error("job %s: %s", job.name, reason, exc_info=error)
        answered = {index for index, _ in job.answers}
        for index in range(job.size):
            if index not in answered:
                self._arrived(job, index, Judgement(Verdict.IE, (), self.judge.protection, reason))
        job.finished = True
        job.ended_at = time.monotonic()
        job.news()

    def _forget(self) -> None:
        now = time.monotonic()
        for name, job in list(self._jobs.items()):
            old = job.finished and (now - job.ended_at > _REMEMBERED_S or len(self._jobs) > _REMEMBERED_JOBS)
            if old and not job.listeners:
                del self._jobs[name]
