"""A server process that is watched: healthy or restarted, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class ServerFailed(RuntimeError):
    """The server ended or hung more often than it may be restarted; the message has its last words."""


@dataclass(frozen=True)
class Watch:
    """When a server counts as failed, in seconds, and how often it is started again."""

    start_within: float = 1800.0
    check_every: float = 5.0
    unhealthy_after: int = 3  # checks in a row
    answer_within: float = 10.0
    restarts: int = 3
    steady_after: float = 600.0  # healthy this long, earlier restarts are forgiven
    stop_within: float = 30.0


def healthy(url: str, timeout: float) -> bool:
    """True where GET `url` answers 200 within `timeout` seconds."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


class Supervisor:
    """Runs `command` until told to stop, restarting it when it ends or stops answering `health_url`.

    `run` returns when `stop` was called and raises ServerFailed when the restarts are used up. The server gets a
    process group of its own, so that its workers end with it.
    """

    def __init__(
        self,
        command: Sequence[str],
        health_url: str,
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        watch: Watch = Watch(),
        say: Callable[[str], None] = print,
    ) -> None:
        self.command = list(command)
        self.health_url = health_url
        self.environment = {**os.environ, **(environment or {})}
        self.log = log
        self.watch = watch
        self.say = say
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> None:
        """Starts and watches the server."""
        failures = 0
        try:
            while not self._stopping:
                reason, steady = self._one_life()
                if self._stopping:
                    return
                failures = 1 if steady else failures + 1
                if failures > self.watch.restarts:
                    raise ServerFailed(f"{reason}; restarted {self.watch.restarts} times already{self._last_words()}")
                self.say(f"server: {reason}; start {self.starts + 1}")
                time.sleep(min(self.watch.check_every, 2.0 ** (failures - 1)))
        finally:
            self._end()

    def stop(self) -> None:
        """Makes `run` end the server and return."""
        self._stopping = True

    def _one_life(self) -> tuple[str, bool]:
        """Returns (why it was ended, whether it had run steadily)."""
        self.starts += 1
        output = self.log.open("ab") if self.log is not None else None
        try:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )
        finally:
            if output is not None:
                output.close()
        started = time.monotonic()
        ready: float | None = None
        misses = 0
        while not self._stopping:
            code = self.process.poll()
            if code is not None:
                return (
                    f"ended with code {code}",
                    ready is not None and time.monotonic() - ready > self.watch.steady_after,
                )
            if healthy(self.health_url, self.watch.answer_within):
                misses = 0
                if ready is None:
                    ready = time.monotonic()
                    self.say(f"server: ready after {ready - started:.0f} s")
            elif ready is not None:
                misses += 1
                if misses >= self.watch.unhealthy_after:
                    self._end()
                    return f"no answer to {misses} health checks", ready + self.watch.steady_after < time.monotonic()
            elif time.monotonic() - started > self.watch.start_within:
                self._end()
                return f"not ready within {self.watch.start_within:.0f} s", False
            time.sleep(self.watch.check_every)
        return "stopped", True

    def _end(self) -> None:
        process = self.process
        if process is None:
            return
        for sent, patience in ((signal.SIGTERM, self.watch.stop_within), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(process.pid, sent)
            except ProcessLookupError:
                break
            try:
                process.wait(timeout=patience)
            except subprocess.TimeoutExpired:
                continue
        process.wait()
        self.process = None

    def _last_words(self) -> str:
        if self.log is None or not self.log.is_file():
            return ""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"; its last words ({self.log}): {lines[-1].strip()[:300]}" if lines else ""
