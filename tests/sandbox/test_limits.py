"""Each limit has its own verdict, and a program inside its limits is not disturbed."""

from __future__ import annotations

import pytest

import sandbox
from sandbox import Limits, TestCase, Verdict

ONE = [TestCase("", "1")]
BUSY_THREADS = """
import threading
def spin():
    while True: pass
for _ in range(8): threading.Thread(target=spin).start()
"""


def verdict(judge: sandbox.Judge, code: str, limits: Limits | None = None) -> Verdict:
    return judge.judge(code, ONE, limits=limits or Limits(cpu_s=0.1)).verdict


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("while True: pass", Verdict.TLE),
        ("print(1, flush=True)\nwhile True: pass", Verdict.TLE),
        ("10 ** 10 ** 8", Verdict.TLE),
        ("import re\nre.match('(a|a)*b', 'a' * 40)", Verdict.TLE),
        ("while True:\n    try: input()\n    except EOFError: pass", Verdict.TLE),
        (BUSY_THREADS, Verdict.TLE),
        ("import time\ntime.sleep(100)", Verdict.ILE),
        ("import threading\nthreading.Event().wait()", Verdict.ILE),
        ("import time\nwhile True: time.sleep(0.01)", Verdict.ILE),
        ("bytearray(3 << 30)", Verdict.MLE),
        ("a = [0] * (1 << 40)", Verdict.MLE),
        ("a = []\nwhile True: a.append(bytearray(1 << 20))", Verdict.MLE),
        ("a = bytearray(400 << 20)\nfor i in range(0, len(a), 4096): a[i] = 1", Verdict.MLE),
        ("import mmap\nm = mmap.mmap(-1, 600 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1", Verdict.MLE),
        ("while True: print('x' * 100000)", Verdict.OLE),
        ("import os\nwhile True: os.write(1, b'x' * (1 << 20))", Verdict.OLE),
        ("import sys\nwhile True: sys.stderr.write('x' * (1 << 20))", Verdict.OLE),
        ("import os\nos.ftruncate(1, 1 << 40)", Verdict.OLE),
        ("raise ValueError('no')", Verdict.RE),
        ("import sys\nsys.exit(3)", Verdict.RE),
        ("import sys\nprint(1)\nsys.exit('message')", Verdict.RE),
        ("import ctypes\nctypes.string_at(0)", Verdict.RE),
        ("import os\nos.abort()", Verdict.RE),
        ("def f(): f()\nf()", Verdict.RE),
        ("print(2)", Verdict.WA),
        ("", Verdict.NO_CODE),
        (" \n\t", Verdict.NO_CODE),
        ("print(1", Verdict.CE),
        ("x = 1\n\x00", Verdict.CE),
        ("(" * 5000, Verdict.CE),
        ("return 1", Verdict.CE),
        ("# coding: nonsense\nprint(1)", Verdict.CE),
    ],
)  # fmt: skip
def test_verdicts(any_level: sandbox.Judge, code: str, expected: Verdict) -> None:
    limits = {
        Verdict.TLE: Limits(cpu_s=0.06, wall_s=20.0),
        Verdict.ILE: Limits(cpu_s=2.0, wall_s=0.5),
        Verdict.OLE: Limits(cpu_s=2.0, output_mb=8.0),
    }.get(expected, Limits(cpu_s=2.0))
    judgement = any_level.judge(code, ONE, limits=limits)
    assert judgement.verdict is expected, judgement


def test_the_language_factor_multiplies_the_cpu_limit(judge: sandbox.Judge) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(1)"
    assert verdict(judge, code, Limits(cpu_s=0.2)) is Verdict.AC
    assert verdict(judge, code, Limits(cpu_s=0.2, language_factors=False)) is Verdict.TLE


def test_an_ignored_cpu_signal_does_not_help(judge: sandbox.Judge) -> None:
    code = (
        "import signal\nfor s in (signal.SIGXCPU, signal.SIGTERM, signal.SIGALRM, signal.SIGXFSZ):\n"
        "    signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    )
    assert verdict(judge, code) is Verdict.TLE


def test_an_ignored_file_size_signal_is_still_an_output_limit(judge: sandbox.Judge) -> None:
    code = "import signal, os\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwhile True: os.write(1, b'x' * 65536)"
    assert verdict(judge, code, Limits(output_mb=1)) is Verdict.OLE


def test_own_limits_cannot_be_raised(judge: sandbox.Judge) -> None:
    code = (
        "import resource as r\nfor name in ('CPU', 'AS', 'FSIZE', 'NOFILE', 'CORE'):\n"
        "    k = getattr(r, 'RLIMIT_' + name)\n    soft, hard = r.getrlimit(k)\n"
        "    try: r.setrlimit(k, (hard + 1, hard + 1))\n    except (ValueError, OSError): continue\n"
        "    print('raised', name)\nprint(1)"
    )
    assert verdict(judge, code) is Verdict.AC


def test_memory_is_reported(judge: sandbox.Judge) -> None:
    case = judge.judge("a = b'x' * (50 << 20)\nprint(1)", ONE).cases[0]
    assert case.verdict is Verdict.AC
    assert 45 < case.memory_mb < 120


def test_cpu_time_is_reported_and_sleep_is_not_cpu(judge: sandbox.Judge) -> None:
    case = judge.judge("import time\ntime.sleep(0.3)\nprint(1)", ONE).cases[0]
    assert case.wall_s >= 0.3
    assert 0 < case.cpu_s < case.wall_s


@pytest.mark.parametrize("field", ["cpu_s", "wall_s", "memory_mb", "output_mb"])
def test_limits_that_make_no_sense_are_refused(judge: sandbox.Judge, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        judge.judge("print(1)", ONE, limits=Limits(**{field: 0}))
