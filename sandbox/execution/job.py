"""What the pool runs, and the facts it gets back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sandbox.box import channel
from sandbox.cases import Limits
from sandbox.verdicts import Verdict

# Address space beyond the memory limit: thread stacks and reservations are not memory in use. Residency is watched.
_SLACK_KB = {"python": 1 << 20, "native": 4 << 20}


@dataclass(frozen=True, slots=True)
class Program:
    """A program ready to run: Python source, or a binary with the libraries it may load."""

    kind: str  # "python" or "native"
    source: bytes = b""
    path: str = ""
    libraries: tuple[str, ...] = ()

    def message(self) -> bytes:
        if self.kind == "python":
            return b"P" + self.source
        job = {"path": self.path, "libraries": self.libraries, "environment": {"LANG": "C.UTF-8"}}
        return b"N" + json.dumps(job).encode()


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits of one run after the language's factor: seconds, KiB, bytes."""

    cpu_s: float
    wall_s: float
    memory_kb: int
    output_bytes: int

    @classmethod
    def of(cls, limits: Limits, factor: float) -> RunLimits:
        cpu = limits.cpu_s * (factor if limits.language_factors else 1.0)
        wall = limits.wall_s if limits.wall_s is not None else 3 * cpu + 2
        return cls(cpu, wall, limits.memory_mb * 1024, int(limits.output_mb * (1 << 20)))


@dataclass(frozen=True, slots=True)
class RunInput:
    """Standard input, and the call for a call-based test."""

    data: bytes
    call: bytes | None = None


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
    """A program and its runs. `on_facts(index, facts)` returns whether to go on; `on_done(error)` ends it.

    Both are called in the pool's thread. `error` is set when the judge failed (the program is not to blame).
    `compile_error` is set when the program is no valid source.
    """

    program: Program
    inputs: Sequence[RunInput]
    limits: RunLimits
    on_facts: Callable[[int, Facts], bool]
    on_done: Callable[[str | None, str | None], None]  # judge's error, compile error
    position: int = 0
    attempts: int = 0
    cancelled: bool = False
    killed_at: set[int] = field(default_factory=set)


def test_message(item: RunInput, limits: RunLimits, kind: str) -> bytes:
    """The test as the supervisor reads it; its output is not part of it."""
    head = channel.TEST.pack(
        int(limits.cpu_s * 1e6),
        int(limits.wall_s * 1e6),
        limits.memory_kb,
        _SLACK_KB[kind],
        limits.output_bytes,
        len(item.call or b""),
    )
    return head + (item.call or b"") + item.data


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
    last = last_line(facts.stderr)
    if signalled:
        if "bad_alloc" in last:
            return Verdict.MLE, "out of memory (std::bad_alloc)"
        return Verdict.RE, f"killed by {_signal_name(signalled)}"
    code = os.WEXITSTATUS(status)
    if code:
        if last.startswith("MemoryError"):
            return Verdict.MLE, "out of memory (MemoryError)"
        return Verdict.RE, last or f"exit code {code}"
    return Verdict.AC, ""


def last_line(text: bytes) -> str:
    """Last non-empty line of an error text, at most 200 characters."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
