"""Runs one job: a forked supervisor compiles the program once, forks a fresh process per test and watches it.

The supervisor reads one test at a time, straight into a file that becomes the run's standard input, so that a run
never finds another test's input in its memory. It reports facts (exit status, CPU, memory, bytes written); what
they mean is decided by the controller.
"""

import json
import mmap
import os
import resource
import select
import signal
import stat
import struct
import time

import confine
import dialogue
import execute
from channel import ABORTED, CPU, DISK, FINISHED, MEMORY, OUTPUT, RESULT, TEST, THREADS, UNSTARTED, WALL, Closed

_ERROR_TAIL = 8192
_TICK = 0.02
_MAX_THREADS = 256
_MAX_FILES = 1000
_COMPILE_CPU_S = 20
COMPILE_BYTES = 1 << 30
_MANAGED_STACK = 256 << 20
_MANAGED_DATA = 4 << 30
_COMPILE_LEFTOVER_KB = 4096
_PAGE_KB = resource.getpagesize() // 1024


class Server:
    def __init__(self, line, scratch, limited, landlock, filters, stage) -> None:
        self.line = line
        self.scratch = scratch
        self.limited = limited
        self.filters = filters
        self.stage = stage
        self.baseline_kb = 0  # resident in a fresh run
        self.desk = os.path.join(os.path.dirname(scratch), "desk")  # what only an interactor may write into
        self.begun = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the runs: whether the program's own code was reached
        self.baseline_vm_kb = 0
        self._landlock = landlock
        self.ruleset = None
        if landlock:
            self.ruleset = confine.landlock_ruleset(*landlock)

    def ruleset_for(self, command, writable: str = ""):
        """Landlock ruleset of a binary: what Python programs may touch and the binary's own files; None without.

        `writable` stands in for the scratch directory.
        """
        if not self._landlock:
            return None
        rules, abi = self._landlock
        if writable:
            rules = [rule for rule in rules if rule[0] != self.scratch] + [(writable, confine.SCRATCH)]
        if command:
            rules = [*rules, (command["path"], confine.EXECUTE | confine.READ_FILE)]
            rules += [(path, confine.EXECUTE | confine.READ) for path in command["libraries"]]
        return confine.landlock_ruleset(rules, abi)

    def serve(self, kind: str, length: int) -> None:
        body = self.line.read(length)
        if kind != "J":
            raise SystemExit(f"unexpected message {kind!r} between jobs")
        pid = confine.fork()
        if pid == 0:
            code = 71
            try:
                Supervisor(self, body).run()
                code = 0
            except (Closed, ConnectionError):
                code = 0  # the controller has gone
            except BaseException as error:
                os.write(2, f"supervisor: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        self._sweep()
        if status:
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                raise SystemExit("supervisor killed")  # mid-message perhaps: the controller starts a new worker
            self.line.send("X", struct.pack("<i", status))

    def _sweep(self) -> None:
        """Kills what outlived the run; only possible without seccomp, where programs can fork."""
        while self.limited:
            try:
                with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listing:
                    children = [int(pid) for pid in listing.read().split()]
            except FileNotFoundError:
                return
            if not children:
                return
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            for pid in children:
                os.waitpid(pid, 0)


class Supervisor:
    def __init__(self, server: Server, body: bytes) -> None:
        self.server = server
        self.line = server.line
        self.native = body[:1] == b"N"
        self.job = json.loads(body[1:]) if self.native else {}
        self.source = body[1:]
        self.program = None
        self.ruleset = server.ruleset
        self.begun = server.begun

    def run(self) -> None:
        confine.die_with_parent()
        if self.native:
            self._open_binary()
        elif not self._compile():
            self._refuse_until_end()
            return
        while True:
            kind, length = self.line.head()
            if kind == "T":
                self._test(length)
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
        # what compiling left behind is not the program's memory
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.server.baseline_kb
        if grown > _COMPILE_LEFTOVER_KB:
            self.server.baseline_kb += grown
        return True

    def _refuse_until_end(self) -> None:
        while True:
            kind, length = self.line.head()
            self.line.read(length)
            if kind == "E":
                return

    def _test(self, length: int) -> None:
        cpu_us, wall_us, memory_kb, slack_kb, output, head = TEST.unpack(self.line.read(TEST.size))
        options = json.loads(self.line.read(head)) if head else {}
        if "interactor" in options:
            limits = (cpu_us, wall_us, memory_kb, slack_kb, output)
            dialogue.Dialogue(self, limits, options).run()
            return
        call, collect = options.get("call"), options.get("collect")
        length -= TEST.size + head
        files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
        if call is not None:
            files.append(os.memfd_create("value", os.MFD_CLOEXEC))
        try:
            self.begun[0] = 0
            for name, size in options.get("files", ()):
                self._place(name, size)
                length -= size
            self.line.read_into_file(length, files[0])
            os.lseek(files[0], 0, os.SEEK_SET)
            started = time.monotonic()
            pid = confine.fork()
            if pid == 0:
                try:
                    self.become(files, cpu_us, memory_kb, slack_kb, output)
                    self.go(call, options.get("arguments", ()))
                except BaseException as error:
                    os.write(2, f"{type(error).__name__}: {error}".encode())
                finally:
                    os._exit(72)
            reason, status, usage = self._watch(pid, started, cpu_us, wall_us, memory_kb, files[1], output)
            wall = time.monotonic() - started
            if reason == FINISHED and self.begun[0] == 0:
                reason = UNSTARTED
            if self.server.limited:
                self.server._sweep()
            value = _content(collect, output) if collect else b""
            if self.clear_scratch() and reason == FINISHED:
                reason = DISK
            self._report(files, reason, status, usage, wall, output, value)
        finally:
            for fd in files:
                os.close(fd)

    # in the run's process

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

    def become(self, files, cpu_us: int, memory_kb: int, slack_kb: int, output: int) -> None:
        confine.die_with_parent()
        os.setsid()
        if self.ruleset is not None:  # before its descriptor may be overwritten
            confine.landlock_restrict(self.ruleset)
        for target, fd in enumerate(files):
            os.dup2(fd, target)
        seconds = cpu_us // 1_000_000 + 2
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
        if self.native:  # also the size of each thread's stack, where the program sets none
            hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
            stack = min(memory_kb * 1024, 1 << 30) if slack_kb else _MANAGED_STACK
            resource.setrlimit(resource.RLIMIT_STACK, (stack if hard < 0 else min(stack, hard), hard))
        if slack_kb:
            address = (self.server.baseline_vm_kb + memory_kb + slack_kb) * 1024
            resource.setrlimit(resource.RLIMIT_AS, (address, address))
        else:  # reserved address space is no memory; what is made writable may become some
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            data = (memory_kb << 10) + _MANAGED_DATA
            resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        os.closerange(len(files), 65536)
        confine.set_dumpable(1)
        name = "native_filter" if self.native else "python_filter"
        if name in self.server.filters:
            self.server.filters[name].load()

    def go(self, call, arguments=()) -> None:
        self.begun[0] = 1
        if self.native:
            try:
                execute.run_binary(self.job, arguments)
            finally:
                self.begun[0] = 0  # only reached when the binary could not be started
        self.begun.close()
        program, stage = self.program, self.server.stage
        # nothing of the harness stays reachable by name from here on
        self.__dict__.clear()
        execute.run_program(program, stage, call, arguments)

    # in the supervisor

    def _watch(self, pid: int, started: float, cpu_us: int, wall_us: int, memory_kb: int, printed: int, output: int):
        """(reason, wait status, resource usage) once the run is over, by itself or by force."""
        clock = ((~pid) << 3) | 2  # the kernel's number of that process's CPU clock
        cpu_limit, wall_limit = cpu_us / 1e6, wall_us / 1e6
        handle = os.pidfd_open(pid)
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        poller.register(self.line.fd, select.POLLIN)
        reason, ticks, beat = FINISHED, 0, started
        try:
            while True:
                events = poller.poll(10 if ticks == 0 else 1000 * _TICK)
                if any(fd == handle for fd, _ in events):
                    break
                if events and self.abort_asked():
                    reason = ABORTED
                    break
                ticks += 1
                now = time.monotonic()
                if time.clock_gettime(clock) > cpu_limit:
                    reason = CPU
                elif now - started > wall_limit and self.idle(pid, now - started, wall_limit):
                    reason = WALL
                elif os.fstat(printed).st_size >= output:  # runtimes that ignore the signal go on for ever
                    reason = OUTPUT
                else:
                    reason = self.usage(pid, memory_kb) or (ticks % 10 == 0 and self.crowded()) or FINISHED
                if reason != FINISHED:
                    break
                if now - beat > 1:
                    self.line.send("H")
                    beat = now
        finally:
            os.close(handle)
            if reason != FINISHED:
                os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
        return reason, status, usage

    def abort_asked(self) -> bool:
        kind, length = self.line.head()
        if kind != "A" or length:
            raise SystemExit(f"unexpected message {kind!r} during a run")
        return True

    def idle(self, pid: int, wall: float, wall_limit: float) -> bool:
        """Whether the wall limit is used up by the run itself; a crowded machine is given patience, not for ever."""
        return wall > 4 * wall_limit or wall - self._waited(pid) > wall_limit

    @staticmethod
    def _waited(pid: int) -> float:
        """Seconds the run's threads stood ready while other processes had the CPU: not idleness of theirs."""
        total = 0
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as line:
                    total += int(line.read().split()[1])
        except (OSError, IndexError):
            return 0.0
        return total / 1e9

    def usage(self, pid: int, memory_kb: int) -> int:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as line:
                fields = line.read().rpartition(b")")[2].split()
        except OSError:
            return FINISHED
        if int(fields[21]) * _PAGE_KB > memory_kb + self.server.baseline_kb:
            return MEMORY
        return THREADS if int(fields[17]) > _MAX_THREADS else FINISHED

    def crowded(self) -> int:
        """DISK when the scratch directory holds more than a program may write."""
        count = total = 0
        with os.scandir(".") as entries:
            for entry in entries:
                count += 1
                if count > _MAX_FILES:
                    return DISK
                total += entry.stat(follow_symlinks=False).st_size
        return DISK if total > 256 << 20 else FINISHED

    def clear_scratch(self) -> bool:
        count = 0
        with os.scandir(".") as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    _remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        return count > _MAX_FILES

    def _report(self, files, reason, status, usage, wall, output, value) -> None:
        size = min(os.fstat(files[1]).st_size, output)
        error_size = os.fstat(files[2]).st_size
        tail = os.pread(files[2], _ERROR_TAIL, max(0, error_size - _ERROR_TAIL))
        if len(files) > 3:
            value = os.pread(files[3], min(os.fstat(files[3]).st_size, output), 0)
        cpu = int(1e6 * (usage.ru_utime + usage.ru_stime))
        peak = max(0, usage.ru_maxrss - (0 if self.native else self.server.baseline_kb))
        head = RESULT.pack(reason, status, cpu, int(1e6 * wall), peak, len(tail), len(value), size)
        self.line.send_with_file("D", head + tail + value, files[1], size)


def _content(name: str, limit: int) -> bytes:
    """First `limit` bytes of a file the run may have left; empty where it left no plain file."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        parts, left = [], limit
        while left:
            part = file.read(min(left, 1 << 20))
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _remove_tree(path: str) -> None:
    import shutil  # only without Landlock can a program make directories

    shutil.rmtree(path, ignore_errors=True)
