# ruff: noqa: E501
"""Beside and after the attacks honest programs are judged as ever and nothing is left; no attack is without a test."""

from __future__ import annotations

import os
import textwrap
import time

import psutil
import pytest
import test_attacks_compilers
import test_attacks_faking
import test_attacks_leaving
import test_attacks_resources
from attack_numbers import COVERED
from leftovers import census

import sandbox
from sandbox import Limits, Submission, TestCase, Verdict
from sandbox.isolation import runtime

FAMILIES = (test_attacks_resources, test_attacks_leaving, test_attacks_faking, test_attacks_compilers)

# (program, verdict): each is judged again and again
HONEST = [
    ("print(sum(map(int, input().split())))", Verdict.AC),
    ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", Verdict.AC),
    ("import os\nprint(sum(map(int, os.read(0, os.fstat(0).st_size).split())))", Verdict.AC),
    ("print(sum(map(int, open(0).read().split())))", Verdict.AC),
    ("import threading\nr = []\nt = threading.Thread(target=lambda: r.append(sum(map(int, input().split()))))\nt.start()\nt.join()\nprint(r[0])", Verdict.AC),
    ("import sys\nsys.setrecursionlimit(10**5)\ndef f(v): return v[0] + f(v[1:]) if v else 0\nprint(f(list(map(int, input().split()))))", Verdict.AC),
    ("from collections import Counter, defaultdict, deque\nimport heapq, bisect, itertools\nprint(sum(deque(map(int, input().split()))))", Verdict.AC),
    ("print(sum(map(int, input().split())) + 1)", Verdict.WA),
    ("print(1 // 0)", Verdict.RE),
    ("print(", Verdict.CE),
]  # fmt: skip
TESTS = [TestCase(f"{n} {n + 1} {7 * n}", str(9 * n + 1)) for n in range(20)]


def honest(round_: int) -> list[Submission]:
    return [Submission(f"{code}\n#{round_}", TESTS, limits=Limits(wall_s=120)) for code, _ in HONEST]


def test_every_attack_of_the_list_has_a_test() -> None:
    assert len(FAMILIES) == 4  # importing them has filled the list
    assert sorted(COVERED) == list(range(1, 101))


def attacks() -> list[Submission]:
    """Every attack that is a Python program, as one batch."""
    names = {"SECRET_FILE": "/etc/hostname", "PORT": 80, "UNIX_PATH": "/run/x", "ABSTRACT": "\0x", "REAL_HOME": "/root"}
    names |= {"BOX": str(runtime.BOX), "TESTS_DIRECTORY": os.path.dirname(__file__)}
    head = test_attacks_leaving.HEAD + "".join(f"{key} = {value!r}\n" for key, value in names.items())
    programs = [head + textwrap.dedent(code) for code in test_attacks_leaving.ATTACKS.values()]
    programs += [textwrap.dedent(code) for code in test_attacks_faking.PRINTED.values()]
    slow = {Verdict.ILE, Verdict.TLE, Verdict.MLE, Verdict.OLE}
    programs += [code for code, verdicts in test_attacks_resources.ATTACKS.values() if not verdicts & slow]
    limits = Limits(cpu_s=0.1, wall_s=120)
    return [Submission(code, [TestCase("EXPECT", "EXPECTED-42-OUTPUT")], limits=limits) for code in programs]


def settled(judge: sandbox.Judge) -> None:
    """Waits until the last runs are gone: only each worker's container and warm process are left."""
    deadline = time.monotonic() + 60
    while any(len(psutil.Process(pid).children(recursive=True)) > 1 for pid in judge.worker_pids()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_thousand_honest_runs_are_judged_as_ever_and_nothing_is_left(held: sandbox.Judge) -> None:
    controller = getattr(held, "pid", os.getpid())
    held.judge_batch(honest(-1) + honest(-2))  # all workers are up and as large as they get
    settled(held)
    before = census(controller, held.worker_pids())

    batch: list[Submission] = []
    hostile = attacks()
    for round_ in range(5):  # 5 x 10 programs x 20 tests, those that fail at once on fewer
        batch += hostile[round_::5] + honest(round_)
    found = held.judge_batch(batch, stop="never")
    expected = {f"{code}\n#{round_}": verdict for round_ in range(5) for code, verdict in HONEST}
    for submission, judgement in zip(batch, found, strict=True):
        if submission.code in expected:
            assert judgement.verdict is expected[submission.code], (submission.code, judgement)
            runs = [case.verdict for case in judgement.cases if case.verdict is not Verdict.SKIPPED]
            assert runs == [judgement.verdict] * (0 if judgement.verdict is Verdict.CE else 20)
        else:
            assert judgement.verdict not in (Verdict.AC, Verdict.IE), (submission.code, judgement)

    again = held.judge_batch([one for round_ in range(5, 10) for one in honest(round_)])
    assert [judgement.verdict for judgement in again] == [verdict for _, verdict in HONEST] * 5
    settled(held)
    assert held.workers_replaced == 0
    # allocators round up: a leak of a page a run would show as more than 4 MiB over 2,000 runs
    left = census(controller, held.worker_pids()).more_than(before, grown_kb=4096, descriptors=0)
    assert not left


@pytest.mark.parametrize("level", ["namespaced", "container"])
def test_a_closed_judge_leaves_nothing(level: str, judge_at: object) -> None:
    from unprivileged import UnprivilegedJudge

    judge_at(level)  # type: ignore[operator]
    own = UnprivilegedJudge(1) if level == "container" else sandbox.Judge(1, protection=level, cache=False)
    own.judge("open('a', 'w').write('x')\nprint(1)", [TestCase("", "1")])
    pids = own.worker_pids()
    tree = [pid for root in pids for pid in (root, *(c.pid for c in psutil.Process(root).children(recursive=True)))]
    folders = {f"/tmp/{name}" for name in os.listdir("/tmp") if name.startswith("sandbox-judge-")}
    own.close()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in tree):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert folders - {f"/tmp/{name}" for name in os.listdir("/tmp")}
