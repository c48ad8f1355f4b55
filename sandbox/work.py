"""Judgements under way: known ones from the cache, equal ones run once, what nobody waits for any more stopped."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from sandbox import languages
from sandbox.checkers import user
from sandbox.execution.cache import VerdictCache, key_of
from sandbox.execution.job import Interactor, Job, Program, RunInput, RunLimits
from sandbox.execution.launch import Launcher, OnDone, OnFacts, Source
from sandbox.execution.pool import Pool
from sandbox.grading import Form, Grading, Inputs
from sandbox.submission import Checked
from sandbox.verdicts import Judgement, Verdict


@dataclass(eq=False)
class Pending:
    """A judgement under way; several equal submissions may wait for it."""

    future: Future[Judgement]
    waiting: int = 1
    job: Job | None = None


class Work:
    """All that one judge has under way. `testlib` is the text of testlib.h, where there is one."""

    def __init__(
        self,
        pool: Pool,
        launcher: Launcher,
        cache: VerdictCache | None,
        testlib: str | None,
        presentation_errors: bool,
    ) -> None:
        self._pool = pool
        self._launcher = launcher
        self._cache = cache
        self._testlib = testlib
        self._presentation_errors = presentation_errors
        header = "" if testlib is None else hashlib.blake2b(testlib.encode()).hexdigest()
        self._own = (header, str(presentation_errors))
        self._pending: dict[bytes, Pending] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def of(self, ready: Iterable[Checked]) -> Iterator[list[Future[Judgement]]]:
        """Futures of the submissions; those not done when the block is left are cancelled."""
        entries: list[tuple[bytes, Pending]] = []
        try:
            entries.extend(self._submit(one) for one in ready)
            yield [pending.future for _, pending in entries]
        finally:
            for key, pending in entries:
                self._leave(key, pending)

    def _submit(self, one: Checked) -> tuple[bytes, Pending]:
        submission, language = one.submission, one.language
        circumstances = (str(one.stop), str(one.keep_output), *self._own)
        key = key_of(submission, f"{language.name} {language.version()}", circumstances)
        known = self._cache.get(key) if self._cache is not None else None
        if known is not None:
            pending = Pending(Future())
            pending.future.set_result(known)
            return key, pending
        with self._lock:
            running = self._pending.get(key)
            if running is not None:
                running.waiting += 1
                return key, running
            pending = self._pending[key] = Pending(Future())

        def deliver(judgement: Judgement) -> None:
            pending.job = None  # a batch keeps what it waits for, and must not keep every program
            with self._lock:
                if self._pending.get(key) is pending:
                    del self._pending[key]
            if self._cache is not None:
                self._cache.put(key, judgement)
            pending.future.set_result(judgement)

        def ask(questions: list[RunInput], on_facts: OnFacts, on_done: OnDone) -> None:
            assert one.checker.referee is not None
            source = self._source_of(one.checker.referee, conversation=False)
            self._launcher.start(pending, source, questions, RunLimits.of(user.LIMITS, 1.0), on_facts, on_done)

        tests = tuple(submission.tests)
        form = Form(submission.input_file, submission.output_file, one.interactor, one.checker.in_place)
        grading = Grading(
            tests,
            one.checker,
            form,
            one.stop,
            one.keep_output,
            self._pool.level,
            deliver,
            ask,
            self._presentation_errors,
        )
        if not submission.code.strip():
            deliver(grading.refused(Verdict.NO_CODE, "no program"))
            return key, pending
        source = Source(language, submission.code)
        if one.interactor is None:
            inputs = Inputs(form, tests)
            called = any(test.call is not None for test in tests)
            self._launcher.start(pending, source, inputs, one.limits, grading.on_facts, grading.on_done, apart=called)
        else:
            self._converse(pending, source, one.interactor, grading, one.limits)
        return key, pending

    def _source_of(self, referee: user.Referee, *, conversation: bool) -> Source:
        files = dict(referee.files)
        if referee.protocol == "testlib" and self._testlib is not None:
            files["testlib.h"] = self._testlib
        return Source(languages.find(referee.language), referee.code(conversation=conversation), files)

    def _converse(
        self, pending: Pending, source: Source, referee: user.Referee, grading: Grading, limits: RunLimits
    ) -> None:
        """Starts the program against the interactor, which is built first."""

        def with_interactor(program: Program) -> None:
            own_limits = RunLimits.of(user.INTERACTOR_LIMITS, 1.0)
            interactor = Interactor(program, referee.conversation_arguments, own_limits)
            inputs = Inputs(grading.form, grading.tests, interactor)
            self._launcher.start(pending, source, inputs, limits, grading.on_facts, grading.on_done, apart=True)

        def failed(error: str | None, compile_error: str | None) -> None:
            grading.on_done(error or f"the interactor does not compile: {compile_error}", None)

        self._launcher.prepare(pending, self._source_of(referee, conversation=True), with_interactor, failed)

    def _leave(self, key: bytes, pending: Pending) -> None:
        """One waiter less; the last one to leave stops the work."""
        if pending.future.done():
            return
        with self._lock:
            pending.waiting -= 1
            if pending.waiting:
                return
            if self._pending.get(key) is pending:
                del self._pending[key]
        job = pending.job
        if job is not None:
            self._pool.cancel(job)


def read_testlib(path: str | Path | None) -> str | None:
    """The text of testlib.h at `path`, if one is named. ValueError where it cannot be read."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"testlib {path}: cannot be read: {error}") from None
