"""One worker process as the controller sees it: start, messages in both directions, end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections import deque

from sandbox.box import channel
from sandbox.execution.job import Job
from sandbox.isolation import bwrap, packages, runtime, seccomp
from sandbox.isolation.groups import Group, Groups

_READ = 1 << 20
_GROUP_BYTES = 1 << 30  # until the first job says how much it needs
START_S = 60.0  # a worker needs a tenth of a second; a crowded machine is given time


class WorkerFailed(Exception):
    """The worker died, fell silent or spoke nonsense."""


class Worker:
    """A started worker. `send` queues bytes, `flush` and `receive` never block."""

    def __init__(
        self, level: str, artifacts: str, runtimes: tuple[str, ...] = (), groups: Groups | None = None
    ) -> None:
        self.level = level
        self._groups = groups
        self.group: Group | None = None
        self.report: dict[str, object] = {}
        self.ready = False
        self.job: Job | None = None
        self.jobs_done = 0
        self.heard = time.monotonic()
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self._scratch: str | None = None
        # lives as long as the worker; in memory, for it must be able to say that the disk is full
        self._errors = os.fdopen(os.memfd_create("errors", os.MFD_CLOEXEC), "w+b")
        ours, theirs = socket.socketpair()
        doors: list[int] = []
        try:
            if groups is not None:
                self.group = groups.make(_GROUP_BYTES)
                doors = self.group.doors() if self.group is not None else []
            provided = packages.provide(artifacts)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                ours.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
                theirs.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
            command = runtime.zygote_command(theirs.fileno(), runtime.compiled_box(artifacts), doors)
            if level == "namespaced":
                command = bwrap.command(command, read_only=(artifacts, *runtimes))
                scratch = bwrap.SCRATCH
            else:
                self._scratch = tempfile.mkdtemp(prefix="run-", dir=os.path.dirname(artifacts))
                scratch = f"{self._scratch}/scratch"
            # Popen starts by vfork and exec: the caller, which may hold threads and gigabytes, is never forked.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                cwd="/",
                env=runtime.environment(),
                pass_fds=(theirs.fileno(), *doors),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            self._forget_files()
            raise
        finally:
            theirs.close()
            for door in doors:
                os.close(door)
        ours.setblocking(False)
        self.sock = ours
        self.send("I", json.dumps(_setup(level, scratch, provided)).encode())

    def send(self, kind: str, *parts: bytes) -> None:
        length = sum(map(len, parts))
        self._out.append(memoryview(channel.HEAD.pack(length, ord(kind)) + (parts[0] if parts else b"")))
        self._out.extend(memoryview(part) for part in parts[1:])

    def flush(self) -> bool:
        """Writes what the socket takes; returns whether anything is left."""
        while self._out:
            try:
                sent = self.sock.send(self._out[0])
            except BlockingIOError:
                return True
            except OSError as error:
                raise WorkerFailed(f"cannot write to the worker ({error}){self._dying_words()}") from error
            if sent == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][sent:]
        return False

    def receive(self) -> list[tuple[str, bytes | bytearray]]:
        """Whole messages that have arrived."""
        while True:
            try:
                data = self.sock.recv(_READ)
            except BlockingIOError:
                break
            except OSError as error:
                words = self._dying_words()  # they say more than the broken connection
                raise WorkerFailed(f"the worker ended{words or f' ({error})'}") from error
            if not data:
                raise WorkerFailed(f"the worker ended{self._dying_words()}")
            self._in += data
            if len(data) < _READ:
                break
        self.heard = time.monotonic()
        messages: list[tuple[str, bytes | bytearray]] = []
        while len(self._in) >= channel.HEAD.size:
            length, kind = channel.HEAD.unpack_from(self._in)
            end = channel.HEAD.size + length
            if len(self._in) < end:
                break
            messages.append((chr(kind), self._in[channel.HEAD.size : end]))
            del self._in[:end]
        return messages

    def take(self, body: bytes | bytearray) -> None:
        """Notes the worker's own account of what it enforces: it is ready."""
        self.report = json.loads(body)
        if self.report.get("no_group"):
            self._leave_group()
        self.ready = True

    def take_report(self) -> bool:
        """Whether the worker has reported; for use outside a pool."""
        for kind, body in self.receive():
            if kind == "R":
                self.take(body)
        return self.ready

    def _dying_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):  # its socket may close before its last line is written
            self.process.wait(0.5)
        return self.last_words()

    def last_words(self) -> str:
        """Last line the worker wrote to its standard error, for messages."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""

    def kill(self) -> None:
        """Ends the worker at once and waits for it; runs die with it."""
        if self.process.poll() is None:  # runs cannot leave the group; those that live die with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.sock.close()
        self.process.wait()
        self._forget_files()

    def _leave_group(self) -> None:
        if self._groups is not None and self.group is not None:
            self._groups.drop(self.group)
            self.group = None

    def _forget_files(self) -> None:
        self._leave_group()
        self._errors.close()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _setup(level: str, scratch: str, provided: str) -> dict[str, object]:
    readable = (*runtime.readable_paths(), provided)
    setup: dict[str, object] = {"level": level, "scratch": scratch, "readable": readable, "packages": provided}
    setup["base_filter"] = ""
    if level != "limited" and seccomp.supported():
        setup["base_filter"] = seccomp.base_filter().code.hex()
        for name, execve in (("python_filter", False), ("native_filter", True)):
            run = seccomp.run_filter(execve=execve)
            setup[name] = (run.code.hex(), run.own_pid_at)
    return setup


def unpack_status(body: bytes | bytearray) -> int:
    return struct.unpack("<i", body)[0]


def shortfall(worker: Worker) -> str | None:
    """What a started worker lacks of its level."""
    if worker.level == "limited":
        return None
    if not worker.report.get("seccomp"):
        return "no seccomp filter could be loaded"
    if worker.level == "confined" and not worker.report.get("landlock_abi"):
        return "the kernel offers no Landlock"
    return None
