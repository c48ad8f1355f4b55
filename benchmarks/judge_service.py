"""What judging over HTTP costs beside judging in the process: the same programs, side by side, in one run.

    python benchmarks/judge_service.py [--programs 400] [--tests 10]

Prints wall and CPU seconds of the caller's process and of everything together, for a local judge, for a service in a
process of its own that sees the test sets for the first time, for the same service once it knows them, and for one
request a test through POST /run_code, which is how graders without a batch route work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil

import sandbox
from sandbox import Submission, TestCase
from sandbox.service.client import JudgeClient

PROGRAM = "import sys\ndata = sys.stdin.read().split()\nprint(sum(map(int, data[1:])))  # {}\n"


def submissions(programs: int, tests: int, salt: str) -> list[Submission]:
    sets = []
    for number in range(max(1, programs // 16)):  # sixteen rollouts of a problem, as in training
        values = [" ".join(str(number + at) for at in range(200)) for _ in range(tests)]
        sets.append([TestCase(f"{at} {row}\n", f"{sum(map(int, row.split()))}\n") for at, row in enumerate(values)])
    return [Submission(PROGRAM.format(f"{salt} {number}"), sets[number % len(sets)]) for number in range(programs)]


def family_cpu(pid: int) -> float:
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measured(name: str, work: Callable[[], int], base: dict[str, float]) -> None:
    own, all_before, started = time.process_time(), family_cpu(os.getpid()), time.perf_counter()
    count = work()
    wall, own = time.perf_counter() - started, time.process_time() - own
    everything = family_cpu(os.getpid()) - all_before
    base.setdefault("wall", wall)
    base.setdefault("cpu", everything)
    print(
        f"{name:34s} {count:6d} programs  {wall:7.2f} s wall ({wall / base['wall']:4.2f} x)  "
        f"{1e3 * own / count:6.2f} ms caller CPU  {1e3 * everything / count:6.2f} ms CPU a program "
        f"({everything / base['cpu']:4.2f} x)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=400)
    parser.add_argument("--tests", type=int, default=10)
    options = parser.parse_args()
    base: dict[str, float] = {}

    def accepted(judge: sandbox.Judge | JudgeClient, salt: str) -> Callable[[], int]:
        batch = submissions(options.programs, options.tests, salt)

        def work() -> int:
            found = judge.judge_batch(batch)
            assert all(judgement.accepted for judgement in found)
            return len(found)

        return work

    with sandbox.Judge(cache=False) as local:
        local.judge_batch(submissions(16, 1, "warm"))
        measured("local judge", accepted(local, "local"), base)
    command = [sys.executable, "-m", "rlvr.cli", "sandbox", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        url = service.stdout.readline().split()[2].rstrip(",")
        try:
            with JudgeClient(url) as client:
                client.judge_batch(submissions(16, 1, "warm"))
                measured("service, unknown tests", accepted(client, "first"), base)
                measured("service, known tests", accepted(client, "second"), base)
            measured("POST /run_code, a request a test", one_by_one(url, options), base)
        finally:
            service.terminate()


def one_by_one(url: str, options: argparse.Namespace) -> Callable[[], int]:
    def work() -> int:
        with httpx.Client(base_url=url, timeout=600) as http, ThreadPoolExecutor(16) as threads:

            def grade(submission: Submission) -> bool:
                for test in submission.tests:
                    body = {"code": submission.code, "language": "python", "stdin": test.input}
                    result = http.post("/run_code", json=body).json()["run_result"]
                    if result["stdout"].split() != test.output.split():
                        return False
                return True

            batch = submissions(options.programs, options.tests, "single")
            assert all(threads.map(grade, batch))
        return options.programs

    return work


if __name__ == "__main__":
    main()
