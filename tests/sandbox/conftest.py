"""One judge per protection level for all tests of the sandbox: real workers, nothing mocked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from unprivileged import UnprivilegedJudge

import sandbox
from sandbox.isolation import levels

LEVELS = ("namespaced", "confined")
CONTAINER = "container"  # confined, by an unprivileged user under the filter of an ordinary container


@pytest.fixture(scope="session")
def judge_at() -> Iterator[Callable[[str], sandbox.Judge]]:
    """Returns the session's judge of a level; skips where the machine cannot give it."""
    judges: dict[str, sandbox.Judge] = {}

    def at(level: str) -> sandbox.Judge:
        if level not in judges:
            reason = levels.probe("confined" if level == CONTAINER else level).reason
            if reason is not None:
                pytest.skip(f"this machine offers no {level} protection: {reason}")
            workers = min(2, len(os.sched_getaffinity(0)))
            if level == CONTAINER:
                judges[level] = cast(sandbox.Judge, UnprivilegedJudge(workers))
            else:
                judges[level] = sandbox.Judge(workers=workers, protection=level, cache=False)
        return judges[level]

    yield at
    for judge in judges.values():
        judge.close()


@pytest.fixture(params=LEVELS)
def any_level(request: pytest.FixtureRequest, judge_at: Callable[[str], sandbox.Judge]) -> sandbox.Judge:
    """A judge at each level in turn."""
    return judge_at(request.param)


@pytest.fixture(params=("namespaced", CONTAINER))
def held(request: pytest.FixtureRequest, judge_at: Callable[[str], sandbox.Judge]) -> sandbox.Judge:
    """What attacks are run against: the upper level, and the lower one as an unprivileged user of a container."""
    return judge_at(request.param)


@pytest.fixture
def judge(judge_at: Callable[[str], sandbox.Judge]) -> sandbox.Judge:
    """A judge at the best level of this machine."""
    for level in LEVELS:
        if levels.probe(level).reason is None:
            return judge_at(level)
    pytest.skip("this machine offers neither namespaces nor Landlock with seccomp")
