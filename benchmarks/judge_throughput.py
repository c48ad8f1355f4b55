"""Cost of one run: a plain interpreter per run against the judge at each protection level.

CPU milliseconds include everything: the run, the worker, its container and the controller's thread. On a machine
with other work trust the CPU column; runs per second depend on what else runs.

    python benchmarks/judge_throughput.py [--runs 200] [--workers 1]
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

import sandbox
from sandbox import Limits, Submission, TestCase
from sandbox.isolation import levels, runtime

PROGRAM = """
import sys
from collections import defaultdict
def main():
    data = sys.stdin.buffer.read().split()
    n = int(data[0])
    seen = defaultdict(int)
    for x in map(int, data[1:n + 1]):
        seen[x] += 1
    print(sum(k * v for k, v in seen.items()))
main()
"""
CPP = """
#include <cstdio>
int main() { int n; long long x, s = 0; scanf("%d", &n); while (n--) { scanf("%lld", &x); s += x; } printf("%lld", s); }
"""
IMPORTS = "import bisect, collections, functools, heapq, itertools, math, random, re, string, typing\n"


def cpu_of(pids: list[int]) -> float:
    """CPU seconds used so far by processes and everything below them."""
    total = 0.0
    for pid in pids:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # a run just over: its parent has its time now
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def plain(code: str, runs: int) -> tuple[float, float]:
    """(CPU ms, wall ms) per run of an isolated interpreter started for each run."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for _ in range(runs):
        subprocess.run([runtime.interpreter(), "-I", "-c", code], input=b"3\n1 2 3\n", capture_output=True, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * cpu / runs, 1000 * wall / runs


def judged(judge: sandbox.Judge, runs: int, work: Callable[[], None]) -> tuple[float, float]:
    """(CPU ms, wall ms) per run of `work`, which makes `runs` of them."""
    own, workers, start = time.process_time(), cpu_of(judge.worker_pids()), time.perf_counter()
    work()
    wall = time.perf_counter() - start
    cpu = time.process_time() - own + cpu_of(judge.worker_pids()) - workers
    return 1000 * cpu / runs, 1000 * wall / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    runs = options.runs
    base_cpu, base_wall = plain(PROGRAM, max(20, runs // 5))
    warm_cpu, warm_wall = plain(IMPORTS + PROGRAM, max(20, runs // 5))
    rows = [("plain interpreter per run", base_cpu, base_wall), ("same, with ten usual imports", warm_cpu, warm_wall)]
    for level in levels.LEVELS:
        if levels.probe(level).reason is not None:
            print(f"{level}: not available here", file=sys.stderr)
            continue
        with sandbox.Judge(
            options.workers, protection=level, allow_unconfined=level == "limited", cache=False
        ) as judge:
            rows += measure(judge, level, runs)
    print(f"{'':44}{'CPU ms/run':>12}{'wall ms/run':>13}{'runs/s':>9}{'x plain':>9}")
    for name, cpu, wall in rows:
        print(f"{name:44}{cpu:12.2f}{wall:13.2f}{1000 / wall:9.0f}{base_cpu / cpu:9.1f}")


def measure(judge: sandbox.Judge, level: str, runs: int) -> list[tuple[str, float, float]]:
    test = TestCase("3\n1 2 3\n", "6\n")
    limits = Limits(wall_s=60)

    def single() -> None:
        found = judge.judge_batch([Submission(f"{PROGRAM}#{n}", [test], limits=limits) for n in range(runs)])
        assert all(judgement.accepted for judgement in found), found[0]

    def many_tests() -> None:
        assert judge.judge(PROGRAM, [test] * runs, limits=limits).accepted

    def native() -> None:
        assert judge.judge(CPP, [test] * runs, language="cpp", limits=limits).accepted

    judge.judge("print(6)", [test])
    rows = [(f"{level}: one program, one test", *judged(judge, runs, single))]
    rows.append((f"{level}: per test of a program", *judged(judge, runs, many_tests)))
    if sandbox.languages.available()["cpp"] is None:
        judge.judge(CPP, [test], language="cpp")
        rows.append((f"{level}: per test of a C++ program", *judged(judge, runs, native)))
    return rows


if __name__ == "__main__":
    main()
