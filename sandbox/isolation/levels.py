"""Protection levels, strongest first, and which of them this machine can give. Found out by starting a worker."""

from __future__ import annotations

import contextlib
import selectors
import time
from dataclasses import dataclass

LEVELS = ("namespaced", "confined", "limited")


class ProtectionUnavailable(RuntimeError):
    """The machine cannot give the protection asked for; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of starting a worker at a level: `reason` is None when it works."""

    level: str
    reason: str | None
    report: dict[str, object]


def choose(minimum: str, allow_unconfined: bool, exactly: str | None) -> str:
    """The level to run at. ProtectionUnavailable when the machine gives less than asked for."""
    for name in (minimum, exactly or minimum):
        if name not in LEVELS:
            raise ValueError(f"unknown protection level {name!r}: known are {', '.join(LEVELS)}")
    if (minimum == "limited" or exactly == "limited") and not allow_unconfined:
        raise ValueError(
            "protection 'limited' holds programs by resource limits only: allow_unconfined=True accepts that"
        )
    wanted = [exactly] if exactly else list(LEVELS[: LEVELS.index(minimum) + 1])
    if allow_unconfined and not exactly and "limited" not in wanted:
        wanted = list(LEVELS)
    reasons = []
    for level in wanted:
        found = probe(level)
        if found.reason is None:
            return level
        reasons.append(f"{level}: {found.reason}")
    raise ProtectionUnavailable(
        f"programs cannot be held as asked ({'; '.join(reasons)}); `python -m sandbox.doctor` names remedies"
    )


_works: dict[str, Probe] = {}


def probe(level: str) -> Probe:
    """Starts one worker at `level` and takes its own account of what it could enforce. Success is remembered."""
    if level not in _works:
        found = _try(level)
        if found.reason is not None:
            return found
        _works[level] = found
    return _works[level]


def _try(level: str) -> Probe:
    from sandbox.execution.folder import Folder
    from sandbox.execution.worker import START_S, Worker, WorkerFailed, shortfall

    try:
        folder = Folder()
    except OSError as error:
        return Probe(level, str(error), {})
    with contextlib.closing(folder):
        try:
            worker = Worker(level, folder.programs)
        except OSError as error:
            return Probe(level, str(error), {})
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(worker.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
                deadline = time.monotonic() + START_S
                while time.monotonic() < deadline:
                    selector.select(1)
                    if not worker.flush():
                        selector.modify(worker.sock, selectors.EVENT_READ)
                    if worker.take_report():
                        return Probe(level, shortfall(worker), worker.report)
            return Probe(level, f"the worker did not start within {START_S:g} s", {})
        except WorkerFailed as error:
            return Probe(level, str(error), {})
        finally:
            worker.kill()
