"""One run of an interactive problem: the program and the problem's interactor, joined by two pipes.

Both are children of the supervisor and confined alike; the interactor's input and answer are descriptors of its own,
its notes lie in a directory the program has no right to. The supervisor holds both ends of both pipes and lets a
pipe end only after it has seen the end of the process behind it. So neither side can notice the other's end before
the supervisor has, and who ended first is known for certain.
"""

import json
import os
import resource
import select
import signal
import time

import confine
import execute
import observe
from channel import ABORTED, CPU, FINISHED, MEMORY, OUTPUT, RESULT, UNSTARTED, WALL

_TICK = 0.02
_TAIL = 2048
_READ = 65536
_LIMIT = {CPU: "CPU time limit", MEMORY: "memory limit", WALL: "wall time limit"}


class Side:
    """One of the two processes: its descriptors, what ended it and when it began."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.handle = os.pidfd_open(pid)
        self.clock = ((~pid) << 3) | 2
        self.reason = FINISHED
        self.status = 0
        self.usage: resource.struct_rusage | None = None
        self.cpu = 0.0

    @property
    def alive(self) -> bool:
        return self.usage is None

    def spent(self) -> float:
        """CPU seconds so far."""
        if self.alive:
            try:
                self.cpu = time.clock_gettime(self.clock)
            except OSError:
                return self.cpu
        return self.cpu

    def kill(self, reason: int) -> None:
        if self.alive:
            self.reason = reason
            os.kill(self.pid, signal.SIGKILL)
            self.reap()

    def reap(self) -> None:
        _, self.status, self.usage = os.wait4(self.pid, 0)
        self.cpu = self.usage.ru_utime + self.usage.ru_stime


class Dialogue:
    def __init__(self, supervisor, limits, options) -> None:
        self.supervisor = supervisor
        self.server = supervisor.server
        self.line = supervisor.line
        self.cpu_us, self.wall_us, self.memory_kb, self.slack_kb, self.output = limits
        self.options = options
        self.interactor = options["interactor"]
        self.first = ""
        self.drained = 0
        self.open: set = set()

    def run(self) -> None:
        try:
            files = {name: self._memory_file(name, size) for name, size in self.options["files"]}
            errors = [self._memory_file("stderr", 0), self._memory_file("stderr", 0)]
            to_program, to_interactor = self._pipe(), self._pipe()
            os.mkdir(self.server.desk, 0o700)
            self.server.begun[0] = 0
            started = time.monotonic()
            program = Side(self._start(self._be_program, [to_program[0], to_interactor[1], errors[0]]))
            own = [to_interactor[0], to_program[1], errors[1], *files.values()]
            interactor = Side(self._start(self._be_interactor, own))
            self._follow(program, interactor, to_program, to_interactor, started)
            wall = time.monotonic() - started
            if self.server.limited:
                self.server.sweep()
            observe.clear_scratch()
            self._report(program, interactor, errors, wall)
        finally:
            for fd in self.open:
                os.close(fd)
            observe.remove_tree(self.server.desk)

    def _memory_file(self, name: str, size: int) -> int:
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        self.open.add(fd)
        self.line.read_into_file(size, fd)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _pipe(self):
        ends = os.pipe2(os.O_CLOEXEC)
        self.open.update(ends)
        return ends

    def _close(self, fd: int) -> None:
        if fd in self.open:
            self.open.remove(fd)
            os.close(fd)

    def _start(self, become, files) -> int:
        pid = confine.fork()
        if pid == 0:
            try:
                become(files)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(72)
        return pid

    def _be_program(self, files) -> None:
        supervisor = self.supervisor
        supervisor.become(files, supervisor.bounds(self.cpu_us, self.memory_kb, self.slack_kb, self.output))
        self.__dict__.clear()
        supervisor.go(None)

    def _be_interactor(self, files) -> None:
        supervisor, server, interactor = self.supervisor, self.server, self.interactor
        cpu_us, _, memory_kb, slack_kb, output = interactor["limits"]
        command = interactor["command"] if interactor["native"] else None
        supervisor.native = interactor["native"]
        supervisor.ruleset = server.ruleset_for(command, server.desk)
        names = [name for name, _ in self.options["files"]]
        places = {name: f"/proc/self/fd/{3 + position}" for position, name in enumerate(names)}
        places["notes"] = server.desk
        arguments = [argument.format_map(places) for argument in interactor["arguments"]]
        os.chdir(server.desk)
        supervisor.become(files, supervisor.bounds(cpu_us, memory_kb, slack_kb, output))
        if command is not None:
            execute.run_binary(command, arguments, keep_sigpipe_ignored=True)
        with open(3 + names.index("source"), "rb", closefd=False) as file:
            source = file.read()
        program = execute.compile_program(source)
        execute.run_program(program, server.stage, None, arguments)

    def _follow(self, program: Side, interactor: Side, to_program, to_interactor, started: float) -> None:
        """Watches both to their ends."""
        cpu_us, wall_us, memory_kb = self.interactor["limits"][:3]
        sides = {program.handle: program, interactor.handle: interactor}
        self.open.update(sides)
        poller = select.poll()
        for fd in (*sides, self.line.fd):
            poller.register(fd, select.POLLIN)
        drain = to_interactor[0]
        ended = beat = started
        try:
            while program.alive or interactor.alive:
                events = [fd for fd, _ in poller.poll(1000 * _TICK)]
                if self.line.fd in events and self.supervisor.abort_asked():
                    program.kill(ABORTED)
                    interactor.kill(ABORTED)
                    return
                for fd in events:
                    if fd in sides:
                        sides[fd].reap()
                        poller.unregister(fd)
                        self.first = self.first or ("program" if fd == program.handle else "interactor")
                if drain in events:
                    self.drained += self._drain(drain, poller)
                if to_program[0] in events:
                    self._drain(to_program[0], poller)
                now = time.monotonic()
                if program.alive:
                    self._hold(program, interactor, now - started)
                if interactor.alive:
                    if interactor.spent() > cpu_us / 1e6:
                        interactor.kill(CPU)
                    elif not program.alive and now - ended > wall_us / 1e6:
                        interactor.kill(WALL)
                    else:
                        reason = observe.usage(interactor.pid, memory_kb + self.supervisor.baseline_kb)
                        if reason:
                            interactor.kill(reason)
                    if not interactor.alive:
                        poller.unregister(interactor.handle)
                        self.first = self.first or "interactor"
                if not program.alive and to_interactor[1] in self.open:
                    ended = now
                    self._close(to_interactor[1])
                    self._let_run_off(to_program[0], poller)
                if not interactor.alive and to_program[1] in self.open:
                    self._close(to_program[1])
                    if program.alive:
                        if not _accepted(interactor.status) or interactor.reason != FINISHED:
                            program.kill(ABORTED)  # nothing it does can change the verdict
                        else:
                            self._let_run_off(drain, poller)
                if now - beat > 1:
                    self.line.send("H")
                    beat = now
        finally:
            program.kill(ABORTED)
            interactor.kill(ABORTED)

    def _hold(self, program: Side, interactor: Side, wall: float) -> None:
        """Ends the program where it has broken a limit."""
        reason = FINISHED
        limit = self.wall_us / 1e6
        if program.spent() > self.cpu_us / 1e6:
            reason = CPU
        # waiting for an interactor that computes is not idleness
        elif wall > limit and observe.idle(program.pid, wall - interactor.spent(), limit):
            reason = WALL
        else:
            reason = observe.usage(program.pid, self.memory_kb + self.supervisor.baseline_kb) or observe.crowded()
        if self.drained > self.output:
            reason = OUTPUT
        if reason != FINISHED:
            program.kill(reason)
            self.first = self.first or "program"
            interactor.kill(ABORTED)

    def _let_run_off(self, fd: int, poller) -> None:
        """What is still said to a side that has ended goes nowhere, so that the other is not killed for saying it."""
        os.set_blocking(fd, False)
        poller.register(fd, select.POLLIN)

    def _drain(self, fd: int, poller) -> int:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return 0
        if not data:
            poller.unregister(fd)
        return len(data)

    def _report(self, program: Side, interactor: Side, errors, wall: float) -> None:
        reason = program.reason
        status = program.status
        if reason == ABORTED and interactor.reason != ABORTED:  # ended because the interactor had decided
            reason, status = FINISHED, 0
        if reason == FINISHED and self.server.begun[0] == 0 and program.reason == FINISHED:
            reason = UNSTARTED
        usage = program.usage
        assert usage is not None
        cpu = int(1e6 * (usage.ru_utime + usage.ru_stime))
        peak = max(0, usage.ru_maxrss - (0 if self.supervisor.native else self.server.baseline_kb))
        tail, words = _tail(errors[0]), _tail(errors[1])
        exited = os.WIFEXITED(interactor.status)
        answer = {
            "first": self.first,
            "code": os.WEXITSTATUS(interactor.status) if exited and interactor.reason == FINISHED else None,
            "reason": _LIMIT.get(interactor.reason, ""),
            "signal": os.WTERMSIG(interactor.status) if os.WIFSIGNALED(interactor.status) else 0,
            "stderr": words.decode("utf-8", "replace"),
        }
        value = json.dumps(answer).encode()
        head = RESULT.pack(reason, status, cpu, int(1e6 * wall), peak, len(tail), len(value), 0)
        self.line.send("D", head + tail + value)


def _accepted(status: int) -> bool:
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) in (0, 42)


def _tail(fd: int) -> bytes:
    return os.pread(fd, _TAIL, max(0, os.fstat(fd).st_size - _TAIL))
