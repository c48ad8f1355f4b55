"""Where the rollouts go and what it is worth: uniform, dynamic sampling and knapsack with either estimator.

    python benchmarks/budget_policies.py simulate [--seeds 5]
    python benchmarks/budget_policies.py train --run runs/quickstart [--seeds 5 --steps 24 --out runs/budget]

`simulate` needs no model: problems are coins whose success rates a mixed group raises (rlvr/budget/simulate.py); every
policy spends the same rollouts. `train` starts every policy from the SFT checkpoint of a quickstart run, trains on its
problems for the same number of steps and measures pass@1 on its held-out problems at the checkpoints on the way.
Intervals are 95 % t-intervals over seeds; differences are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from scipy import stats

from rlvr.budget import AllocationPolicy, DynamicSampling, Knapsack, Uniform
from rlvr.budget.simulate import population, simulate

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


def trained(options: argparse.Namespace) -> None:
    from rlvr.config import GRPORecipe
    from rlvr.training.grpo import train_grpo

    started = time.process_time()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in RECIPES}
    for seed in range(options.seeds):
        for name, budget in RECIPES.items():
            out = options.out / f"{name.replace(' ', '-').strip('()')}-{seed}"
            recipe = GRPORecipe.model_validate(
                {
                    "name": out.name,
                    "output_dir": str(out),
                    "seed": seed,
                    "model": {"name_or_path": str(options.run / "sft" / "final")},
                    "data": {"problems": str(options.run / "curation" / "train.parquet"), "limit": options.problems},
                    "prompt": {"style": "plain"},
                    "budget": budget,
                    "grpo": {
                        "problems_per_step": 16,
                        "num_generations": 8,
                        "per_device_train_batch_size": 128,
                        "max_steps": options.steps,
                        "max_completion_length": 40,
                        "learning_rate": 6.0e-4,
                        "warmup_steps": 2,
                        "adam_beta2": 0.99,
                        "save_steps": max(1, options.steps // 2),
                        "save_total_limit": None,
                    },
                }
            )
            train_grpo(recipe)
            results[name].append(outcome(recipe, options))
            print(f"{name} {seed}: {json.dumps(results[name][-1])}", flush=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    print(f"\n{options.seeds} seeds, {options.steps} steps of 128 rollouts, {time.process_time() - started:.0f} CPU s")
    print("| policy | rollouts sampled | tokens | effective gradient ratio | held-out pass@1 | minus uniform |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        gain = [run["pass@1"][-1] - plain["pass@1"][-1] for run, plain in zip(runs, results["uniform"], strict=True)]
        print(
            f"| {name} | {statistics.fmean(r['rollouts'] for r in runs):.0f}"
            f" | {statistics.fmean(r['tokens'] for r in runs):.0f} | {interval([r['signal'] for r in runs])}"
            f" | {interval([r['pass@1'][-1] for r in runs])} | {interval(gain)} |"
        )


def outcome(recipe: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What a run spent, how much of it carried a signal, and pass@1 on held-out problems halfway and at the end."""
    from data_curation import load_problems
    from rlvr.rewards import ProgramGrader
    from rlvr.rollouts.engine import Sampling, TransformersEngine
    from rlvr.rollouts.prompts import render_prompt
    from rlvr.training.checkpoints import complete_checkpoints
    from rlvr.training.loading import load_policy

    folder = Path(recipe.output_dir)
    cached = folder / "outcome.json"
    if cached.exists():
        return json.loads(cached.read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    heldout = load_problems(options.run / "curation" / "heldout.parquet")[: options.heldout]
    rows = [problem for problem in heldout for _ in range(options.samples)]
    scores = []
    checkpoints = [*[path for _, path in complete_checkpoints(folder)][:-1], folder / "final"]
    with ProgramGrader(recipe.prompt, judge=recipe.judge) as grader:
        for path in checkpoints:
            model, tokenizer = load_policy(recipe.model.model_copy(update={"name_or_path": str(path)}))
            engine = TransformersEngine(model, tokenizer, batch_size=256)
            prompts = [render_prompt(problem, recipe.prompt) for problem in rows]
            texts = [c.text for c in engine.generate(prompts, Sampling(recipe.grpo.max_completion_length), recipe.seed)]
            graded = [g.accuracy for g in grader.grade(rows, texts) if g.accuracy is not None]
            scores.append(sum(graded) / len(graded))
    found = {
        "rollouts": sum(line["budget/rollouts"] for line in lines),
        "tokens": lines[-1]["num_tokens"],
        "signal": statistics.fmean(line["effective_gradient_ratio"] for line in lines),
        "pass@1": scores,
    }
    cached.write_text(json.dumps(found))
    return found


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
    real.add_argument("--steps", type=int, default=24)
    real.add_argument("--problems", type=int, default=160, help="so few that each is visited more than once")
    real.add_argument("--seeds", type=int, default=5)
    real.add_argument("--heldout", type=int, default=100)
    real.add_argument("--samples", type=int, default=4)
    real.set_defaults(run_verb=trained)
    options = parser.parse_args()
    if getattr(options, "population", 0) is None:
        options.population = ["beta:0.5,3", "uniform", "late"]
    options.run_verb(options)


if __name__ == "__main__":
    main()
