"""What the warm process serves: one job after the other, each by a supervisor."""

import mmap
import os
import select
import signal
import struct

import confine
from channel import LENGTH, Closed
from supervise import Supervisor


class Server:
    def __init__(self, line, scratch, limited, landlock, filters, stage) -> None:
        self.line = line
        self.line_poller = select.poll()
        self.line_poller.register(line.fd, select.POLLIN)
        self.pid = os.getpid()
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
        if kind == "S":
            self._serve_single(length)
            return
        if kind == "A" and not length:  # an abort that came after the run had ended
            return
        if kind != "J":
            raise SystemExit(f"unexpected message {kind!r} between jobs")
        pid = confine.fork()
        if pid == 0:
            code = 71
            try:
                # the program is read here: what this process's parent once held, every later run could find
                supervisor = Supervisor(self, self.line.read(1))
                supervisor.run(self.line.read(length - 1))
                code = 0
            except (Closed, ConnectionError):
                code = 0  # the controller has gone
            except BaseException as error:
                os.write(2, f"supervisor: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        self.sweep()
        if status:
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                raise SystemExit("supervisor killed")  # mid-message perhaps: the controller starts a new worker
            self.line.send("X", struct.pack("<i", status))
            raise SystemExit  # what was meant for the dead one is still on its way: the controller starts a new worker

    def _serve_single(self, length: int) -> None:
        (size,) = LENGTH.unpack(self.line.read(LENGTH.size))
        supervisor = Supervisor(self, self.line.read(1))
        try:
            supervisor.take(size - 1)
            supervisor.test(length - LENGTH.size - size)
        finally:
            supervisor.forget()

    def sweep(self) -> None:
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
