"""Where the rollouts go and what it is worth: uniform, dynamic sampling and knapsack with either estimator.

    python benchmarks/budget_policies.py simulate [--seeds 5]
    python benchmarks/budget_policies.py train --run runs/quickstart [--seeds 5 --steps 40 --out runs/budget]
    python benchmarks/budget_policies.py train --run runs/quickstart --hardest 160 --out runs/budget-hard
    python benchmarks/budget_policies.py train --run runs/quickstart --start stage1/final --out runs/budget-late
    python benchmarks/budget_policies.py train --run runs/quickstart --table

`simulate` needs no model: problems are coins whose success rates a mixed group raises (rlvr/budget/simulate.py); every
policy spends the same rollouts. `train` starts every policy from the SFT checkpoint of a quickstart run, trains on its
problems for the same number of steps and measures pass@1 on its held-out problems at the checkpoints on the way; so
every run is a curve over rollouts sampled and over tokens, and policies are compared at equal spending of either. With
`--hardest N` the problems are those that the starting policy solves least often, eight rollouts each, measured once for
all runs; with `--start` it is another checkpoint of the quickstart, which has most problems behind it. A call that was
cut short is continued by the same call, run by run. Intervals are 95 % t-intervals over seeds; differences are paired
by seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from scipy import stats

from data_curation import Problem, load_problems, save_problems
from rlvr.budget import AllocationPolicy, DynamicSampling, Knapsack, Uniform
from rlvr.budget.simulate import population, simulate
from rlvr.config import GRPORecipe

POLICIES: dict[str, AllocationPolicy] = {
    "uniform": Uniform(),
    "dynamic sampling": DynamicSampling(),
    "knapsack (window)": Knapsack(),
    "knapsack (window), no fallback": Knapsack(fallback=False),
    "knapsack (beta)": Knapsack("beta"),
}
RECIPES: dict[str, dict[str, Any]] = {
    "uniform": {"policy": "uniform"},
    "dynamic sampling": {"policy": "dynamic_sampling"},
    "knapsack (window)": {"policy": "knapsack", "estimator": "window", "high": 64},
    "knapsack (beta)": {"policy": "knapsack", "estimator": "beta", "high": 64},
}
OUTCOME = "outcome.json"
TAG = "pipelines"  # of the generated family
MEASURED = 8  # rollouts by which --hardest ranks


def interval(values: Sequence[float], scale: float = 1.0) -> str:
    """Mean and the half width of its 95 % t-interval over seeds."""
    mean = statistics.fmean(values) * scale
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) * scale / math.sqrt(len(values))
    return f"{mean:.3f} ±{half:.3f}"


def reached(points: Sequence[tuple[float, float]], score: float) -> float | None:
    """Spending at which a curve of (spent, score) first reaches a score, interpolated; None where it never does."""
    before = (0.0, points[0][1])
    for spent, value in points:
        if value >= score:
            rise = value - before[1]
            return spent if rise <= 0 else before[0] + (spent - before[0]) * (score - before[1]) / rise
        before = (spent, value)
    return None


def simulated(options: argparse.Namespace) -> None:
    for name in options.population:
        print(f"\n{name}: {options.problems} problems, {options.per_step} x 8 rollouts a step, {options.seeds} seeds")
        print(
            "| policy | effective gradient ratio | pass rate at the end | share of uniform's rollouts for its score |"
        )
        print("| --- | --- | --- | --- |")
        budget = options.steps * options.per_step * 8
        curves: dict[str, list[list[Any]]] = {policy: [] for policy in POLICIES}
        for policy, allocation in POLICIES.items():
            for seed in range(options.seeds):
                found = simulate(
                    population(name, options.problems, np.random.default_rng(seed)),
                    allocation,
                    steps=options.steps,
                    problems_per_step=options.per_step,
                    mean_rollouts=8,
                    speed=options.speed,
                    seed=seed,
                )
                curves[policy].append([step for step in found if step.rollouts <= budget])
        for policy, runs in curves.items():
            ratio = [statistics.fmean(s.effective_gradient_ratio for s in run) for run in runs]
            final = [run[-1].pass_rate for run in runs]
            shares = []
            for run, plain in zip(runs, curves["uniform"], strict=True):
                at = reached([(s.rollouts, s.pass_rate) for s in run], plain[-1].pass_rate)
                shares.append(at / plain[-1].rollouts if at is not None else None)
            known = [share for share in shares if share is not None]
            share = interval(known) if len(known) == len(shares) else f"not reached by {len(shares) - len(known)} seeds"
            print(f"| {policy} | {interval(ratio)} | {interval(final)} | {share} |")


def cells(options: argparse.Namespace) -> list[tuple[int, str]]:
    """(seed, policy) of every run, a seed's policies one after the other: differences are paired by seed."""
    return [(seed, name) for seed in range(options.seeds) for name in RECIPES]


def cell_folder(options: argparse.Namespace, seed: int, name: str) -> Path:
    return options.out / f"{name.replace(' ', '-').replace('(', '').replace(')', '')}-{seed}"


def trained(options: argparse.Namespace) -> None:
    from rlvr.training.grpo import train_grpo

    data: dict[str, Any] = {
        "problems": str(options.run / "curation" / "train.parquet"),
        "tags": ["stage1"],
        "limit": options.problems,
    }
    if options.hardest:
        data = {"problems": str(hardest(options))}
    for seed, name in cells(options):
        folder = cell_folder(options, seed, name)
        if (folder / OUTCOME).exists():
            continue
        recipe = recipe_of(
            options,
            folder,
            {
                "seed": seed,
                "data": data,
                "budget": RECIPES[name],
                "grpo": {
                    "problems_per_step": 16,
                    "num_generations": 8,
                    "per_device_train_batch_size": 128,
                    "max_steps": options.steps,
                    "max_completion_length": 40,
                    "learning_rate": 6.0e-4,
                    "warmup_steps": 2,
                    "adam_beta2": 0.99,
                    "save_steps": max(1, options.steps // options.points),
                    "save_total_limit": None,
                },
            },
        )
        started = time.process_time()
        train_grpo(recipe)
        found = outcome(recipe, options)
        found["cpu_s"] = round(time.process_time() - started, 1)  # of this sitting, the judge's processes left out
        temporary = folder / f".{OUTCOME}"
        temporary.write_text(json.dumps(found))
        temporary.replace(folder / OUTCOME)
        for checkpoint in [*folder.glob("checkpoint-*"), folder / "rollouts"]:  # measured: no longer needed
            shutil.rmtree(checkpoint, ignore_errors=True)
        print(f"{name}, seed {seed}: {json.dumps(found)}", flush=True)
    tabled(options)


def recipe_of(options: argparse.Namespace, folder: Path, sections: dict[str, Any]) -> GRPORecipe:
    return GRPORecipe.model_validate(
        {
            "name": folder.name,
            "output_dir": str(folder),
            "model": {"name_or_path": str(options.run / options.start)},
            "prompt": {"style": "plain"},
            "judge": {"workers": options.workers},
            **sections,
        }
    )


def hardest(options: argparse.Namespace) -> Path:
    """The file of the problems that the starting policy solves least often, ties in the order of the training set."""
    path: Path = options.out / "hardest.parquet"
    if path.exists():
        return path
    pool = [problem for problem in load_problems(options.run / "curation" / "train.parquet") if TAG in problem.tags]
    recipe = recipe_of(
        options, options.out, {"data": {"problems": "-"}, "grpo": {"max_steps": 1, "max_completion_length": 40}}
    )
    passed = pass_rates(recipe, options.run / options.start, pool, MEASURED)
    order = sorted(range(len(pool)), key=lambda i: passed[i])[: options.hardest]
    bounds = [passed[order[0]], passed[order[-1]]]
    print(
        f"{len(order)} hardest of {len(pool)} problems: pass rates from {bounds[0]:.3f} to {bounds[1]:.3f}", flush=True
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_problems([pool[i] for i in sorted(order)], path)
    return path


def outcome(recipe: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What a run spent, how much of it carried a signal, and its curve: [steps, rollouts, tokens, held-out pass@1]."""
    from rlvr.training.checkpoints import FINAL, complete_checkpoints

    folder = Path(recipe.output_dir)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    points = {step: path for step, path in complete_checkpoints(folder) if step < len(lines)}
    points[len(lines)] = folder / FINAL
    start = Path(recipe.model.name_or_path)
    curve = [[0, 0, 0, held_out(recipe, start, options)]]
    for step, path in sorted(points.items()):
        rollouts = sum(line["budget/rollouts"] for line in lines[:step])
        curve.append([step, rollouts, lines[step - 1]["num_tokens"], held_out(recipe, path, options)])
    signal = statistics.fmean(line["effective_gradient_ratio"] for line in lines)
    return {"signal": signal, "curve": curve}


def held_out(recipe: GRPORecipe, checkpoint: Path, options: argparse.Namespace) -> float:
    """pass@1 on the held-out problems, mean over samples."""
    held = load_problems(options.run / "curation" / "heldout.parquet")
    problems = [problem for problem in held if TAG in problem.tags][: options.heldout]
    return statistics.fmean(pass_rates(recipe, checkpoint, problems, options.samples))


def pass_rates(recipe: GRPORecipe, checkpoint: Path, problems: Sequence[Problem], samples: int) -> list[float]:
    """Of every problem, the share of its samples that pass."""
    from rlvr.rewards import ProgramGrader
    from rlvr.rollouts.engine import Sampling, TransformersEngine
    from rlvr.rollouts.prompts import render_prompt
    from rlvr.training.loading import load_policy

    rows = [problem for problem in problems for _ in range(samples)]
    model, tokenizer = load_policy(recipe.model.model_copy(update={"name_or_path": str(checkpoint)}))
    engine = TransformersEngine(model, tokenizer, batch_size=256)
    prompts = [render_prompt(problem, recipe.prompt) for problem in rows]
    texts = [c.text for c in engine.generate(prompts, Sampling(recipe.grpo.max_completion_length), recipe.seed)]
    with ProgramGrader(recipe.prompt, judge=recipe.judge) as grader:
        graded = [item.accuracy for item in grader.grade(rows, texts)]
    if None in graded:
        raise SystemExit("the judge failed on a sample; nothing can be said")
    passed = np.asarray(graded, dtype=float).reshape(len(problems), samples)
    return [float(rate) for rate in passed.mean(axis=1)]


def tabled(options: argparse.Namespace) -> None:
    """Prints what is there and writes it to results.json; a policy is held against uniform on the seeds both have."""
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in RECIPES}
    for seed, name in cells(options):
        path = cell_folder(options, seed, name) / OUTCOME
        if path.exists():
            found[name][seed] = json.loads(path.read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(found, indent=1))
    print(f"\n{sum(map(len, found.values()))} of {len(cells(options))} runs are there")
    if not found["uniform"]:
        return
    cpu = sum(run.get("cpu_s", 0.0) for runs in found.values() for run in runs.values())
    start = interval([run["curve"][0][3] for run in found["uniform"].values()])
    print(f"{cpu:.0f} CPU s of the training processes; held-out pass@1 before training {start}")
    print(
        "| policy | seeds | rollouts | tokens | effective gradient ratio | pass@1 after the last step"
        " | minus uniform at equal rollouts | at equal tokens | spent for uniform's score: rollouts | tokens |"
    )
    print("|" + " --- |" * 10)
    for name in RECIPES:
        seeds = [seed for seed in found[name] if seed in found["uniform"]]
        if not seeds:
            continue
        runs = [found[name][seed] for seed in seeds]
        plain = [found["uniform"][seed] for seed in seeds]
        cells_ = [
            str(len(seeds)),
            f"{statistics.fmean(run['curve'][-1][1] for run in runs):.0f}",
            f"{statistics.fmean(run['curve'][-1][2] for run in runs):.0f}",
            interval([run["signal"] for run in runs]),
            interval([run["curve"][-1][3] for run in runs]),
        ]
        for unit in (1, 2):
            pairs = [(along(run, unit), along(base, unit)) for run, base in zip(runs, plain, strict=True)]
            cells_.append(interval([at_equal(mine, base) for mine, base in pairs]))
        for unit in (1, 2):
            shares = [
                spent / base["curve"][-1][unit] if (spent := reached(along(run, unit), base["curve"][-1][3])) else None
                for run, base in zip(runs, plain, strict=True)
            ]
            known = [share for share in shares if share is not None]
            missed = f", {len(shares) - len(known)} of {len(shares)} seeds never" if len(known) < len(shares) else ""
            cells_.append((interval(known) if known else "-") + missed)
        print(f"| {name} | " + " | ".join(cells_) + " |")
    steps = [point[0] for point in next(iter(found["uniform"].values()))["curve"]]
    print("\nheld-out pass@1 after so many steps")
    print("| policy | " + " | ".join(map(str, steps)) + " |")
    print("|" + " --- |" * (len(steps) + 1))
    for name, by_seed in found.items():
        points = zip(*([point[3] for point in run["curve"]] for run in by_seed.values()), strict=True)
        print(f"| {name} | " + " | ".join(map(interval, points)) + " |")


def along(run: dict[str, Any], unit: int) -> list[tuple[float, float]]:
    """A run's curve as (spent, pass@1); `unit` 1: rollouts, 2: tokens."""
    return [(point[unit], point[3]) for point in run["curve"]]


def at_equal(mine: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]]) -> float:
    """The difference of two curves where the cheaper one ends, the other interpolated."""
    end = min(mine[-1][0], base[-1][0])
    ours, theirs = (np.interp(end, *np.asarray(curve).T) for curve in (mine, base))
    return float(ours - theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    plain = verbs.add_parser("simulate", help="no model")
    plain.add_argument("--population", action="append", help="beta:A,B, uniform, late, late-rare; several may be given")
    plain.add_argument("--problems", type=int, default=1024)
    plain.add_argument("--per-step", type=int, default=256)
    plain.add_argument("--steps", type=int, default=60)
    plain.add_argument("--speed", type=float, default=0.3)
    plain.add_argument("--seeds", type=int, default=5)
    plain.set_defaults(run_verb=simulated)
    real = verbs.add_parser("train", help="a tiny model, real problems")
    real.add_argument("--run", type=Path, required=True, help="folder of a finished quickstart")
    real.add_argument("--out", type=Path, default=Path("runs/budget"))
    real.add_argument("--steps", type=int, default=40)
    real.add_argument("--points", type=int, default=4, help="how often on the way held-out pass@1 is measured")
    real.add_argument("--problems", type=int, default=160, help="so few that each is visited more than once")
    real.add_argument("--hardest", type=int, default=0, help="train on that many problems: those solved least often")
    real.add_argument("--start", default="sft/final", help="checkpoint in the quickstart's folder to start from")
    real.add_argument("--seeds", type=int, default=5)
    real.add_argument("--heldout", type=int, default=150)
    real.add_argument("--samples", type=int, default=4)
    real.add_argument("--workers", type=int, default=1, help="of the judge")
    real.add_argument("--table", action="store_true", help="train nothing, print what finished runs say")
    real.set_defaults(run_verb=trained)
    options = parser.parse_args()
    if getattr(options, "population", 0) is None:
        options.population = ["beta:0.5,3", "uniform", "late"]
    if getattr(options, "table", False):
        tabled(options)
    else:
        options.run_verb(options)


if __name__ == "__main__":
    main()
