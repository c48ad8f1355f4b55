"""A crowded machine changes no verdict: CPU time decides, and a doubtful wall timeout is looked at again, alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import sandbox
from sandbox import Judge, Limits, Submission, TestCase, Verdict
from sandbox.execution import pool
from sandbox.execution.job import Facts, RunLimits, is_suspicious

BUSY = "import time\nwhile time.process_time() < {}: pass\nprint(input())"
PROGRAMS = {
    "short": ("print(input())", Verdict.AC),
    "computes for half of its limit": (BUSY.format(0.15), Verdict.AC),
    "computes in threads": (
        "import threading\ndef spin():\n    for _ in range(5 * 10**5): pass\n"
        "all = [threading.Thread(target=spin) for _ in range(4)]\n"
        "for t in all: t.start()\nfor t in all: t.join()\nprint(input())",
        Verdict.AC,
    ),
    "waits a little": ("import time\ntime.sleep(0.2)\nprint(input())", Verdict.AC),
    "prints much": ("print('x' * 1_000_000)\nprint(input())", Verdict.WA),
    "computes for ever": ("while True: pass", Verdict.TLE),
    "sleeps for ever": ("import time\ntime.sleep(1000)", Verdict.ILE),
}
LIMITS = Limits(cpu_s=0.3, language_factors=False)


@pytest.fixture
def crowd() -> Iterator[None]:
    """Four busy processes a CPU."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))]
    yield
    for process in busy:
        process.kill()
    for process in busy:
        process.wait()


@pytest.mark.usefixtures("crowd")
def test_at_four_times_the_load_verdicts_are_those_of_an_idle_machine(judge: Judge) -> None:
    found = judge.judge_batch([Submission(code, [TestCase("7", "7")], limits=LIMITS) for code, _ in PROGRAMS.values()])
    expected = [verdict for _, verdict in PROGRAMS.values()]
    assert [judgement.verdict for judgement in found] == expected, found


def facts(verdict: Verdict, wall_s: float, cpu_s: float) -> Facts:
    return Facts(verdict, wall_s=wall_s, cpu_s=cpu_s)


@pytest.mark.parametrize(
    ("seen", "load", "suspicious"),
    [
        (facts(Verdict.ILE, 2.0, 0.01), 50.0, False),  # it slept
        (facts(Verdict.ILE, 2.0, 0.6), 50.0, True),
        (facts(Verdict.ILE, 2.0, 0.6), 0.1, False),  # it computed, then slept, and nobody was in its way
        (facts(Verdict.ILE, 8.0, 0.01), 0.1, True),  # it stood in the run queue as long as is borne
        (facts(Verdict.TLE, 8.0, 1.1), 50.0, False), (facts(Verdict.AC, 8.0, 0.9), 50.0, False),
    ],
)  # fmt: skip
def test_what_is_suspicious(seen: Facts, load: float, suspicious: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert is_suspicious(seen, RunLimits(cpu_s=1.0, wall_s=2.0, memory_kb=1, output_bytes=1)) is suspicious


def test_a_doubtful_run_is_repeated_once_and_alone(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "is_suspicious", lambda seen, _: seen.verdict is Verdict.ILE)
    with sandbox.Judge(workers=2, protection=judge.protection, cache=False) as own:
        beside: list[int] = []
        send = own._pool._send_test

        def watched(worker, job):  # type: ignore[no-untyped-def]
            if job.position in job.doubted_at:
                beside.append(own._pool.busy)
            send(worker, job)

        monkeypatch.setattr(own._pool, "_send_test", watched)
        sleeper = "import time\nif input() == '2': time.sleep(1000)\nprint(1)"
        tests = [TestCase("1", "1"), TestCase("2", "1"), TestCase("3", "1")]
        short = Limits(wall_s=0.5)
        others = [Submission(f"print({n})", [TestCase("", str(n))]) for n in range(40)]
        found = own.judge_batch([Submission(sleeper, tests, limits=short), *others], stop="never")
        assert [case.verdict for case in found[0].cases] == [Verdict.AC, Verdict.ILE, Verdict.AC]
        assert all(judgement.accepted for judgement in found[1:])
        assert beside == [1] and own.statistics().run_alone == 1


def test_a_run_set_aside_is_ended_with_the_judge(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "is_suspicious", lambda seen, _: seen.verdict is Verdict.ILE)
    own = sandbox.Judge(workers=1, protection=judge.protection, cache=False)
    sleepers = [
        Submission(f"import time; time.sleep(1000) # {n}", [TestCase()], limits=Limits(wall_s=0.3)) for n in (1, 2)
    ]
    answers = own.as_completed(sleepers)

    closer = threading.Timer(0.5, own.close)
    closer.start()
    assert {judgement.verdict for _, judgement in answers} <= {Verdict.IE, Verdict.ILE}
    closer.join()
