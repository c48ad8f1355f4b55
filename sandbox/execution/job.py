"""What the pool runs, and the facts it gets back."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sandbox.box import channel
from sandbox.cases import Limits
from sandbox.verdicts import Verdict

# Address space beyond the memory limit: thread stacks and reservations are not memory in use. Residency is watched.
_SLACK_KB = {"python": 1 << 20, "native": 4 << 20}
_OF_A_WORKER = 384 << 20  # its scratch directory and itself
_TO_COMPILE = 1 << 30
_GROUP_STEP = 64 << 20
_UNBOUNDED = 0  # a managed runtime reserves far more address space than it uses


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Program:
    """A program ready to run: Python source, or a binary with its arguments and the libraries it may load.

    `managed` marks runtimes (Java, JavaScript, Go, PyPy) whose address space says nothing about their memory.
    "{memory_mb}" in an argument stands for the memory limit.
    """

    kind: str  # "python" or "native"
    source: bytes = b""
    path: str = ""
    arguments: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    managed: bool = False

    def message(self, limits: RunLimits) -> bytes:
        """The program as the supervisor reads it: its kind, then source or command."""
        if self.kind == "python":
            return b"P" + self.source
        return b"N" + json.dumps(self.command(limits.memory_kb)).encode()

    def command(self, memory_kb: int) -> dict[str, object]:
        """What the supervisor has to know of a binary."""
        return {
            "path": self.path,
            "arguments": [a.replace("{memory_mb}", str(memory_kb // 1024)) for a in self.arguments],
            "libraries": self.libraries,
            "environment": {"LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"},
        }

    @property
    def slack_kb(self) -> int:
        return _UNBOUNDED if self.managed else _SLACK_KB[self.kind]


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits of one run after the language's factor: seconds, KiB, bytes."""

    cpu_s: float
    wall_s: float
    memory_kb: int
    output_bytes: int

    @classmethod
    def of(cls, limits: Limits, factor: float, runtime_mb: int = 0) -> RunLimits:
        """`runtime_mb` is what the language's runtime holds before the program adds anything."""
        cpu = limits.cpu_s * (factor if limits.language_factors else 1.0)
        wall = limits.wall_s if limits.wall_s is not None else 3 * cpu + 2
        return cls(cpu, wall, int((limits.memory_mb + runtime_mb) * 1024), int(limits.output_mb * (1 << 20)))


@dataclass(frozen=True, slots=True)
class Interactor:
    """The problem's side of a conversation: a program, how it is called, and its own limits.

    `arguments` may name "{input}", "{answer}" and "{notes}" (a private directory it may write).
    """

    program: Program
    arguments: tuple[str, ...]
    limits: RunLimits


@dataclass(frozen=True, slots=True)
class RunInput:
    """What one run is given.

    `files` lie in the working directory before it starts (a name ending in "/" makes a directory). `collect` names
    the file whose content comes back as `Facts.value`. With an `interactor`, standard input and output are its pipes,
    and `files` ("input", "answer") reach only the interactor.
    """

    data: bytes = b""
    call: bytes | None = None
    files: tuple[tuple[str, bytes], ...] = ()
    arguments: tuple[str, ...] = ()
    collect: str = ""
    interactor: Interactor | None = None

    @property
    def size(self) -> int:
        """Bytes of input, files included."""
        return len(self.data) + sum(len(content) for _, content in self.files)


@dataclass(slots=True)
class Facts:
    """What a run did. `verdict` is AC when it ended by itself with exit code 0 inside its limits."""

    verdict: Verdict
    message: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mb: float = 0.0
    stdout: bytes = b""
    stderr: bytes = b""
    value: bytes = b""
    exit_code: int | None = None  # None when a signal ended it
    signal: int | None = None  # the one that ended it, where the judge did not
    killed: bool = False  # SIGKILL not sent by the judge


@dataclass(eq=False, slots=True)
class Job:
    """A program and its runs. `on_facts(index, facts)` returns how many runs to move on by, 0 to stop.

    `on_done(error, compile_error)` ends it.

    Both are called in the pool's thread. `error` is set when the judge failed (the program is not to blame).
    `compile_error` is set when the program is no valid source.
    """

    program: Program
    inputs: Sequence[RunInput]
    limits: RunLimits
    on_facts: Callable[[int, Facts], int]
    on_done: Callable[[str | None, str | None], None]  # judge's error, compile error
    position: int = 0
    attempts: int = 0
    cancelled: bool = False
    killed_at: set[int] = field(default_factory=set)
    doubted_at: set[int] = field(default_factory=set)
    single: bool = False  # one process both compiles and runs: nothing is gained by compiling apart for one test


def test_message(item: RunInput, limits: RunLimits, program: Program) -> bytes:
    """The test as the supervisor reads it; its output is not part of it."""
    options = _options(item)
    head = channel.TEST.pack(*_numbers(limits, program), len(options))
    return b"".join((head, options, *(content for _, content in _files(item)), item.data))


def _numbers(limits: RunLimits, program: Program) -> tuple[int, int, int, int, int]:
    cpu_us, wall_us = int(limits.cpu_s * 1e6), int(limits.wall_s * 1e6)
    return cpu_us, wall_us, limits.memory_kb, program.slack_kb, limits.output_bytes


def _files(item: RunInput) -> tuple[tuple[str, bytes], ...]:
    # the interactor's source travels like its secrets, so that it never lies in memory that a run inherits
    source = item.interactor.program.source if item.interactor is not None else b""
    return (*item.files, ("source", source)) if item.interactor is not None else item.files


def _options(item: RunInput) -> bytes:
    """JSON of what an ordinary run does not need; empty for one."""
    options: dict[str, object] = {}
    if item.call is not None:
        options["call"] = item.call.decode("utf-8", "surrogateescape")
    if item.arguments:
        options["arguments"] = item.arguments
    if item.collect:
        options["collect"] = item.collect
    files = _files(item)
    if files:
        options["files"] = [(name, len(content)) for name, content in files]
    if item.interactor is not None:
        interactor = item.interactor
        options["interactor"] = {
            "native": interactor.program.kind == "native",
            "limits": _numbers(interactor.limits, interactor.program),
            "arguments": interactor.arguments,
            "command": interactor.program.command(interactor.limits.memory_kb),
        }
    return json.dumps(options).encode() if options else b""


def memory_to_allow(item: RunInput, limits: RunLimits) -> int:
    """Bytes that all of a worker may hold during a run: programs, what they write into files and print, the input.

    In steps of 64 MiB, so that tests of about the same size have the same.
    """
    sides = [limits] if item.interactor is None else [limits, item.interactor.limits]
    total = _OF_A_WORKER + item.size
    for side in sides:
        total += max(side.memory_kb << 10, _TO_COMPILE) + 3 * side.output_bytes
    return -(-total // _GROUP_STEP) * _GROUP_STEP


def read_facts(body: bytes | bytearray, limits: RunLimits) -> Facts:
    """Facts of a run from the supervisor's report."""
    reason, status, cpu_us, wall_us, peak_kb, errors, value, size = channel.RESULT.unpack_from(body)
    at = channel.RESULT.size
    if at + errors + value + size != len(body):
        raise ValueError("report of a run has the wrong length")
    facts = Facts(
        Verdict.AC,
        cpu_s=cpu_us / 1e6,
        wall_s=wall_us / 1e6,
        memory_mb=peak_kb / 1024,
        stderr=bytes(body[at : at + errors]),
        value=bytes(body[at + errors : at + errors + value]),
        stdout=bytes(body[at + errors + value :]),
    )
    facts.verdict, facts.message = _judge_end(reason, status, facts, peak_kb, limits)
    if os.WIFEXITED(status) and reason == channel.FINISHED:
        facts.exit_code = os.WEXITSTATUS(status)
    elif os.WIFSIGNALED(status) and reason == channel.FINISHED:
        facts.signal = os.WTERMSIG(status)
    facts.killed = facts.verdict is Verdict.RE and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return facts


def _judge_end(reason: int, status: int, facts: Facts, peak_kb: int, limits: RunLimits) -> tuple[Verdict, str]:
    if reason == channel.UNSTARTED:
        return Verdict.IE, f"the run could not be set up: {last_line(facts.stderr)}"
    if reason == channel.OUTPUT:
        return Verdict.OLE, f"printed more than {limits.output_bytes / (1 << 20):g} MiB"
    if reason == channel.CPU or facts.cpu_s > limits.cpu_s:
        return Verdict.TLE, f"used {facts.cpu_s:.2f} s of CPU, limit {limits.cpu_s:g} s"
    if reason == channel.MEMORY or peak_kb > limits.memory_kb:
        return Verdict.MLE, f"used {peak_kb / 1024:.0f} MiB, limit {limits.memory_kb / 1024:.0f} MiB"
    if reason == channel.WALL:
        return Verdict.ILE, f"still running after {facts.wall_s:.1f} s with {facts.cpu_s:.2f} s of CPU used"
    if reason == channel.DISK:
        return Verdict.OLE, "wrote too much into files"
    if reason == channel.THREADS:
        return Verdict.RE, "too many threads"
    signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if signalled == signal.SIGXFSZ or len(facts.stdout) >= limits.output_bytes:
        return Verdict.OLE, f"printed more than {limits.output_bytes / (1 << 20):g} MiB"
    if signalled == signal.SIGXCPU:
        return Verdict.TLE, f"used {facts.cpu_s:.2f} s of CPU, limit {limits.cpu_s:g} s"
    last = telling_line(facts.stderr)
    shortage = _OUT_OF_MEMORY.search(last) if status else None
    if shortage:
        return Verdict.MLE, f"out of memory ({shortage[0]})"
    if signalled:
        return Verdict.RE, f"killed by {_signal_name(signalled)}"
    code = os.WEXITSTATUS(status)
    if code:
        return Verdict.RE, last or f"exit code {code}"
    return Verdict.AC, ""


def is_suspicious(facts: Facts, limits: RunLimits) -> bool:
    """Whether a run may have reached its wall limit because others had the CPU, not because it was idle.

    Time in the run queue is taken off the wall time as far as four times the limit: a run stopped there was starved.
    So perhaps was one that used a good part of its CPU time on a machine with more work than CPUs.
    """
    if facts.verdict is not Verdict.ILE:
        return False
    if facts.wall_s >= 3.9 * limits.wall_s:
        return True
    return facts.cpu_s >= limits.cpu_s / 4 and os.getloadavg()[0] > (os.cpu_count() or 1)


# What the runtimes of the known languages say when an allocation fails and nothing catches that.
_OUT_OF_MEMORY = re.compile(
    r"^MemoryError|std::bad_alloc|java\.lang\.OutOfMemoryError|^memory allocation of \d+ bytes failed"
    r"|^fatal error: (?:runtime: )?(?:out of|cannot allocate) memory"
)

# How the runtimes of the known languages begin the line that names a failure.
_TELLING = re.compile(
    r"(Exception in thread|panic:|fatal error:|thread '[^']*' panicked|terminate called|  what\(\):)"
    r"|([A-Z]\w*)?(Error|Exception)\b"
)


def telling_line(text: bytes) -> str:
    """The line of an error text that names the failure, else its last; at most 200 characters."""
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if _TELLING.match(line)]
    return lines[-1].strip()[:200] if lines else last_line(text)


def last_line(text: bytes) -> str:
    """Last non-empty line of an error text, at most 200 characters."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
