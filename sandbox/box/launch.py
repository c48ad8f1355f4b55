"""Runs the command in the JSON on its command line, confined as asked there, and stays to see its end.

Used for compilers, which need to start processes of their own and so cannot run inside a worker. The second argument is
a descriptor at whose end of file, which the controller's end brings about, the command and all it started are killed;
further ones are doors of control groups to enter.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys

_TICK_S = 0.05


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import confine

    setup = json.loads(sys.argv[1])
    controller = int(sys.argv[2])
    os.set_inheritable(controller, False)
    for door in map(int, sys.argv[3:]):
        with contextlib.suppress(OSError):  # without those limits then
            os.write(door, b"0")
        os.close(door)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        become(confine, setup)
    status = watch(pid, controller)
    # as a shell says it: the first process of a container cannot end by a signal
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def watch(pid: int, controller: int) -> int:
    """The command's wait status once it has ended; never returns when the controller ends before."""
    poller = select.poll()
    poller.register(controller, select.POLLIN)
    while True:
        signal.sigtimedwait([signal.SIGCHLD], _TICK_S)
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)  # also those it leaves to the first of a container
            except ChildProcessError:
                os._exit(1)
            if ended == pid:
                return status
            if not ended:
                break
        if poller.poll(0):
            os.killpg(0, signal.SIGKILL)  # this process too, unless it is a container's first: its end ends that
            os._exit(1)


def become(confine, setup) -> None:
    os.chdir(setup["directory"])
    for name, value in setup["limits"].items():
        limit = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # the CPU limit's signal must differ from a kill by others
        resource.setrlimit(limit, (value - 1 if name == "CPU" else value, value))
    if setup["level"] != "limited":
        confine.drop_capabilities()
        confine.no_new_privs()
        abi = confine.landlock_abi()
        if abi:
            rules = [(path, confine.READ | confine.EXECUTE) for path in setup["readable"]]
            rules.append(("/dev/null", confine.READ_FILE | confine.WRITE_FILE))
            rules.append((setup["directory"], confine.BUILD if setup["directories"] else confine.SCRATCH))
            confine.landlock_restrict(confine.landlock_ruleset(rules, abi))
        if setup["filter"]:
            confine.Filter(bytes.fromhex(setup["filter"]), ()).load()
    os.execve(setup["command"][0], setup["command"], setup["environment"])


if __name__ == "__main__":
    main()
