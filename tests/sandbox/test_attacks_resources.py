# ruff: noqa: E501
"""Programs that exhaust, outlive or freeze: the run ends with the right verdict and the judge goes on working."""

from __future__ import annotations

import time

import psutil
import pytest

import sandbox
from sandbox import Limits, TestCase, Verdict

# name -> (program, verdicts that say what happened)
ATTACKS: dict[str, tuple[str, set[Verdict]]] = {
    "fork_bomb": ("import os\nwhile True: os.fork()", {Verdict.RE}),
    "fork_bomb_that_catches": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        {Verdict.TLE},
    ),
    "daemon_by_double_fork": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)",
        {Verdict.RE},
    ),
    "vfork_and_clone_by_number": (
        "import ctypes\nl = ctypes.CDLL(None)\nprint([l.syscall(n, 17, 0, 0, 0, 0) for n in (56, 57, 58)], l.vfork())",
        {Verdict.WA},
    ),
    "clone3": ("import ctypes\nb = bytes(88)\nprint(ctypes.CDLL(None).syscall(435, b, 88))", {Verdict.WA}),
    "thread_bomb": (
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=(60,)).start()",
        {Verdict.RE, Verdict.MLE},
    ),
    "busy_threads": (
        "import threading\ndef f():\n    while True: pass\nfor _ in range(8): threading.Thread(target=f).start()",
        {Verdict.TLE},
    ),
    "threads_go_on_after_main": (
        "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()\nprint(1)",
        {Verdict.TLE},
    ),
    "ignores_every_signal": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        {Verdict.TLE},
    ),
    "stops_itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", {Verdict.ILE}),
    "kills_itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", {Verdict.RE}),
    "kills_itself_by_timer": (
        "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\ntime.sleep(5)",
        {Verdict.RE},
    ),
    "memory_by_files": (
        "i = 0\nwhile True:\n    open(str(i), 'wb').write(b'x' * (16 << 20))\n    i += 1",
        {Verdict.OLE, Verdict.RE, Verdict.TLE},
    ),
    "one_huge_sparse_file": ("f = open('a', 'wb')\nf.truncate(1 << 40)", {Verdict.RE, Verdict.OLE}),
    "fallocate": ("import os\nf = open('a', 'wb')\nos.posix_fallocate(f.fileno(), 0, 1 << 40)", {Verdict.RE, Verdict.OLE}),
    "many_files": ("i = 0\nwhile True:\n    open(str(i), 'w').close()\n    i += 1", {Verdict.OLE, Verdict.TLE}),
    "deep_directories": (
        "import os\nfor _ in range(4096):\n    os.mkdir('d')\n    os.chdir('d')",
        {Verdict.RE},
    ),
    "memory_by_memfd": ("import os\nos.memfd_create('x')", {Verdict.RE}),
    "memory_in_dev_shm": ("open('/dev/shm/x', 'wb').write(b'x' * 1000)", {Verdict.RE}),
    "memory_in_pipes": (
        "import os, fcntl\nwhile True:\n    r, w = os.pipe()\n    os.set_blocking(w, False)\n    os.write(w, b'x' * 65536)",
        {Verdict.RE},
    ),
    "memory_in_stdin_file": ("import os\nf = os.open('/dev/stdin', os.O_RDWR)\nos.ftruncate(f, 1 << 40)", {Verdict.RE, Verdict.OLE}),
    "system_v_shared_memory": ("import ctypes\nprint(ctypes.CDLL(None).shmget(0, 1 << 20, 0o1666))", {Verdict.WA}),
    "one_gigantic_line": ("import os\nos.write(1, b'x' * (30 << 20))\nprint(1)", {Verdict.WA, Verdict.OLE}),
    "slow_drip": (
        "import time\nwhile True:\n    print('x', flush=True)\n    time.sleep(0.01)",
        {Verdict.ILE, Verdict.TLE},
    ),
    "sleeps_and_burns": (
        "import time\nwhile True:\n    time.sleep(0.05)\n    for _ in range(1000): pass",
        {Verdict.ILE, Verdict.TLE},
    ),
    "huge_power_as_text": ("print(10 ** 10 ** 7)", {Verdict.TLE, Verdict.RE}),
    "closes_everything": ("import os\nos.closerange(0, 1000)\nprint(1)", {Verdict.RE, Verdict.WA}),
    "closes_everything_and_waits": ("import os, time\nos.closerange(0, 1000)\ntime.sleep(60)", {Verdict.ILE}),
    "compile_time_power": ("x = 10 ** 10 ** 10\nprint(1)", {Verdict.TLE, Verdict.MLE, Verdict.CE}),
    "deeply_nested_source": ("x = " + "-" * 100_000 + "1\nprint(x)", {Verdict.CE}),
    "deeply_nested_lists": ("x = " + "[" * 90 + "]" * 90 + "\nprint(2)", {Verdict.WA}),
    "fifty_thousand_lines": ("x = 1\n" * 50_000 + "print(2)", {Verdict.WA, Verdict.CE}),
    "raises_priority": ("import os\nos.nice(-5)", {Verdict.RE}),
    "changes_affinity": ("import os\nos.sched_setaffinity(0, {0})", {Verdict.RE}),
    "real_time_scheduling": (
        "import os\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        {Verdict.RE},
    ),
}  # fmt: skip

LIMITS = Limits(cpu_s=0.06, wall_s=20, output_mb=16)  # a wall limit no loaded machine reaches
PATIENCE = Limits(cpu_s=0.06, wall_s=1.0, output_mb=16)  # for programs that wait


@pytest.mark.parametrize("name", ATTACKS)
def test_exhausting_programs_are_ended_and_named(any_level: sandbox.Judge, name: str) -> None:
    code, verdicts = ATTACKS[name]
    judgement = any_level.judge(code, [TestCase("", "1")], limits=PATIENCE if Verdict.ILE in verdicts else LIMITS)
    assert judgement.verdict in verdicts, judgement


def test_the_judge_is_unchanged_after_all_of_them(any_level: sandbox.Judge) -> None:
    # runs after the attacks above: same workers, honest programs, and nothing left of the runs
    for number in range(20):
        judgement = any_level.judge("print(int(input()) + 1)", [TestCase(str(number), str(number + 1))])
        assert judgement.verdict is Verdict.AC, judgement
    listing = any_level.execute("import os\nprint(os.listdir('.'))", [""])[0]
    assert listing.stdout == b"[]\n"
    deadline = time.monotonic() + 20  # the last supervisor may still be on its way out
    while any(len(tree(pid)) > 2 for pid in any_level.worker_pids()):  # the container's first process, the warm one
        assert time.monotonic() < deadline, [tree(pid) for pid in any_level.worker_pids()]
        time.sleep(0.02)


def tree(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
