"""The session's service, and services of their own for the tests that kill them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from running_service import PATIENT, SUMS, TOKEN, Process, Running, serving

from sandbox.isolation import levels
from sandbox.service.app import Settings
from sandbox.service.testsets import TestSets
from sandbox.service.wire import TestSet


@pytest.fixture(scope="session")
def protected() -> None:
    """Skips where programs cannot be confined."""
    if all(levels.probe(level).reason is not None for level in ("namespaced", "confined")):
        pytest.skip("this machine offers neither namespaces nor Landlock with seccomp")


@pytest.fixture(scope="session")
def running(protected: None) -> Iterator[Running]:
    """The session's service, with a token and the test set "sums"."""
    held = TestSets()
    held.keep("sums", TestSet(tuple(SUMS), PATIENT))
    with serving(Settings(token=TOKEN), held, workers=2) as service:
        yield service


@pytest.fixture
def start_service(protected: None) -> Iterator[Callable[..., Process]]:
    """Starts services as processes; ends those left."""
    started: list[Process] = []

    def start(*options: str, **more: object) -> Process:
        started.append(Process(*options, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for process in started:
        process.end()
