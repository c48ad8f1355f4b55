"""The warm process that forks a program's runs. One per worker, started by exec, single-threaded.

Order of life: raise the stack limit (needs one re-exec), import what programs import, confine itself, report what
it could enforce, then serve jobs. For each job it forks a supervisor that compiles the program once and forks one
process per test. It never receives expected outputs.
"""

import gc
import json
import os
import resource
import signal
import sys

_STACK = 1 << 30
# Only what many programs import: a fork has to copy the page tables of all of it.
_USUAL = """
abc array bisect builtins cmath collections collections.abc copy enum functools heapq io itertools math operator os
queue random re string struct sys threading time types typing
"""


def _raise_stack_limit() -> None:
    # The main stack's room is fixed at exec: deep recursion needs it large before the interpreter starts.
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = _STACK if hard == resource.RLIM_INFINITY else min(_STACK, hard)
    if soft == wanted or os.environ.get("BOX_STACK"):
        return
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
    os.environ["BOX_STACK"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _join_groups() -> str:
    """Enters the control groups whose doors are named by the second argument; why not, where that fails."""
    failure = ""
    for door in [int(number) for number in sys.argv[2].split(",") if number]:
        try:
            os.write(door, b"0")
        except OSError as error:
            failure = str(error)
        os.close(door)
    return failure


def _import_usual_modules() -> None:
    import importlib
    import warnings

    warnings.simplefilter("ignore")
    for name in _USUAL.split():
        try:
            importlib.import_module(name)
        except ImportError:  # optional parts of the standard library
            continue
    warnings.resetwarnings()
    for category in (SyntaxWarning, DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)


def _resident_after_fork() -> int:
    """KiB resident in a fresh child: what a run's peak holds before the program adds anything."""
    pid = os.fork()  # as a run's process is made
    if pid == 0:
        os._exit(0)
    return os.wait4(pid, 0)[2].ru_maxrss


def main() -> None:
    _raise_stack_limit()
    os.environ.pop("BOX_STACK", None)
    failure = _join_groups()
    _import_usual_modules()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, here)
    import channel
    import confine
    import execute
    import server
    import supervise

    sys.path.remove(here)
    control = int(sys.argv[1])
    os.set_inheritable(control, False)
    line = channel.Channel(control)
    kind, length = line.head()
    if kind != "I":
        raise SystemExit(f"unexpected message {kind!r} at the start")
    setup = json.loads(line.read(length))

    sys.path.append(setup["packages"])

    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # a supervisor waits for it with a time limit
    os.umask(0o077)
    os.makedirs(setup["scratch"], 0o700, exist_ok=True)
    os.chdir(setup["scratch"])
    for limit, value in (
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 128), (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):  # fmt: skip
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    confine.default_thread_stack(16 << 20)
    confine.become_subreaper()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (confine.virtual_kb() * 1024 + supervise.COMPILE_BYTES, hard))
    confine.set_dumpable(0)
    report = {"python": sys.version.split()[0], "landlock_abi": 0, "seccomp": False, "no_group": failure}
    limited = setup["level"] == "limited"
    ruleset = None
    filters = {}
    if not limited:
        confine.drop_capabilities()
        abi = confine.landlock_abi()
        report["landlock_abi"] = abi
        if abi:
            rules = [(path, confine.READ) for path in setup["readable"]]
            rules += [("/dev/null", confine.READ_FILE | confine.WRITE_FILE), (setup["scratch"], confine.SCRATCH)]
            ruleset = (rules, abi)
        confine.no_new_privs()
        if setup["base_filter"]:
            confine.Filter(bytes.fromhex(setup["base_filter"]), ()).load()
            report["seccomp"] = True
            for name in ("python_filter", "native_filter"):
                code, own_pid_at = setup[name]
                filters[name] = confine.Filter(bytes.fromhex(code), own_pid_at)
    execute.compile_program(b"pass")  # the first use makes the types of the syntax tree: once here, not in every run
    served = server.Server(line, setup["scratch"], limited, ruleset, filters, execute.set_stage(1000))
    for name in ("channel", "confine", "dialogue", "execute", "observe", "server", "structures", "supervise"):
        sys.modules.pop(name, None)
    gc.collect()
    gc.freeze()
    gc.disable()
    report["rss_kb"] = _resident_after_fork()
    served.baseline_kb = report["rss_kb"]
    served.baseline_vm_kb = report["vm_kb"] = confine.virtual_kb()
    line.send("R", json.dumps(report).encode())
    try:
        while True:
            kind, length = line.head()
            served.serve(kind, length)
    except (channel.Closed, ConnectionResetError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
