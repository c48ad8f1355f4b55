"""Cost of one run: a plain interpreter per run, a container per run, and the judge at each protection level.

CPU milliseconds include everything: the run, the worker, its container and the controller's thread. On a machine
with other work trust the CPU column and the ratios; runs per second depend on what else runs.

    python benchmarks/judge_throughput.py [--runs 200] [--workers 1]
    python benchmarks/judge_throughput.py --batch 2048 --tests 20   # throughput, latency and where the time goes
    python benchmarks/judge_throughput.py --outputs                 # large outputs and their comparison
    python benchmarks/judge_throughput.py --groups                  # with control groups beside without
    python benchmarks/judge_throughput.py --queue 10000             # memory of the caller while so many programs wait
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil

import sandbox
from sandbox import Limits, Submission, TestCase
from sandbox.checkers import find
from sandbox.isolation import bwrap, groups, levels, runtime

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
# The least a fresh process per run can cost: a warm interpreter that forks, with nothing held back and nothing watched.
FORKING = """
import bisect, collections, functools, heapq, itertools, math, os, random, re, string, sys, typing
source, runs = sys.argv[1], int(sys.argv[2])
for _ in range(runs):
    given, printed = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(given[0], 0)
        os.dup2(printed[1], 1)
        for fd in (*given, *printed):
            os.close(fd)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        exec(compile(source, "solution.py", "exec"), {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    os.write(given[1], b"3\\n1 2 3\\n")
    for fd in (*given, printed[1]):
        os.close(fd)
    assert os.read(printed[0], 100) == b"6\\n"
    os.close(printed[0])
    os.waitpid(pid, 0)
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


def spent_by(command: list[str], runs: int, given: bytes = b"") -> tuple[float, float]:
    """(CPU ms, wall ms) per run of a command that makes `runs` of them."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, input=given, capture_output=True, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * cpu / runs, 1000 * wall / runs


def contained(code: str, runs: int) -> tuple[float, float]:
    """(CPU ms, wall ms) per run of a container with an interpreter in it, both started for each run."""
    command = bwrap.command([runtime.interpreter(), "-I", "-c", code])
    costs = [spent_by(command, 1, b"3\n1 2 3\n") for _ in range(runs)]
    return sum(cpu for cpu, _ in costs) / runs, sum(wall for _, wall in costs) / runs


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
    parser.add_argument("--batch", type=int, default=0, metavar="PROGRAMS", help="Measure a batch instead.")
    parser.add_argument("--tests", type=int, default=20, help="Tests of each program of the batch.")
    parser.add_argument("--outputs", action="store_true", help="Measure large outputs instead.")
    parser.add_argument("--groups", action="store_true", help="Compare with and without control groups instead.")
    parser.add_argument("--queue", type=int, default=0, metavar="PROGRAMS", help="Measure memory of a queue instead.")
    options = parser.parse_args()
    runs = options.runs
    if options.batch:
        batch(levels.choose("confined", False, None), options.workers, options.batch, options.tests)
        return
    if options.outputs:
        outputs()
        return
    if options.groups:
        grouped(runs)
        return
    if options.queue:
        queued(options.queue)
        return
    base_cpu, base_wall = plain(PROGRAM, max(20, runs // 5))
    warm_cpu, warm_wall = plain(IMPORTS + PROGRAM, max(20, runs // 5))
    rows = [("plain interpreter per run", base_cpu, base_wall), ("same, with ten usual imports", warm_cpu, warm_wall)]
    if levels.probe("namespaced").reason is None:
        rows.append(("same, in a container (bwrap) per run", *contained(IMPORTS + PROGRAM, max(10, runs // 10))))
    floor = [runtime.interpreter(), "-I", "-c", FORKING, PROGRAM, str(runs)]
    rows.append(("fork of a warm interpreter, no protection", *spent_by(floor, runs)))
    for level in levels.LEVELS:
        if levels.probe(level).reason is not None:
            print(f"{level}: not available here", file=sys.stderr)
            continue
        with sandbox.Judge(
            options.workers, protection=level, allow_unconfined=level == "limited", cache=False
        ) as judge:
            rows += measure(judge, level, runs)
    print(f"{'':44}{'CPU ms/run':>12}{'wall ms/run':>13}{'runs/CPU s':>11}{'x imports':>11}")
    for name, cpu, wall in rows:
        print(f"{name:44}{cpu:12.2f}{wall:13.2f}{1000 / cpu:11.0f}{warm_cpu / cpu:11.1f}")


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


def batch(level: str, workers: int, programs: int, tests: int) -> None:
    """Prints throughput, latency and the split of CPU time of `programs` different programs, two a worker in flight."""
    cases = [TestCase(f"{n}\n{' '.join(map(str, range(n)))}\n", f"{n * (n - 1) // 2}\n") for n in range(1, tests + 1)]
    limits = Limits(wall_s=120)
    with sandbox.Judge(workers, protection=level, cache=False) as judge:

        def one(number: int) -> tuple[float, float]:
            begun = time.perf_counter()
            judgement = judge.judge(f"{PROGRAM}#{number}", cases, limits=limits)
            assert judgement.accepted, judgement
            return time.perf_counter() - begun, sum(case.cpu_s for case in judgement.cases)

        with ThreadPoolExecutor(2 * workers) as callers:
            list(callers.map(one, range(-2 * workers, 0)))
            own, before, start = time.process_time(), cpu_of(judge.worker_pids()), time.perf_counter()
            found = list(callers.map(one, range(programs)))
            wall = time.perf_counter() - start
        controller = time.process_time() - own
        boxes = cpu_of(judge.worker_pids()) - before
    inside = sum(cpu for _, cpu in found)
    latencies = sorted(latency for latency, _ in found)
    total, count = controller + boxes, programs * tests
    print(f"{level}: {programs} programs x {tests} tests, {workers} workers: {wall:.1f} s, {count / wall:.0f} tests/s")
    print(f"  CPU {1000 * total / count:.2f} ms per test, {count / total:.0f} tests per CPU second")
    print(
        f"  a program takes p50 {1000 * latencies[len(latencies) // 2]:.0f} ms, p99 "
        f"{1000 * latencies[int(0.99 * (len(latencies) - 1))]:.0f} ms with two a worker in flight"
    )
    print(
        f"  of the CPU time: {inside / total:.0%} programs, {(boxes - inside) / total:.0%} workers, "
        f"{controller / total:.0%} controller"
    )


def grouped(runs: int) -> None:
    """Prints the cost of a test with and without control groups: two judges in turns, medians of seven."""
    found = groups.find()
    if found.place is None:
        print(f"no control groups can be made here: {found.reason}", file=sys.stderr)
        return
    test = TestCase("3\n1 2 3\n", "6\n")
    costs: dict[bool, list[float]] = {True: [], False: []}
    with sandbox.Judge(1, cache=False) as with_groups, sandbox.Judge(1, cache=False, control_groups=False) as without:
        for turn in range(8):
            for judge in (with_groups, without) if turn % 2 else (without, with_groups):

                def work(judge: sandbox.Judge = judge) -> None:
                    assert judge.judge(PROGRAM, [test] * runs, limits=Limits(wall_s=60)).accepted

                cost, _ = judged(judge, runs, work)
                if turn:  # the first one starts the worker
                    costs[judge is with_groups].append(cost)
    one, other = statistics.median(costs[True]), statistics.median(costs[False])
    print(f"each test: {one:.2f} ms CPU with control groups, {other:.2f} without, ratio {one / other:.3f}")


def queued(programs: int) -> None:
    """Prints what the caller's process holds while `programs` different ones wait, sixteen of them to a problem."""
    own = psutil.Process()
    problems = [
        [TestCase(f"{n} {at}\n" + "1 " * 500, "1\n" * 20) for at in range(10)] for n in range(-(-programs // 16))
    ]
    with sandbox.Judge(1, cache=False) as judge:
        judge.judge("print(1)", [TestCase("", "1")])
        work = [Submission(f"{PROGRAM}#{n}\n" + "# x\n" * 200, problems[n // 16]) for n in range(programs)]
        before = own.memory_info().rss
        peak = before
        for done, _ in enumerate(judge.as_completed(work)):
            peak = max(peak, own.memory_info().rss)
            if done == 200:  # the rest is cancelled: it is the waiting that is measured
                break
    grown = (peak - before) / 1024
    print(
        f"{programs} programs waiting: {peak >> 20} MiB, {grown / programs:.1f} KiB each beyond the programs themselves"
    )


def outputs() -> None:
    """Prints what judging large right outputs and comparing equal ones costs."""
    with sandbox.Judge(1, cache=False) as judge:
        judge.judge("print(1)", [TestCase("", "1")])
        for mb in (8, 16, 32, 63):
            expected = "1234567 " * (mb << 17)
            code = f"import sys\nsys.stdout.write('1234567 ' * {mb << 17})"

            def work(code: str = code, expected: str = expected) -> None:
                assert judge.judge(code, [TestCase("", expected)], limits=Limits(wall_s=120)).accepted

            cpu, _ = judged(judge, 1, work)
            print(f"judging {mb:3d} MiB of right output: {cpu:7.0f} ms CPU, {cpu / mb:5.1f} per MiB")
    text = b"1234567 " * (1 << 20)
    other = text.replace(b" ", b"\n")
    for name in ("tokens", "lines", "exact", "floats:1e-6", "unordered_tokens", "kattis_default"):
        for what, output in (("the same bytes", text), ("other white space", other)):
            if name in ("exact", "lines") and output is other:
                continue
            before = time.process_time()
            assert find(name).compare(output, text) is None
            print(f"{name:18} 8 MiB, {what:18}: {1000 * (time.process_time() - before):7.1f} ms CPU")


if __name__ == "__main__":
    main()
