"""From sources to jobs in the pool: what needs a compiler goes through it first, in threads of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from sandbox import languages
from sandbox.execution.job import Facts, Job, Program, RunInput, RunLimits
from sandbox.execution.pool import Pool
from sandbox.execution.shelf import Shelf
from sandbox.languages import CompileError

_KEPT_BYTES = 2 << 30  # of compiled programs
_LOOK_S = 0.05

OnFacts = Callable[[int, Facts], int]  # (number of the run, facts) -> how many runs to move on by
OnDone = Callable[[str | None, str | None], None]  # (the judge's error, compile error)


@dataclass(frozen=True, slots=True)
class Source:
    """A program's text, with the further files it includes."""

    language: languages.Language
    code: str
    files: Mapping[str, str] = field(default_factory=dict)


class Asked(Protocol):
    """Whoever asked for a run: `waiting` is 0 once nobody wants it any more; `job` is what runs for them."""

    waiting: int
    job: Job | None


class Launcher:
    """Compiles sources and hands jobs to `pool`. Callbacks come in the pool's thread or in a compiler's."""

    def __init__(self, pool: Pool, compilers: int) -> None:
        self._pool = pool
        self._shelf = Shelf(_KEPT_BYTES)
        self._closing = False
        self._compilers = ThreadPoolExecutor(compilers, thread_name_prefix="sandbox-compile")

    def close(self) -> None:
        """Waits for compilers that run; those that wait end with the judge's error."""
        self._closing = True
        self._compilers.shutdown(wait=True, cancel_futures=True)

    def start(
        self,
        asked: Asked,
        source: Source,
        inputs: Sequence[RunInput],
        limits: RunLimits,
        on_facts: OnFacts,
        on_done: OnDone,
        *,
        apart: bool = False,
    ) -> None:
        """Runs `source` on `inputs`, one after the other. `apart` keeps what comes with a single one of them, a call or
        an interactor, out of the warm process."""

        def enqueue(program: Program) -> None:
            single = len(inputs) == 1 and not apart
            job = asked.job = Job(program, inputs, limits, on_facts, on_done, single=single)
            self._pool.submit(job)
            if not asked.waiting:  # whoever gave it up while it was compiled saw no job to cancel
                self._pool.cancel(job)

        self.prepare(asked, source, enqueue, on_done)

    def prepare(self, asked: Asked, source: Source, use: Callable[[Program], None], on_done: OnDone) -> None:
        """Gives the program ready to run to `use`, or says to `on_done` why there is none."""
        workshop = languages.Workshop(self._pool.artifacts, self._shelf, self._pool.level, self._pool.groups)
        if not source.language.compiled:
            use(source.language.prepare(source.code, workshop, source.files))
            return

        def build() -> None:
            try:
                self._await_room(asked)
                if self._closing:
                    on_done("the judge was closed", None)
                elif asked.waiting:
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

    def _await_room(self, asked: Asked) -> None:
        """Waits while programs compiled and not yet run fill the shelf, as long as some run and so give room."""
        while self._shelf.crowded and asked.waiting and (self._pool.busy or self._pool.waiting) and not self._closing:
            time.sleep(_LOOK_S)
