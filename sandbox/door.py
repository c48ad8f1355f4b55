"""The judge of the process: started at first use, closed at exit, shared by everyone who asks for no other."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sandbox.cases import TestCase
from sandbox.judge import Judge
from sandbox.submission import Execution, Submission
from sandbox.verdicts import Judgement

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


def close() -> None:
    """Ends the process-wide judge and all it runs; what is still awaited comes out as IE. It starts at its next use."""
    global _default
    with _default_lock:
        old, _default = _default, None
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
