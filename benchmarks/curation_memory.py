"""Peak memory of every curation stage at two sizes of input: what grows with the number of problems shows.

    python benchmarks/curation_memory.py --problems 1500 4500 --tests 4 --characters 10000

Each stage runs in a process of its own, on the problems the stage before left, so that its peak (VmHWM in
/proc/self/status, Linux) is its own; libraries are in it, and `idle` is a process that does nothing. Problems are
synthetic statements with tests and no programs: what the sandbox's workers take is not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from data_curation import CurationConfig, Problem, Test, save_problems
from data_curation.pipeline import STAGES
from data_curation.sources import iter_problems
from data_curation.stages.result import Notes, Workplace
from data_curation.stored import StoredProblems

ADJECTIVES = ("amber", "brisk", "coral", "dusty", "early", "fancy", "giant", "happy", "ivory", "jolly", "keen")
NOUNS = ("anchor", "basket", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket")


def corpus(size: int, tests: int, characters: int) -> Iterator[Problem]:
    """`size` problems of different statements, each with `tests` tests whose inputs have `characters` characters."""
    for number in range(size):
        words = [f"{ADJECTIVES[number * k % 11]}{number * k % 9973} {NOUNS[number * k % 10]}" for k in range(1, 30)]
        cases = [Test(input=f"{number * tests + n:>{characters}}\n", output=f"{n}\n") for n in range(tests)]
        statement = f"Print how often the {' meets the '.join(words)} in the list of the input."
        yield Problem(id=f"p{number}", title=f"{words[0]} {number}", statement=statement, tests=cases)


def run_stage(name: str, source: Path, target: Path) -> float:
    """One stage as `curate` runs it, from file to file; the peak in MB of this process, which has done nothing else."""
    if name == "load":
        save_problems(iter_problems(str(source)), target)
    elif name != "idle":
        options = getattr(CurationConfig(sources=("builtin",)), name)
        work = Workplace(target.parent)
        save_problems(dict(STAGES)[name].stream(StoredProblems(source), options, work, Notes()), target)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def peaks(size: int, tests: int, characters: int, stages: Sequence[str]) -> dict[str, float]:
    """Peak in MB by stage, in processes of their own."""
    found = {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_curation.pipeline"])  # imports once, for all of them
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes,
    ):
        source = Path(folder) / "source.parquet"
        save_problems(corpus(size, tests, characters), source)
        for number, name in enumerate(stages):
            target = Path(folder) / str(number) / "problems.parquet"
            found[name] = processes.submit(run_stage, name, source, target).result()
            source = target if target.exists() else source
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, nargs=2, default=(1500, 4500), help="the two sizes")
    parser.add_argument("--tests", type=int, default=4, help="tests of a problem")
    parser.add_argument("--characters", type=int, default=10_000, help="of a test's input")
    parser.add_argument("--stages", nargs="*", default=["idle", "load", *(name for name, _ in STAGES)])
    args = parser.parse_args()
    few, many = (peaks(size, args.tests, args.characters, args.stages) for size in args.problems)
    added = (args.problems[1] - args.problems[0]) * args.tests * args.characters / 1e6
    print(f"{'stage':<14} {args.problems[0]:>8} {args.problems[1]:>8} problems   grown, of {added:.0f} MB more tests")
    for name in few:
        print(f"{name:<14} {few[name]:>8.0f} {many[name]:>8.0f} MB     {many[name] - few[name]:>8.0f} MB")


if __name__ == "__main__":
    main()
