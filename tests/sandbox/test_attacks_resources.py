# ruff: noqa: E501
"""Attacks 1 to 30: programs that exhaust, outlive or freeze. The run ends with the right verdict, the judge goes on."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from attack_numbers import attack, numbered

import sandbox
from sandbox import Limits, TestCase, Verdict

NUMBERS = {
    1: "fork_bomb fork_bomb_that_catches",
    2: "daemon_by_double_fork",
    3: "vfork_and_clone_by_number clone3",
    4: "thread_bomb",
    5: "busy_threads",
    6: "threads_go_on_after_main",
    7: "sleeps stops_itself waits_for_a_lock",
    8: "busy_loop compile_time_power",
    9: "sleeps_and_burns",
    10: "ignores_every_signal kills_itself kills_itself_by_timer",
    11: "three_gibibytes",
    12: "grows_page_by_page grows_by_mapping",
    13: "memory_by_memfd memory_in_dev_shm memory_in_stdin_file",
    14: "memory_in_pipes memory_in_socket_buffers",
    15: "system_v_shared_memory message_queue",
    16: "memory_by_files one_huge_sparse_file fallocate",
    17: "many_files deep_directories",
    18: "output_flood output_flood_by_calls output_by_truncation",
    19: "error_flood",
    20: "one_gigantic_line",
    22: "slow_drip",
    23: "huge_power huge_power_as_text digits_beyond_the_default",
    24: "backtracking_expression",
    25: "unbounded_recursion deeply_nested_source deeply_nested_lists fifty_thousand_lines",
    26: "segmentation_fault bus_error",
    27: "core_dump",
    29: "raises_priority changes_affinity real_time_scheduling",
    30: "colliding_keys",
    83: "closes_everything closes_everything_and_waits",
}

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
    "sleeps": ("import time\ntime.sleep(1e6)", {Verdict.ILE}),
    "waits_for_a_lock": ("import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()", {Verdict.ILE}),
    "busy_loop": ("while True: pass", {Verdict.TLE}),
    "three_gibibytes": ("bytearray(3 << 30)", {Verdict.MLE}),
    "grows_page_by_page": ("a = bytearray(400 << 20)\nfor i in range(0, len(a), 4096): a[i] = 1", {Verdict.MLE}),
    "grows_by_mapping": (
        "import mmap\nm = mmap.mmap(-1, 600 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1",
        {Verdict.MLE},
    ),
    "memory_in_socket_buffers": (
        "import socket\nheld = []\nwhile True:\n    a, b = socket.socketpair()\n    held += [a, b]\n"
        "    a.setblocking(False)\n    try:\n        while True: a.send(bytes(1 << 16))\n    except BlockingIOError: pass",
        {Verdict.RE},
    ),
    "message_queue": (
        "import ctypes\nprint(ctypes.CDLL(None, use_errno=True).mq_open(b'/left', 0o102, 0o600, None))",
        {Verdict.WA, Verdict.RE},
    ),
    "output_flood": ("while True: print('x' * 100000)", {Verdict.OLE}),
    "output_flood_by_calls": ("import os\nwhile True: os.write(1, b'x' * (1 << 20))", {Verdict.OLE}),
    "output_by_truncation": ("import os\nos.ftruncate(1, 1 << 40)", {Verdict.OLE}),
    "error_flood": ("import sys\nprint(1, flush=True)\nwhile True: sys.stderr.write('x' * (1 << 20))", {Verdict.OLE}),
    "huge_power": ("10 ** 10 ** 8", {Verdict.TLE}),
    "digits_beyond_the_default": ("print(10 ** 5000)", {Verdict.RE}),
    "backtracking_expression": ("import re\nre.match('(a|a)*b', 'a' * 40)", {Verdict.TLE}),
    "unbounded_recursion": ("def f(): f()\nf()", {Verdict.RE}),
    "segmentation_fault": ("import ctypes\nctypes.string_at(0)", {Verdict.RE}),
    "bus_error": (
        "import mmap\nf = open('a', 'wb+')\nf.write(b'x')\nf.flush()\nm = mmap.mmap(f.fileno(), 1)\nf.truncate(0)\nm[0]",
        {Verdict.RE},
    ),
    "core_dump": (
        "import os, resource\ntry: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))\nexcept ValueError: pass\n"
        "os.abort()",
        {Verdict.RE},
    ),
    "colliding_keys": (
        "d = {}\nfor i in range(10**6): d[i * ((1 << 61) - 1)] = 1",
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

LIMITS = Limits(cpu_s=0.06, wall_s=60, output_mb=16)  # a wall limit no loaded machine reaches
ROOMY = Limits(cpu_s=2.0, wall_s=60, output_mb=16)  # where CPU time is not what ends it
PATIENCE = Limits(cpu_s=0.06, wall_s=1.0, output_mb=16)  # for programs that wait


@pytest.mark.parametrize("name", numbered(NUMBERS, ATTACKS))
def test_exhausting_programs_are_ended_and_named(held: sandbox.Judge, name: str) -> None:
    code, verdicts = ATTACKS[name]
    limits = PATIENCE if Verdict.ILE in verdicts else LIMITS if Verdict.TLE in verdicts else ROOMY
    judgement = held.judge(code, [TestCase("", "1")], limits=limits)
    assert judgement.verdict in verdicts, judgement


@attack(21)
@pytest.mark.parametrize("size", [200_000, pytest.param(64_000_000, marks=pytest.mark.slow)])
def test_large_honest_output_is_accepted(held: sandbox.Judge, size: int) -> None:
    code = f"import sys\nsys.stdout.write('1234567 ' * {size // 8})"
    expected = "1234567 " * (size // 8)
    assert held.judge(code, [TestCase("", expected)], limits=Limits(wall_s=120)).accepted


@attack(19)
def test_a_flood_on_standard_error_leaves_the_output_alone(held: sandbox.Judge) -> None:
    code = "import sys\nprint(1, flush=True)\nwhile True: sys.stderr.write('x' * (1 << 20))"
    run = held.execute(code, [""], limits=ROOMY)[0]
    assert (run.verdict, run.stdout) == (Verdict.OLE, b"1\n")
    assert len(run.stderr) <= 8192


@attack(2)
@pytest.mark.parametrize("level", ["namespaced", "confined"])
def test_a_run_cannot_outlive_its_worker(level: str, judge_at: Callable[[str], sandbox.Judge]) -> None:
    judge_at(level)  # skips where the level is not to be had
    code = (
        "import ctypes, os, time\nprint(ctypes.CDLL(None).prctl(1, 0, 0, 0, 0), flush=True)\n"
        "try: os.setsid()\nexcept OSError: pass\ntime.sleep(600)"
    )
    own = sandbox.Judge(1, protection=level, cache=False)
    with ThreadPoolExecutor(2) as callers:
        runs = [callers.submit(own.execute, code, ["1"] * count) for count in (1, 2)]
        deadline = time.monotonic() + 60
        while not own.worker_pids() or len(tree(own.worker_pids()[0])) < (3 if level == "namespaced" else 2):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # for it to have tried
        everyone = tree(own.worker_pids()[0])
        own.close()
        assert {one.verdict for run in runs for one in run.result()} == {Verdict.IE}
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in everyone):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@attack(2)
def test_the_signal_that_ends_a_run_with_its_worker_cannot_be_turned_off(held: sandbox.Judge) -> None:
    run = held.execute("import ctypes\nprint(ctypes.CDLL(None).prctl(1, 0, 0, 0, 0))", [""])[0]
    assert run.stdout == b"-1\n", run


@attack(28)
def test_a_run_can_raise_none_of_its_limits(held: sandbox.Judge) -> None:
    code = """
        import os, resource as r
        for name in ('CPU', 'AS', 'FSIZE', 'NOFILE', 'CORE', 'MSGQUEUE', 'MEMLOCK'):
            kind = getattr(r, 'RLIMIT_' + name)
            hard = r.getrlimit(kind)[1]
            for attempt in (
                lambda: r.setrlimit(kind, (hard + 1, hard + 1)),
                lambda: r.setrlimit(kind, (-1, -1)),
                lambda: r.prlimit(os.getpid(), kind, (-1, -1)),
                lambda: r.prlimit(os.getppid(), kind, (1, 1)),
            ):
                try: attempt()
                except (ValueError, OSError): continue
                print('raised', name)
        print(r.getrlimit(r.RLIMIT_CORE))
    """
    assert held.execute(textwrap.dedent(code), [""])[0].stdout == b"(0, 0)\n"


@attack(27)
def test_no_core_is_left_for_the_next_run(held: sandbox.Judge) -> None:
    runs = held.execute("import os\nprint(os.listdir('.'), flush=True)\nos.abort()", ["", ""])
    assert [run.stdout for run in runs] == [b"[]\n"] * 2


def test_the_judge_is_unchanged_after_all_of_them(held: sandbox.Judge) -> None:
    # runs after the attacks above: same workers, honest programs, and nothing left of the runs
    for number in range(20):
        judgement = held.judge("print(int(input()) + 1)", [TestCase(str(number), str(number + 1))])
        assert judgement.verdict is Verdict.AC, judgement
    listing = held.execute("import os\nprint(os.listdir('.'))", [""])[0]
    assert listing.stdout == b"[]\n"
    deadline = time.monotonic() + 60  # the last supervisor may still be on its way out
    while any(len(tree(pid)) > 2 for pid in held.worker_pids()):  # the container's first process, the warm one
        assert time.monotonic() < deadline, [tree(pid) for pid in held.worker_pids()]
        time.sleep(0.02)


def tree(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
