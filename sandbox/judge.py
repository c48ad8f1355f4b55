"""Give a program and tests, get a judgement."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from sandbox import languages
from sandbox.cases import Limits, TestCase
from sandbox.execution.cache import VerdictCache
from sandbox.execution.job import Facts, RunInput
from sandbox.execution.launch import Launcher, Source
from sandbox.execution.pool import Pool
from sandbox.isolation import cgroup, groups, levels
from sandbox.submission import Checked, Execution, Submission, check_file_names, checked, require, run_limits
from sandbox.verdicts import Judgement, Verdict
from sandbox.work import Pending, Work, read_testlib

_log = logging.getLogger("sandbox")
_ASK_S = 1.0

Progress = Callable[[int, int], object]  # (done, total)


@dataclass(frozen=True, slots=True)
class Statistics:
    """How a judge stands: workers it may use and those that run a program, programs that wait for one; workers that
    have been started, and how many of them a control group holds; and since the start: workers replaced, verdicts found
    in the cache, runs repeated alone because the machine was crowded."""

    workers: int
    busy: int
    waiting: int
    replaced: int
    cache_hits: int = 0
    cache_misses: int = 0
    run_alone: int = 0
    started: int = 0
    in_groups: int = 0

    @property
    def utilisation(self) -> float:
        return self.busy / self.workers


class Judge:
    """Judges programs in worker processes. Thread-safe; a context manager; `close()` leaves no process behind.

    `workers` defaults to the CPUs this process may use, within the quota of its container. The best protection
    level the machine offers is taken; below `min_protection` ("namespaced" or "confined") it refuses to start,
    unless `allow_unconfined` accepts mere resource limits. `protection` names one level exactly. `cache` is False,
    True (in memory) or a path of a SQLite file. `silence_s`: a busy worker heard nothing of for that long is
    replaced. `testlib` is the path of testlib.h, for checkers and interactors that include it (default: the
    environment variable SANDBOX_TESTLIB). `presentation_errors` tells PE apart from WA. Each worker gets a control
    group where this process may make them, unless `control_groups` is False; the attribute of that name says where, or
    why there is none.
    """

    def __init__(
        self,
        workers: int | None = None,
        min_protection: str = "confined",
        allow_unconfined: bool = False,
        cache: bool | str | Path = True,
        *,
        protection: str | None = None,
        silence_s: float = 20.0,
        testlib: str | Path | None = None,
        presentation_errors: bool = False,
        control_groups: bool = True,
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: at least 1 is needed")
        self._workers = workers or cgroup.usable_cpus()
        self.protection = levels.choose(min_protection, allow_unconfined, protection)
        if self.protection == "limited":
            _log.warning("programs are held by resource limits only: they can read files and reach the network")
        else:
            _log.info("protection level: %s", self.protection)
        self.cache: VerdictCache | None = None
        if cache is not False:
            self.cache = VerdictCache(path=None if cache is True else cache)
        self._testlib = read_testlib(testlib or os.environ.get("SANDBOX_TESTLIB"))
        self.control_groups = groups.find() if control_groups else groups.Found(None, "turned off")
        place = self.control_groups.place
        self._pool = Pool(self._workers, self.protection, silence_s, languages.runtime_paths(), place)
        self._launcher = Launcher(self._pool, self._workers)
        self._work = Work(self._pool, self._launcher, self.cache, self._testlib, presentation_errors)
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def judge(
        self,
        code: str,
        tests: Sequence[TestCase],
        *,
        language: str = "python",
        limits: Limits | None = None,
        checker: str = "tokens",
        input_file: str = "",
        output_file: str = "",
        interactor: str = "",
        stop: str = "first_failure",
        keep_output: bool = False,
    ) -> Judgement:
        """Judgement of `code` on `tests`. ValueError for empty tests or an unknown language, checker or stop rule."""
        submission = Submission(code, tests, language, limits or Limits(), checker, input_file, output_file, interactor)
        with self._submitted([submission], stop, keep_output) as futures:
            return futures[0].result()

    async def ajudge(
        self,
        code: str,
        tests: Sequence[TestCase],
        *,
        language: str = "python",
        limits: Limits | None = None,
        checker: str = "tokens",
        input_file: str = "",
        output_file: str = "",
        interactor: str = "",
        stop: str = "first_failure",
        keep_output: bool = False,
    ) -> Judgement:
        """`judge` for asynchronous callers; cancelling it stops the run."""
        submission = Submission(code, tests, language, limits or Limits(), checker, input_file, output_file, interactor)
        with self._submitted([submission], stop, keep_output) as futures:
            # shielded: the future may be shared with other callers; leaving the block stops the run if it is not
            return await asyncio.shield(asyncio.wrap_future(futures[0]))

    def judge_batch(
        self,
        submissions: Iterable[Submission],
        *,
        stop: str = "first_failure",
        progress: Progress | None = None,
        keep_output: bool = False,
    ) -> list[Judgement]:
        """Judgements in the order of `submissions`; equal ones are judged once."""
        submissions = list(submissions)
        found: list[Judgement | None] = [None] * len(submissions)
        completed = self.as_completed(submissions, stop=stop, keep_output=keep_output)
        for done, (index, judgement) in enumerate(completed, 1):
            found[index] = judgement
            if progress is not None:
                progress(done, len(submissions))
        return [judgement for judgement in found if judgement is not None]

    def as_completed(
        self,
        submissions: Iterable[Submission],
        *,
        stop: str = "first_failure",
        keep_output: bool = False,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Judgement]]:
        """(index, judgement) pairs as they come. Leaving the loop early stops what is not done, and so does
        `abandoned`, which is asked about every second, once it says that nobody waits any more."""
        finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        with self._submitted(list(submissions), stop, keep_output) as futures:
            for index, future in enumerate(futures):
                future.add_done_callback(lambda _, index=index: finished.put(index))  # type: ignore[misc]
            left = len(futures)
            while left and not abandoned():
                with contextlib.suppress(queue.Empty):
                    index = finished.get(timeout=_ASK_S)
                    left -= 1
                    yield index, futures[index].result()

    def execute(
        self,
        code: str,
        inputs: Sequence[str | bytes],
        *,
        language: str = "python",
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        collect: str = "",
    ) -> list[Execution]:
        """What `code` does with each of `inputs` as standard input; nothing is compared.

        `files` lie in its working directory; `collect` names the file there whose content is wanted afterwards.
        """
        if "" in (files or ()):
            raise ValueError("a file has no name")
        check_file_names((*(files or ()), collect))
        laid = tuple((files or {}).items())
        spoken = languages.find(language)
        require(spoken)
        ours = run_limits(limits or Limits(), spoken)
        encoded = [i if isinstance(i, bytes) else i.encode("utf-8", "surrogateescape") for i in inputs]
        if not encoded:
            return []
        if not code.strip():
            return [Execution(Verdict.NO_CODE)] * len(encoded)
        seen: list[Execution] = []
        future: Future[list[Execution]] = Future()

        def on_facts(_: int, facts: Facts) -> int:
            seen.append(
                Execution(
                    facts.verdict,
                    facts.stdout,
                    facts.stderr,
                    facts.cpu_s,
                    facts.wall_s,
                    facts.memory_mb,
                    facts.message,
                    facts.exit_code if facts.exit_code is not None else facts.signal and -facts.signal,
                    facts.value,
                )
            )
            return 1

        def on_done(error: str | None, compile_error: str | None) -> None:
            if compile_error is not None:
                future.set_result([Execution(Verdict.CE, message=compile_error)] * len(encoded))
                return
            missing = Execution(Verdict.IE, message=error or "not run")
            future.set_result(seen + [missing] * (len(encoded) - len(seen)))

        pending: Pending = Pending(Future())
        runs = [RunInput(data, files=laid, collect=collect) for data in encoded]
        self._launcher.start(pending, Source(spoken, code), runs, ours, on_facts, on_done)
        try:
            return future.result()
        finally:
            pending.waiting = 0
            job = pending.job
            if not future.done() and job is not None:
                self._pool.cancel(job)

    def check(self, submission: Submission, stop: str = "first_failure") -> None:
        """Nothing for a submission that can be judged here; else the error that judging it would raise at once."""
        self._check(submission, stop, False)

    def close(self) -> None:
        """Ends all workers. Judgements still awaited come out as IE."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._launcher.close()
        self._pool.close()
        if self.cache is not None:
            self.cache.close()

    def abandon(self) -> None:
        """For a forked child of the process that made this judge: forgets it without touching its workers."""
        self._closed = True
        self._pool.abandon()

    def worker_pids(self) -> list[int]:
        """Process numbers of the live workers."""
        return self._pool.worker_pids()

    @property
    def workers_replaced(self) -> int:
        """Workers that died or fell silent and were replaced."""
        return self._pool.replaced

    def statistics(self) -> Statistics:
        """The judge's state at this moment."""
        hits, misses = (self.cache.hits, self.cache.misses) if self.cache is not None else (0, 0)
        pool = self._pool
        held = pool.held
        return Statistics(
            self._workers, pool.busy, pool.waiting, pool.replaced, hits, misses, pool.run_alone, len(held), sum(held)
        )

    def _check(self, submission: Submission, stop: str, keep_output: bool) -> Checked:
        if self._closed:
            raise RuntimeError("this judge is closed")
        return checked(submission, stop, keep_output, testlib=self._testlib is not None)

    def _submitted(
        self, submissions: list[Submission], stop: str, keep_output: bool
    ) -> contextlib.AbstractContextManager[list[Future[Judgement]]]:
        """Futures of the submissions; those not done when the block is left are cancelled."""
        return self._work.of([self._check(submission, stop, keep_output) for submission in submissions])
