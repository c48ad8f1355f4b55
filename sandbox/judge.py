"""The door: give a program and tests, get a judgement."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import logging
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import checkers, languages
from sandbox.cases import Limits, TestCase
from sandbox.checkers import user
from sandbox.execution.cache import VerdictCache, key_of
from sandbox.execution.job import Facts, Interactor, Job, Program, RunInput, RunLimits
from sandbox.execution.pool import Pool
from sandbox.grading import Form, Grading, Stop
from sandbox.isolation import levels
from sandbox.languages import CompileError, ToolchainMissing
from sandbox.verdicts import Judgement, Verdict

_log = logging.getLogger("sandbox")

Progress = Callable[[int, int], object]  # (done, total)


_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Submission:
    """A program to be judged on tests.

    `input_file` and `output_file` name the files the program reads and writes where a problem does not use the
    standard streams. `interactor` is the problem's side of a conversation, written like a checker of its own
    ("python:...", "testlib:...", "kattis:..."); it decides instead of `checker`.
    """

    code: str
    tests: Sequence[TestCase]
    language: str = "python"
    limits: Limits = field(default_factory=Limits)
    checker: str = "tokens"
    input_file: str = ""
    output_file: str = ""
    interactor: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a program did with one input. Verdict AC means that it ended within its limits with exit code 0."""

    verdict: Verdict
    stdout: bytes = b""
    stderr: bytes = b""  # the last 8 KiB
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mb: float = 0.0
    message: str = ""
    exit_code: int | None = None  # minus the signal's number where one ended it; None when the judge stopped it
    collected: bytes = b""  # the file asked for; empty where there is none


@dataclass(frozen=True, slots=True)
class Statistics:
    """How a judge stands: workers it may use and those that run a program, programs that wait for one, workers
    replaced and verdicts found in the cache since the start."""

    workers: int
    busy: int
    waiting: int
    replaced: int
    cache_hits: int = 0
    cache_misses: int = 0

    @property
    def utilisation(self) -> float:
        return self.busy / self.workers


@dataclass(frozen=True, slots=True)
class _Checked:
    """A submission found to make sense."""

    submission: Submission
    language: languages.Language
    checker: checkers.Checker
    interactor: user.Referee | None
    limits: RunLimits
    stop: Stop
    keep_output: bool


@dataclass(frozen=True, slots=True)
class _Source:
    """A program's text, with the further files it includes."""

    language: languages.Language
    code: str
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class _Pending:
    """A judgement under way; several equal submissions may wait for it."""

    future: Future[Judgement]
    waiting: int = 1
    job: Job | None = None


class Judge:
    """Judges programs in worker processes. Thread-safe; a context manager; `close()` leaves no process behind.

    `workers` defaults to the CPUs this process may use. The best protection level the machine offers is taken;
    below `min_protection` ("namespaced" or "confined") it refuses to start, unless `allow_unconfined` accepts mere
    resource limits. `protection` names one level exactly. `cache` is False, True (in memory) or a path of a SQLite
    file. `silence_s`: a busy worker heard nothing of for that long is replaced. `testlib` is the path of testlib.h,
    for checkers and interactors that include it (default: the environment variable SANDBOX_TESTLIB).
    `presentation_errors` tells PE apart from WA.
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
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: at least 1 is needed")
        self._workers = workers or len(os.sched_getaffinity(0))
        self.protection = levels.choose(min_protection, allow_unconfined, protection)
        if self.protection == "limited":
            _log.warning("programs are held by resource limits only: they can read files and reach the network")
        else:
            _log.info("protection level: %s", self.protection)
        self.cache: VerdictCache | None = None
        if cache is not False:
            self.cache = VerdictCache(path=None if cache is True else cache)
        self._presentation_errors = presentation_errors
        self._testlib = _read_testlib(testlib or os.environ.get("SANDBOX_TESTLIB"))
        self._pool = Pool(self._workers, self.protection, silence_s, languages.runtime_paths())
        self._compilers = ThreadPoolExecutor(self._workers, thread_name_prefix="sandbox-compile")
        self._pending: dict[bytes, _Pending] = {}
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
        self, submissions: Iterable[Submission], *, stop: str = "first_failure", keep_output: bool = False
    ) -> Iterator[tuple[int, Judgement]]:
        """(index, judgement) pairs as they come. Leaving the loop early stops what is not done."""
        finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        with self._submitted(list(submissions), stop, keep_output) as futures:
            for index, future in enumerate(futures):
                future.add_done_callback(lambda _, index=index: finished.put(index))  # type: ignore[misc]
            for _ in futures:
                index = finished.get()
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
        for name in (*(files or ()), collect):
            if name and not _FILE_NAME.fullmatch(name):
                raise ValueError(f"file name {name!r}: letters, digits, '.', '_' and '-' only")
        laid = tuple((files or {}).items())
        spoken = languages.find(language)
        _require(spoken)
        run_limits = _run_limits(limits or Limits(), spoken)
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

        pending: _Pending = _Pending(Future())
        runs = [RunInput(data, files=laid, collect=collect) for data in encoded]
        self._start(pending, _Source(spoken, code), runs, run_limits, on_facts, on_done)
        try:
            return future.result()
        finally:
            if not future.done() and pending.job is not None:
                self._pool.cancel(pending.job)

    def check(self, submission: Submission, stop: str = "first_failure") -> None:
        """Nothing for a submission that can be judged here; else the error that judging it would raise at once."""
        self._check(submission, stop, False)

    def close(self) -> None:
        """Ends all workers. Judgements still awaited come out as IE."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._compilers.shutdown(wait=True, cancel_futures=True)
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
        return Statistics(self._workers, self._pool.busy, self._pool.waiting, self._pool.replaced, hits, misses)

    @contextlib.contextmanager
    def _submitted(
        self, submissions: list[Submission], stop: str, keep_output: bool
    ) -> Iterator[list[Future[Judgement]]]:
        """Futures of the submissions; those not done when the block is left are cancelled."""
        checked = [self._check(submission, stop, keep_output) for submission in submissions]
        entries: list[tuple[bytes, _Pending]] = []
        try:
            entries.extend(self._submit(one) for one in checked)
            yield [pending.future for _, pending in entries]
        finally:
            for key, pending in entries:
                self._leave(key, pending)

    def _check(self, submission: Submission, stop: str, keep_output: bool) -> _Checked:
        if self._closed:
            raise RuntimeError("this judge is closed")
        if not submission.tests:
            raise ValueError("no tests: a program cannot be judged on an empty list of tests")
        language = languages.find(submission.language)
        checker = checkers.find(submission.checker)
        interactor = user.parse(submission.interactor) if submission.interactor else None
        if submission.interactor and interactor is None:
            raise ValueError(
                f"unknown interactor {submission.interactor[:60]!r}: known are "
                + ", ".join(f"{protocol}:SOURCE" for protocol in user.PROTOCOLS)
            )
        for name in (submission.input_file, submission.output_file):
            if name and not _FILE_NAME.fullmatch(name):
                raise ValueError(f"file name {name!r}: letters, digits, '.', '_' and '-' only")
        called = any(test.call is not None for test in submission.tests)
        if called and language.name != "python":
            raise ValueError(f"call-based tests are run in python only, not in {language.name}")
        if called and (interactor or submission.input_file or submission.output_file):
            raise ValueError("call-based tests have neither files nor an interactor")
        if interactor and (submission.input_file or submission.output_file):
            raise ValueError("an interactive problem has no input or output file")
        if submission.code.strip():
            _require(language)
        for referee in (checker.referee, interactor):
            if referee is not None:
                _require(languages.find(referee.language))
                if referee.protocol == "testlib" and self._testlib is None:
                    raise ValueError(
                        "a testlib program needs testlib.h: Judge(testlib=PATH), or its path in SANDBOX_TESTLIB"
                    )
        limits = _run_limits(submission.limits, language)
        return _Checked(submission, language, checker, interactor, limits, Stop.parse(stop), keep_output)

    def _submit(self, checked: _Checked) -> tuple[bytes, _Pending]:
        submission, language = checked.submission, checked.language
        circumstances = (str(checked.stop), str(checked.keep_output), *self._own)
        key = key_of(submission, f"{language.name} {language.version()}", circumstances)
        known = self.cache.get(key) if self.cache is not None else None
        if known is not None:
            pending = _Pending(Future())
            pending.future.set_result(known)
            return key, pending
        with self._lock:
            running = self._pending.get(key)
            if running is not None:
                running.waiting += 1
                return key, running
            pending = self._pending[key] = _Pending(Future())

        def deliver(judgement: Judgement) -> None:
            with self._lock:
                if self._pending.get(key) is pending:
                    del self._pending[key]
            if self.cache is not None:
                self.cache.put(key, judgement)
            pending.future.set_result(judgement)

        def ask(
            questions: list[RunInput],
            on_facts: Callable[[int, Facts], int],
            on_done: Callable[[str | None, str | None], None],
        ) -> None:
            assert checked.checker.referee is not None
            source = self._source_of(checked.checker.referee, conversation=False)
            self._start(pending, source, questions, RunLimits.of(user.LIMITS, 1.0), on_facts, on_done)

        tests = tuple(submission.tests)
        form = Form(submission.input_file, submission.output_file, checked.interactor)
        grading = Grading(
            tests,
            checked.checker,
            form,
            checked.stop,
            checked.keep_output,
            self.protection,
            deliver,
            ask,
            self._presentation_errors,
        )
        if not submission.code.strip():
            deliver(grading.refused(Verdict.NO_CODE, "no program"))
            return key, pending
        source = _Source(language, submission.code)
        if checked.interactor is None:
            inputs = [form.run_input(test, None) for test in tests]
            self._start(pending, source, inputs, checked.limits, grading.on_facts, grading.on_done)
        else:
            self._converse(pending, source, checked.interactor, grading, checked.limits)
        return key, pending

    @property
    def _own(self) -> tuple[str, ...]:
        header = "" if self._testlib is None else hashlib.blake2b(self._testlib.encode()).hexdigest()
        return header, str(self._presentation_errors)

    def _source_of(self, referee: user.Referee, *, conversation: bool) -> _Source:
        files = dict(referee.files)
        if referee.protocol == "testlib" and self._testlib is not None:
            files["testlib.h"] = self._testlib
        return _Source(languages.find(referee.language), referee.code(conversation=conversation), files)

    def _converse(
        self, pending: _Pending, source: _Source, referee: user.Referee, grading: Grading, limits: RunLimits
    ) -> None:
        """Starts the program against the interactor, which is built first."""

        def with_interactor(program: Program) -> None:
            own_limits = RunLimits.of(user.INTERACTOR_LIMITS, 1.0)
            interactor = Interactor(program, referee.conversation_arguments, own_limits)
            inputs = [grading.form.run_input(test, interactor) for test in grading.tests]
            self._start(pending, source, inputs, limits, grading.on_facts, grading.on_done)

        def failed(error: str | None, compile_error: str | None) -> None:
            grading.on_done(error or f"the interactor does not compile: {compile_error}", None)

        self._prepare(pending, self._source_of(referee, conversation=True), with_interactor, failed)

    def _start(
        self,
        pending: _Pending,
        source: _Source,
        inputs: list[RunInput],
        limits: RunLimits,
        on_facts: Callable[[int, Facts], int],
        on_done: Callable[[str | None, str | None], None],
    ) -> None:
        def enqueue(program: Program) -> None:
            pending.job = Job(program, inputs, limits, on_facts, on_done)
            self._pool.submit(pending.job)

        self._prepare(pending, source, enqueue, on_done)

    def _prepare(
        self,
        pending: _Pending,
        source: _Source,
        use: Callable[[Program], None],
        on_done: Callable[[str | None, str | None], None],
    ) -> None:
        """Gives the program ready to run to `use`, or says to `on_done` why there is none."""
        workshop = languages.Workshop(self._pool.artifacts, self.protection)
        if not source.language.compiled:
            use(source.language.prepare(source.code, workshop, source.files))
            return

        def build() -> None:
            try:
                if pending.waiting:
                    use(source.language.prepare(source.code, workshop, source.files))
                else:
                    on_done("cancelled", None)
            except CompileError as error:
                on_done(None, str(error))
            except Exception as error:  # the compile box is ours
                on_done(f"cannot compile: {type(error).__name__}: {error}", None)

        def dropped(future: Future[None]) -> None:
            if future.cancelled():
                on_done("the judge was closed", None)

        try:
            self._compilers.submit(build).add_done_callback(dropped)
        except RuntimeError:  # shut down meanwhile
            on_done("the judge was closed", None)

    def _leave(self, key: bytes, pending: _Pending) -> None:
        """One waiter less; the last one to leave stops the work."""
        if pending.future.done():
            return
        with self._lock:
            pending.waiting -= 1
            if pending.waiting:
                return
            if self._pending.get(key) is pending:
                del self._pending[key]
        if pending.job is not None:
            self._pool.cancel(pending.job)


def _require(language: languages.Language) -> None:
    remedy = language.missing()
    if remedy is not None:
        raise ToolchainMissing(f"{language.name} cannot be used here: {remedy}")


def _run_limits(limits: Limits, language: languages.Language) -> RunLimits:
    for name in ("cpu_s", "wall_s", "memory_mb", "output_mb"):
        value = getattr(limits, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"limits: {name}={value} must be a positive finite number")
    return RunLimits.of(limits, language.factor, language.runtime_mb)


def _read_testlib(path: str | Path | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"testlib {path}: cannot be read: {error}") from None


_default: Judge | None = None
_settings: dict[str, Any] = {}
_default_lock = threading.Lock()


def configure(**settings: Any) -> None:
    """Replaces the process-wide judge; `settings` are those of `Judge`. It starts at its next use."""
    global _default, _settings
    with _default_lock:
        old, _default, _settings = _default, None, settings
    if old is not None:
        old.close()


def default_judge() -> Judge:
    """The process-wide judge, started when first used and closed at exit."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Judge(**_settings)
        return _default


def _forget_in_child() -> None:
    global _default, _default_lock
    _default_lock = threading.Lock()
    if _default is not None:
        _default.abandon()
        _default = None


@atexit.register
def _close_default() -> None:
    if _default is not None:
        _default.close()


os.register_at_fork(after_in_child=_forget_in_child)


def judge(code: str, tests: Sequence[TestCase], **options: Any) -> Judgement:
    """`Judge.judge` of the process-wide judge."""
    return default_judge().judge(code, tests, **options)


async def ajudge(code: str, tests: Sequence[TestCase], **options: Any) -> Judgement:
    """`Judge.ajudge` of the process-wide judge."""
    return await default_judge().ajudge(code, tests, **options)


def judge_batch(submissions: Iterable[Submission], **options: Any) -> list[Judgement]:
    """`Judge.judge_batch` of the process-wide judge."""
    return default_judge().judge_batch(submissions, **options)


def as_completed(submissions: Iterable[Submission], **options: Any) -> Iterator[tuple[int, Judgement]]:
    """`Judge.as_completed` of the process-wide judge."""
    return default_judge().as_completed(submissions, **options)


def execute(code: str, inputs: Sequence[str | bytes], **options: Any) -> list[Execution]:
    """`Judge.execute` of the process-wide judge."""
    return default_judge().execute(code, inputs, **options)


def protection() -> str:
    """Protection level of the process-wide judge."""
    return default_judge().protection
