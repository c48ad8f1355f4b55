"""A service in this process, on a real socket, around a real judge; and services of their own for what kills them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

import sandbox
from sandbox import Limits, TestCase
from sandbox.service.app import Service, Settings, create_app
from sandbox.service.testsets import TestSets

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "token-of-the-tests"
ADDING = "print(sum(map(int, input().split())))"
SUMS = [TestCase("1 2\n", "3\n"), TestCase("10 -4\n", "6\n")]
# enough for any program of these tests on a crowded machine
PATIENT = Limits(cpu_s=4.0, wall_s=120.0)


class Running:
    """A service's address and inner state."""

    def __init__(self, url: str, service: Service) -> None:
        self.url = url
        self.service = service


@contextlib.contextmanager
def serving(settings: Settings, held: TestSets | None = None, workers: int = 1) -> Iterator[Running]:
    judge = sandbox.Judge(workers=workers, cache=False)
    app = create_app(judge, settings, held)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, name="service-of-a-test")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", app.state.service)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the service did not end"


class Process:
    """`rlvr sandbox serve` as a process of its own."""

    def __init__(self, *options: str, port: int = 0, token: str | None = TOKEN) -> None:
        command = [
            sys.executable,
            "-m",
            "rlvr.cli",
            "sandbox",
            "serve",
            "--port",
            str(port),
            "--workers",
            "1",
            *options,
        ]
        environment = {name: value for name, value in os.environ.items() if name != "RLVR_JUDGE_TOKEN"}
        environment["PYTHONPATH"] = str(ROOT)
        if token is not None:
            environment["RLVR_JUDGE_TOKEN"] = token
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line.startswith("judging at "), line
        self.url = line.split()[2].rstrip(",")
        self.port = int(self.url.rpartition(":")[2])

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
