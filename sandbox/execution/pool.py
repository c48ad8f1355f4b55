"""Workers kept busy by one thread: dispatch, watchdog, replacement.

Every job ends exactly once: with its facts, or with the judge's error after one retry on a fresh worker.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable

from sandbox.box import channel
from sandbox.execution.folder import Folder
from sandbox.execution.job import Facts, Job, is_suspicious, memory_to_allow, read_facts, test_message
from sandbox.execution.worker import START_S, Worker, WorkerFailed, shortfall, unpack_status
from sandbox.isolation.groups import PROCESSES, Groups, Place
from sandbox.verdicts import Verdict

_RECYCLE_AFTER = 5000  # jobs of one worker
_SET_ASIDE_S = 30.0  # after which a run set aside no longer waits until all else is done
_PERHAPS_BY_GROUP = (Verdict.RE, Verdict.TLE, Verdict.ILE)


class Pool:
    """Up to `size` workers at one protection level, started when work waits for them.

    `silence_s` is how long a busy worker may say nothing (it reports every second) before it is replaced.
    `runtimes` are the paths of language runtimes that programs may need. At `place`, if any, each worker gets a control
    group.
    """

    def __init__(
        self, size: int, level: str, silence_s: float = 20.0, runtimes: tuple[str, ...] = (), place: Place | None = None
    ) -> None:
        self.size = size
        self._runtimes = runtimes
        self.level = level
        self.replaced = 0
        self._silence_s = silence_s
        self._folder = Folder(place.folders if place is not None else ())
        self.groups = Groups(place, os.path.basename(self._folder.path)) if place is not None else None
        self._workers: list[Worker] = []
        self._waiting: deque[Job] = deque()
        self._set_aside: deque[tuple[Job, float]] = deque()  # to be run alone: (job, since when)
        self._only: Job | None = None  # the job that runs alone
        self.run_alone = 0
        self._inbox: deque[tuple[Callable[[Job], None], Job]] = deque()
        self._start_failures = 0
        self._closing = False
        self._ended = False
        self._wake_lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="sandbox-pool", daemon=True)
        self._thread.start()

    @property
    def artifacts(self) -> str:
        """Directory of compiled programs, readable in every worker."""
        return self._folder.programs

    def submit(self, job: Job) -> None:
        """Queues `job`; its callbacks come in the pool's thread."""
        self._post(self._waiting.append, job)

    def cancel(self, job: Job) -> None:
        """Ends `job` early; its `on_done` still comes."""
        self._post(self._cancel, job)

    def close(self) -> None:
        """Ends every worker; jobs not finished end with the judge's error. Returns when no process is left."""
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def worker_pids(self) -> list[int]:
        """Process numbers of the live workers."""
        return [worker.process.pid for worker in list(self._workers)]

    @property
    def busy(self) -> int:
        """Workers that run a program."""
        return sum(worker.job is not None for worker in list(self._workers))

    @property
    def held(self) -> list[bool]:
        """Of each worker that runs, whether it is in a control group."""
        return [worker.group is not None for worker in list(self._workers) if worker.ready]

    @property
    def waiting(self) -> int:
        """Programs that wait for a worker."""
        return len(self._waiting) + len(self._inbox) + len(self._set_aside)

    def abandon(self) -> None:
        """For a forked child of the caller: drops the descriptors, touches no process."""
        for worker in self._workers:
            worker.sock.close()
        self._folder.abandon()
        for fd in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)

    # in the pool's thread

    def _post(self, action: Callable[[Job], None], job: Job) -> None:
        self._inbox.append((action, job))
        self._wake()
        if self._ended:  # nobody reads the inbox any more
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        while True:
            try:
                action, job = self._inbox.popleft()
            except IndexError:
                return
            if action == self._waiting.append:
                job.on_done("the judge was closed", None)

    def _wake(self) -> None:
        with self._wake_lock:  # the number must not be closed, and given to another file, in between
            if not self._ended:
                with contextlib.suppress(BlockingIOError):  # a full pipe wakes the thread as well
                    os.write(self._wake_write, b"x")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take_in()
                self._dispatch()
                for key, _ in self._selector.select(self._pause()):
                    if key.data is None:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake_read, 65536)
                    else:
                        self._attend(key.data)
                self._watch()
        finally:
            self._end()

    def _take_in(self) -> None:
        while self._inbox:
            action, job = self._inbox.popleft()
            action(job)

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        jobs = [worker.job for worker in self._workers if worker.job is not None]
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        for job in [*jobs, *self._waiting, *(job for job, _ in self._set_aside)]:
            job.on_done("the judge was closed", None)
        self._waiting.clear()
        self._set_aside.clear()
        with self._wake_lock:
            self._ended = True
            os.close(self._wake_write)
        os.close(self._wake_read)
        self._refuse_rest()
        self._selector.close()
        if self.groups is not None:
            self.groups.close()
        self._folder.close()

    def _pause(self) -> float | None:
        if self._waiting:  # perhaps because no worker could be started: to be tried again
            return 0.5
        return 0.5 if any(worker.job or not worker.ready for worker in self._workers) else None

    def _cancel(self, job: Job) -> None:
        job.cancelled = True
        if job in self._waiting:
            self._waiting.remove(job)
            job.on_done("cancelled", None)
            return
        for entry in self._set_aside:
            if entry[0] is job:
                self._set_aside.remove(entry)
                job.on_done("cancelled", None)
                return
        for worker in self._workers:
            if worker.job is job:
                worker.send("A")
                self._push(worker)

    def _dispatch(self) -> None:
        if not self._waiting and not self._set_aside:
            return
        for worker in list(self._workers):
            if worker.ready and worker.job is None:
                self._give_next(worker)
        starting = sum(not worker.ready for worker in self._workers)
        while len(self._workers) < self.size and starting < len(self._waiting) + len(self._set_aside):
            starting += 1
            try:
                worker = Worker(self.level, self.artifacts, self._runtimes, self.groups)
            except OSError as error:
                self._start_failed(f"cannot start a worker: {error}")
                return
            self._workers.append(worker)
            self._selector.register(worker.sock, selectors.EVENT_READ, worker)
            self._push(worker)

    def _start_failed(self, reason: str) -> None:
        """After three failures in a row with no worker left, waiting jobs end: nothing would ever run them."""
        self._start_failures += 1
        if self._start_failures >= 3 and not self._workers:
            while self._waiting:
                self._waiting.popleft().on_done(reason, None)
            while self._set_aside:
                self._set_aside.popleft()[0].on_done(reason, None)
            self._start_failures = 0

    def _start_job(self, worker: Worker, job: Job) -> None:
        worker.job = job
        worker.heard = time.monotonic()
        if not job.single:
            worker.send("J", job.program.message(job.limits))
        self._send_test(worker, job)

    def _send_test(self, worker: Worker, job: Job) -> None:
        try:
            item = job.inputs[job.position]
            test = test_message(item, job.limits, job.program)
        except Exception as error:  # others wait for this thread: one job's fault must not end it
            worker.job = None
            if not job.single:
                worker.send("E")
                self._push(worker)
            job.on_done(f"the test cannot be given to a worker: {type(error).__name__}: {error}", None)
            self._wake()
            return
        if worker.group is not None:
            worker.group.limit(memory_to_allow(item, job.limits))
        if job.single:
            program = job.program.message(job.limits)
            worker.send("S", channel.LENGTH.pack(len(program)) + program, test)
        else:
            worker.send("T", test)
        self._push(worker)

    def _push(self, worker: Worker) -> None:
        try:
            left = worker.flush()
        except WorkerFailed as error:
            self._replace(worker, str(error))
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0)
        if self._selector.get_key(worker.sock).events != events:
            self._selector.modify(worker.sock, events, worker)

    def _attend(self, worker: Worker) -> None:
        if worker not in self._workers:
            return
        try:
            for kind, body in worker.receive():
                self._hear(worker, kind, body)
        except (WorkerFailed, ValueError) as error:
            self._replace(worker, str(error))
            return
        if worker in self._workers:
            self._push(worker)

    def _hear(self, worker: Worker, kind: str, body: bytes | bytearray) -> None:
        job = worker.job
        if kind == "H":
            return
        if kind == "R":
            worker.take(body)
            self._start_failures = 0
            missing = shortfall(worker)
            if missing:
                raise WorkerFailed(missing)
            return
        if job is None:
            raise WorkerFailed(f"unexpected message {kind!r} from the worker")
        if kind == "C":
            self._finish(worker, job, compile_error=bytes(body).decode("utf-8", "replace"))
        elif kind == "X":
            self._supervisor_died(worker, job, unpack_status(body))
        elif kind == "D":
            self._hear_facts(worker, job, body)
        else:
            raise WorkerFailed(f"unknown message {kind!r} from the worker")

    def _hear_facts(self, worker: Worker, job: Job, body: bytes | bytearray) -> None:
        facts = read_facts(body, job.limits)
        if job.cancelled:
            self._finish(worker, job, error="cancelled")
            return
        if worker.group is not None and facts.verdict in _PERHAPS_BY_GROUP:
            kills, refusals = worker.group.new_events()
            if kills and facts.killed:
                facts.verdict, facts.message, facts.killed = Verdict.MLE, _group_message(worker), False
            elif refusals:
                facts.verdict, facts.message = Verdict.RE, f"too many processes or threads: {PROCESSES} at most"
        if facts.killed and job.position not in job.killed_at:
            job.killed_at.add(job.position)  # perhaps the machine ran out of memory: once more
            self._send_test(worker, job)
            return
        if job.position not in job.doubted_at and is_suspicious(facts, job.limits):
            job.doubted_at.add(job.position)
            self._run_alone_later(worker, job)
            return
        step = job.on_facts(job.position, facts)
        job.position += step
        if step and job.position < len(job.inputs):
            self._send_test(worker, job)
        else:
            self._finish(worker, job)

    def _run_alone_later(self, worker: Worker, job: Job) -> None:
        """Sets the job aside until no other runs: its last run may have failed for lack of CPU."""
        if not job.single:
            worker.send("E")
            self._push(worker)
        if worker.job is job:  # else it was lost just now, and its job is run once more as it is
            worker.job = None
            self._set_aside.append((job, time.monotonic()))
            self.run_alone += 1
            self._give_next(worker)

    def _finish(self, worker: Worker, job: Job, error: str | None = None, compile_error: str | None = None) -> None:
        if not job.single:
            worker.send("E")
        worker.job = None
        worker.jobs_done += 1
        job.on_done(error, compile_error)
        if worker.jobs_done >= _RECYCLE_AFTER:
            self._discard(worker)
        else:
            self._give_next(worker)

    def _give_next(self, worker: Worker) -> None:
        running = [other.job for other in self._workers if other.job is not None]
        if self._only is not None and self._only in running:
            return
        self._only = None
        if self._set_aside and (
            not self._waiting or time.monotonic() - self._set_aside[0][1] > _SET_ASIDE_S
        ):  # no more is begun until what runs has ended
            if not running:
                self._only, _ = self._set_aside.popleft()
                self._start_job(worker, self._only)
        elif self._waiting:
            self._start_job(worker, self._waiting.popleft())

    def _supervisor_died(self, worker: Worker, job: Job, status: int) -> None:
        if job.position == 0 and os.WIFSIGNALED(status):
            # nothing had run yet: the compiler itself died, of the program's doing
            worker.job = None
            job.on_done(None, f"the compiler was killed by signal {os.WTERMSIG(status)}")
        # messages meant for the dead one may still be on their way: this worker is not used again
        raise WorkerFailed(f"the supervisor of the run died (status {status}){worker.last_words()}")

    def _watch(self) -> None:
        now = time.monotonic()
        late = [worker for worker in self._workers if now - worker.heard > self._patience_with(worker)]
        # a long comparison may have kept this thread from hearing what has been said
        said = {key.data for key, events in self._selector.select(0) if events & selectors.EVENT_READ} if late else ()
        for worker in late:
            if worker in said:
                continue
            if worker.ready:
                self._replace(worker, f"the worker said nothing for {self._silence_s:g} s")
            else:
                self._replace(worker, "the worker did not start in time")

    def _patience_with(self, worker: Worker) -> float:
        if not worker.ready:
            return START_S
        return self._silence_s if worker.job is not None else math.inf

    def _discard(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.sock)
        worker.kill()

    def _replace(self, worker: Worker, reason: str) -> None:
        if worker not in self._workers:
            return
        if not worker.ready or not worker.report:
            reason = f"{reason}{worker.last_words()}" if worker.last_words() not in reason else reason
        overrun = worker.group is not None and worker.job is not None and worker.group.new_events()[0]
        words = _group_message(worker)
        self._discard(worker)
        self.replaced += 1
        if not worker.report:
            self._start_failed(reason)
        if worker.job is not None:
            job, worker.job = worker.job, None
            if overrun and not job.cancelled and job.inputs[job.position].interactor is None:
                self._overrun(job, words)
            else:
                self._retry(job, reason)

    def _overrun(self, job: Job, words: str) -> None:
        """The program used so much memory that the worker itself was ended for it: no other had a part in that."""
        step = job.on_facts(job.position, Facts(Verdict.MLE, words))
        job.position += step
        if step and job.position < len(job.inputs):
            self._waiting.appendleft(job)
        else:
            job.on_done(None, None)

    def _retry(self, job: Job, reason: str) -> None:
        job.attempts += 1
        if job.cancelled or job.attempts > 1:
            job.on_done(reason, None)
        else:
            self._waiting.appendleft(job)


def _group_message(worker: Worker) -> str:
    allowed = worker.group.memory_bytes >> 20 if worker.group is not None else 0
    return f"used more memory than its control group allows ({allowed} MiB, with files and output)"
