"""What grading adds to a training step: the same steps with the judge and with verdicts that cost nothing, in one run.

    python benchmarks/grading_share.py --run runs/quickstart [--steps 4 --rounds 2 --paces 0,20,50]

Trains the policy of a finished quickstart twice from the same start, in turns: once every rollout goes to the judge
(without its cache of verdicts), once the same verdicts are read from a list. Samples and weights are the same, so the
difference of two steps is what grading adds. The policy is tiny: it writes a program in milliseconds, where a large one
takes minutes, so nothing here hides a verdict for long. `--paces` makes every decoding step at least that many
milliseconds longer, asleep, as a step on an accelerator leaves the CPU: then the judge has cores, as beside a GPU.

A third pass sleeps for as long as the judge computed, a rollout at a time in each of its workers, before it tells a
verdict it knows: what the same judge would add if it had cores of its own, which few machines can show otherwise.

Wall times, so other work on the machine counts: of `--rounds` passes over the same step the fastest is taken. The CPU
seconds of the judge a step, over the wall seconds of its sampling, say how many cores it wants.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would take the judge's core

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from judge_throughput import cpu_of

import rlvr.training.grpo as stage
import sandbox
from data_curation import Problem
from rlvr.config import GRPORecipe
from rlvr.rewards import GradedRollout, ProgramGrader
from rlvr.training.callbacks import read_metrics
from rlvr.training.loading import load_policy


class Judged(ProgramGrader):
    """Grades as ever, without the cache of verdicts, and keeps what each call found and what it cost."""

    calls: list[list[GradedRollout]]
    cpu_s: list[float]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.judge.close()
        section = arguments[2]
        self._local = sandbox.Judge(workers=section.workers, cache=False)
        self.judge = self._local
        self.judge.judge("print(1)", [sandbox.TestCase("", "1")])  # started before anything is measured
        type(self).calls, type(self).cpu_s = [], []
        self._before = cpu_of(self._local.worker_pids())

    def grade(self, problems: Sequence[Problem], completions: Sequence[str], stream: Any = None) -> list[GradedRollout]:
        found = super().grade(problems, completions, stream)
        self.calls.append(found)
        now = cpu_of(self._local.worker_pids())
        self.cpu_s.append(now - self._before)
        self._before = now
        return found


class Told:
    """Knows every verdict beforehand."""

    seconds = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.calls = iter(Judged.calls)

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def grade(self, problems: Sequence[Problem], completions: Sequence[str], stream: Any = None) -> list[GradedRollout]:
        return next(self.calls)

    def begin(self, problem: Problem, completion: str) -> None:
        return None


class Elsewhere(Told):
    """Knows every verdict, and tells it after the CPU time that one took: a judge that shares no core with us."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seconds = 0.0
        self._workers = ThreadPoolExecutor(arguments[2].workers)
        self._cost_s = sum(Judged.cpu_s) / sum(map(len, Judged.calls))
        self._begun: list[Future[None]] = []

    def begin(self, problem: Problem, completion: str) -> Future[None]:  # type: ignore[override]
        self._begun.append(self._workers.submit(time.sleep, self._cost_s))
        return self._begun[-1]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str], stream: Any = None) -> list[GradedRollout]:
        started = time.perf_counter()
        for problem, completion in list(zip(problems, completions, strict=True))[len(self._begun) :]:
            self.begin(problem, completion)
        for verdict in self._begun:
            verdict.result()
        self._begun = []
        self.seconds += time.perf_counter() - started
        return super().grade(problems, completions)


def recipe(options: argparse.Namespace, folder: Path) -> GRPORecipe:
    return GRPORecipe.model_validate(
        {
            "name": "grading-share",
            "output_dir": str(folder),
            "model": {"name_or_path": str(options.run / "sft" / "final")},
            "data": {"problems": str(options.run / "curation" / "train.parquet"), "tags": ["stage1"]},
            "prompt": {"style": "plain"},
            "judge": {"workers": options.workers},
            "grpo": {
                "problems_per_step": options.rollouts // 8,
                "num_generations": 8,
                "per_device_train_batch_size": min(64, options.rollouts),
                "max_steps": options.steps,
                "max_completion_length": 40,
                "learning_rate": 6.0e-4,
                "save_steps": 10_000,
                "sampling_threads": options.threads,
            },
        }
    )


def trained(options: argparse.Namespace, grader: Any, pace_ms: float) -> list[dict[str, Any]]:
    """The metrics of every step of a run whose verdicts come from `grader`."""

    def paced(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if not torch.is_grad_enabled() and named["input_ids"].shape[1] == 1:
            time.sleep(pace_ms / 1000)

    before = stage.ProgramGrader
    setattr(stage, "ProgramGrader", grader)  # noqa: B010
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = recipe(options, Path(folder))
            model, tokenizer = load_policy(run.model)
            model.register_forward_pre_hook(paced, with_kwargs=True)
            stage.train_grpo(run, model, tokenizer)
            return read_metrics(Path(folder) / "metrics.jsonl")
    finally:
        setattr(stage, "ProgramGrader", before)  # noqa: B010


def fastest(rounds: list[list[dict[str, Any]]], name: str) -> list[float]:
    """Of every step but the first, the smallest of its values over the rounds."""
    return [min(values) for values in zip(*([line[name] for line in lines[1:]] for lines in rounds), strict=True)]


def measured(options: argparse.Namespace, pace_ms: float) -> dict[str, float]:
    judged, told, elsewhere, cpu = [], [], [], []
    for _ in range(options.rounds):
        judged.append(trained(options, Judged, pace_ms))
        cpu.append(Judged.cpu_s[1:])
        told.append(trained(options, Told, pace_ms))
        elsewhere.append(trained(options, Elsewhere, pace_ms))
    if any(line["reward"] != other["reward"] for line, other in zip(judged[0], told[0], strict=True)):
        raise SystemExit("the two runs sampled different rollouts: nothing can be said")
    without = fastest(told, "step_time")

    def added(rounds: list[list[dict[str, Any]]]) -> float:
        return statistics.median(a / b - 1 for a, b in zip(fastest(rounds, "step_time"), without, strict=True))

    def waited(rounds: list[list[dict[str, Any]]]) -> float:
        steps = zip(fastest(rounds, "time/grade"), fastest(rounds, "step_time"), strict=True)
        return statistics.median(a / b for a, b in steps)

    return {
        "step": statistics.median(without),
        "sampling": statistics.median(fastest(told, "time/generate")),
        "judge CPU": statistics.median(min(values) for values in zip(*cpu, strict=True)),
        "added here": added(judged),
        "waited here": waited(judged),
        "added elsewhere": added(elsewhere),
        "waited elsewhere": waited(elsewhere),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished quickstart")
    parser.add_argument("--steps", type=int, default=4, help="the first one is not counted")
    parser.add_argument("--rounds", type=int, default=2, help="passes over the same steps")
    parser.add_argument("--rollouts", type=int, default=128, help="a step, in groups of 8")
    parser.add_argument("--paces", default="0,20,50", help="ms by which a decoding step is made longer, separated by ,")
    parser.add_argument("--threads", type=int, default=1, help="that sample")
    parser.add_argument("--workers", type=int, default=1, help="of the judge")
    options = parser.parse_args()
    if not (options.run / "sft" / "final").is_dir():
        parser.error(f"{options.run}: no sft/final in it; name the folder of a finished `rlvr quickstart`")
    torch.set_num_threads(options.threads)
    found = {pace: measured(options, pace) for pace in map(float, options.paces.split(","))}
    print(f"\n{os.cpu_count()} CPUs, {options.workers} judge worker(s), {options.rollouts} rollouts a step")
    print("| longer by | step without | of it sampling | judge CPU | added, waited | added, waited: own cores |")
    print("|" + " ---: |" * 6)
    for pace, row in found.items():
        cells = [f"{pace:g} ms", *(f"{row[name]:.2f} s" for name in ("step", "sampling", "judge CPU"))]
        cells += [f"{row[f'added {where}']:.1%}, {row[f'waited {where}']:.1%}" for where in ("here", "elsewhere")]
        print("| " + " | ".join(cells) + " |")
    print(json.dumps({f"{pace:g}": row for pace, row in found.items()}))


if __name__ == "__main__":
    main()
