"""Runs one job: a forked supervisor compiles the program once, forks a fresh process per test and watches it.

A job of one test needs no supervisor: the warm process itself forks the run, which compiles its program, already
confined, and is watched from here.

The supervisor reads one test at a time, straight into a file that becomes the run's standard input, so that a run
never finds another test's input in its memory. It reports facts (exit status, CPU, memory, bytes written); what
they mean is decided by the controller.
"""

import _signal
import json
import os
import resource
import struct
import time

import confine
import dialogue
import execute
import observe
from channel import ABORTED, CPU, DISK, FINISHED, OUTPUT, RESULT, TEST, UNSTARTED, WALL

_ERROR_TAIL = 8192
_TICK = 0.02
_FIRST_TICK = 0.01
_ENDS = (_signal.SIGCHLD,)
_COMPILE_CPU_S = 20
COMPILE_BYTES = 1 << 30
_COMPILE_KB = COMPILE_BYTES >> 10
_STREAMS = ("stdin", "stdout", "stderr")
_MANAGED_STACK = 256 << 20
_MANAGED_DATA = 4 << 30
_COMPILE_LEFTOVER_KB = 4096
# How far a run has come, in the first byte it shares with its watcher; the program finds that page unmapped.
_NOT_SET_UP, _BEGUN, _REFUSED, _COMPILING = range(4)
_AT_BEGIN = struct.Struct("<dQd")  # what getting there took: CPU seconds, peak KiB of compiling; and the time
_begin = _AT_BEGIN.pack_into


class Supervisor:
    """Runs the tests of one program. `source_fd` is set where each run compiles the program itself."""

    def __init__(self, server, kind: bytes) -> None:
        self.server = server
        self.line = server.line
        self.pid = os.getpid()
        self.native = kind == b"N"
        self.job: dict = {}
        self.source = b""
        self.source_fd = -1
        self.program = None
        self.ruleset = server.ruleset
        self.begun = server.begun
        self.baseline_kb = server.baseline_kb

    def take(self, length: int) -> None:
        """Takes a program in without leaving a copy of it in this process, which will fork other programs' runs."""
        if self.native:
            self.job = json.loads(self.line.read(length))
            self._open_binary()
        else:
            self.source_fd = os.memfd_create("source", os.MFD_CLOEXEC)
            self.line.read_into_file(length, self.source_fd)

    def forget(self) -> None:
        if self.source_fd >= 0:
            os.close(self.source_fd)
        if self.ruleset is not None and self.ruleset != self.server.ruleset:
            os.close(self.ruleset)

    def run(self, body: bytes) -> None:
        confine.die_with_parent(self.server.pid)
        if self.native:
            self.job = json.loads(body)
            self._open_binary()
        else:
            self.source = body
            if not self._compile():
                self._refuse_until_end()
                return
        while True:
            kind, length = self.line.head()
            if kind == "T":
                self.test(length)
            elif kind == "E":
                return
            elif kind != "A":  # an abort that came after the run had ended
                raise SystemExit(f"unexpected message {kind!r}")

    def _open_binary(self) -> None:
        self.ruleset = self.server.ruleset_for(self.job)

    def _compile(self) -> bool:
        soft_cpu, hard_cpu = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (_COMPILE_CPU_S, hard_cpu))
        try:
            self.program = execute.compile_program(self.source)
            execute.remember_source(self.source)
        except BaseException as error:
            self.line.send("C", execute.describe(error).encode("utf-8", "replace")[:4096])
            return False
        finally:
            resource.setrlimit(resource.RLIMIT_CPU, (soft_cpu, hard_cpu))
        self._discount(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return True

    def _discount(self, peak_kb: int) -> None:
        """What compiling left behind is not the program's memory."""
        if peak_kb - self.server.baseline_kb > _COMPILE_LEFTOVER_KB:
            self.baseline_kb = peak_kb

    def _refuse_until_end(self) -> None:
        while True:
            kind, length = self.line.head()
            self.line.read(length)
            if kind == "E":
                return

    def test(self, length: int) -> None:
        cpu_us, wall_us, memory_kb, slack_kb, output, head = TEST.unpack(self.line.read(TEST.size))
        options = json.loads(self.line.read(head)) if head else {}
        if "interactor" in options:
            limits = (cpu_us, wall_us, memory_kb, slack_kb, output)
            dialogue.Dialogue(self, limits, options).run()
            return
        call, collect = options.get("call"), options.get("collect")
        length -= TEST.size + head
        files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in _STREAMS]
        if call is not None:
            files.append(os.memfd_create("value", os.MFD_CLOEXEC))
        try:
            self.begun[0] = _NOT_SET_UP
            for name, size in options.get("files", ()):
                self._place(name, size)
                length -= size
            self.line.read_into_file(length, files[0])
            os.lseek(files[0], 0, os.SEEK_SET)
            bounds = self.bounds(cpu_us, memory_kb, slack_kb, output)
            started = time.monotonic()
            pid = confine.fork()
            if pid == 0:
                try:
                    self.become(files, bounds)
                    self.go(call, options.get("arguments", ()))
                except BaseException as error:
                    os.write(2, f"{type(error).__name__}: {error}".encode())
                finally:
                    os._exit(72)
            reason, status, usage = self._watch(pid, started, cpu_us, wall_us, memory_kb, files[1], output)
            ended = time.monotonic()
            if self.server.limited:
                self.server.sweep()
            if collect:
                files += observe.left_behind(collect)
            if observe.clear_scratch() and reason == FINISHED:
                reason = DISK
            state = self.begun[0]
            if state in (_REFUSED, _COMPILING) and reason != ABORTED:
                self._report_refusal(files[2], state, status)
                return
            before, _, begun = _AT_BEGIN.unpack_from(self.begun, 8) if state else (0.0, 0, started)
            if reason == FINISHED and not state:
                reason = UNSTARTED
            cpu = max(0, int(1e6 * (usage.ru_utime + usage.ru_stime - before)))
            peak = max(0, usage.ru_maxrss - (0 if self.native else self.baseline_kb))
            self._report(files, (reason, status, cpu, int(1e6 * (ended - begun)), peak), output)
        finally:
            for fd in files:
                os.close(fd)

    def _place(self, name: str, size: int) -> None:
        """Puts the next `size` bytes of the message into a file of the working directory."""
        if name.endswith("/"):
            os.mkdir(name, 0o700)
            return
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.line.read_into_file(size, fd)
        finally:
            os.close(fd)

    def bounds(self, cpu_us: int, memory_kb: int, slack_kb: int, output: int):
        """(ruleset, resource limits, filter) of a run, worked out before the fork: there it costs no copied page."""
        server = self.server
        seconds = cpu_us // 1_000_000 + 2  # a backstop: the watcher ends it before
        if self.source_fd >= 0:
            seconds += _COMPILE_CPU_S
        limits = [(resource.RLIMIT_CPU, (seconds, seconds + 1)), (resource.RLIMIT_FSIZE, (output, output))]
        if self.native:  # also the size of each thread's stack, where the program sets none
            hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
            stack = min(memory_kb * 1024, 1 << 30) if slack_kb else _MANAGED_STACK
            limits.append((resource.RLIMIT_STACK, (stack if hard < 0 else min(stack, hard), hard)))
        if slack_kb:
            address = (server.baseline_vm_kb + memory_kb + slack_kb) * 1024
            limits.append((resource.RLIMIT_AS, (address, address)))
        else:  # reserved address space is no memory; what is made writable may become some
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            data = (memory_kb << 10) + _MANAGED_DATA
            limits += [(resource.RLIMIT_AS, (hard, hard)), (resource.RLIMIT_DATA, (data, data))]
        return self.ruleset, limits, server.filters.get("native_filter" if self.native else "python_filter")

    # in the run's process

    def become(self, files, bounds) -> None:
        if self.source_fd >= 0:
            self.source = os.pread(self.source_fd, os.lseek(self.source_fd, 0, os.SEEK_END), 0)
        if self.server.limited:  # elsewhere nothing can signal a group, and a terminal is not to be had
            os.setsid()
        confine.enter(self.pid, files, *bounds)

    def go(self, call, arguments=()) -> None:
        begun, peak_kb = self.begun, 0
        if self.source_fd >= 0:
            begun[0] = _COMPILING
            try:
                self.program = execute.compile_program(self.source)
            except BaseException as error:
                os.write(2, execute.describe(error).encode("utf-8", "replace")[:_ERROR_TAIL])
                begun[0] = _REFUSED
                return
            execute.remember_source(self.source)
            peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _begin(begun, 8, time.thread_time(), peak_kb, time.monotonic())
        begun[0] = _BEGUN
        if self.native:
            try:
                execute.run_binary(self.job, arguments)
            finally:
                begun[0] = _NOT_SET_UP  # only reached when the binary could not be started
        begun.close()
        program, stage = self.program, self.server.stage
        # nothing of the harness stays reachable by name from here on
        self.__dict__.clear()
        execute.run_program(program, stage, call, arguments)

    # in the supervisor

    def _watch(self, pid: int, started: float, cpu_us: int, wall_us: int, memory_kb: int, printed: int, output: int):
        """(reason, wait status, resource usage) once the run is over, by itself or by force."""
        clock = ((~pid) << 3) | 2  # the kernel's number of that process's CPU clock
        cpu_limit, wall_limit = cpu_us / 1e6, wall_us / 1e6
        reason, ticks, beat = FINISHED, 0, started
        compiling = self.source_fd >= 0
        try:
            while True:
                # its end wakes us, for SIGCHLD is blocked; so does the news of a child that was stopped
                if _signal.sigtimedwait(_ENDS, _TICK if ticks else _FIRST_TICK) is not None:
                    ended, status, usage = os.wait4(pid, os.WNOHANG)
                    if ended:
                        return reason, status, usage
                ticks += 1
                now = time.monotonic()
                if compiling and self.begun[0] == _BEGUN:
                    compiling = False
                    spent, peak_kb, started = _AT_BEGIN.unpack_from(self.begun, 8)
                    cpu_limit += spent
                    self._discount(peak_kb)
                if self.server.line_poller.poll(0) and self.abort_asked():
                    reason = ABORTED
                elif time.clock_gettime(clock) > (_COMPILE_CPU_S if compiling else cpu_limit):
                    reason = CPU
                elif now - started > wall_limit and not compiling and observe.idle(pid, now - started, wall_limit):
                    reason = WALL
                elif os.fstat(printed).st_size >= output:  # runtimes that ignore the signal go on for ever
                    reason = OUTPUT
                else:
                    reason = (
                        observe.usage(pid, self.baseline_kb + (_COMPILE_KB if compiling else memory_kb))
                        or (ticks % 10 == 0 and observe.crowded())
                        or FINISHED
                    )
                if reason != FINISHED:
                    os.kill(pid, _signal.SIGKILL)
                    _, status, usage = os.wait4(pid, 0)
                    return reason, status, usage
                if now - beat > 1:
                    self.line.send("H")
                    beat = now
        except BaseException:  # the controller has gone
            os.kill(pid, _signal.SIGKILL)
            raise

    def abort_asked(self) -> bool:
        kind, length = self.line.head()
        if kind != "A" or length:
            raise SystemExit(f"unexpected message {kind!r} during a run")
        return True

    def _report_refusal(self, errors: int, state: int, status: int) -> None:
        message = os.pread(errors, _ERROR_TAIL, 0)
        if state == _COMPILING:
            signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            message = f"the compiler was killed by signal {signal_number}".encode()
        self.line.send("C", message)

    def _report(self, files, facts, output: int) -> None:
        size = min(os.lseek(files[1], 0, os.SEEK_END), output)
        error_size = os.lseek(files[2], 0, os.SEEK_END)
        errors = min(error_size, _ERROR_TAIL)
        parts = [(files[2], error_size - errors, errors)] if errors else []
        value = 0
        if len(files) > 3:
            value = min(os.lseek(files[3], 0, os.SEEK_END), output)
            parts.append((files[3], 0, value))
        parts.append((files[1], 0, size))
        self.line.send_files("D", RESULT.pack(*facts, errors, value, size), parts)
