"""What the two stages are worth: both, the broad one alone, the hard one alone, a small set of easy and hard problems.

    python benchmarks/curriculum.py --run runs/quickstart [--run runs/quickstart-seed1 ...] --out runs/curriculum

Each run is a finished quickstart, whose own two stages are the first arm. The others start from its SFT checkpoint and
spend the same number of steps and rollouts by the recipes of its stages: stage 1 to the end; stage 2 from the start,
its phases stretched; stage 1 on as few problems as the first phase has, taken at random from those of both stages.
pass@1 is on its held-out problems, whose families no training set holds, and on the training problems of the hard
phase's size that the SFT policy solves least often. A call that was cut short is continued by the same call.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from budget_policies import TAG, interval, pass_rates

from data_curation import Problem, load_problems, save_problems
from rlvr.config import GRPORecipe, load_recipe
from rlvr.config.load import RESOLVED

ARMS = ("both stages", "broad only", "hard only", "small, easy and hard")
MEASURED = 8  # samples by which problems are ranked, and of every evaluation


def recipe_of(arm: str, run: Path, out: Path) -> GRPORecipe:
    """The recipe of an arm, from those of the stages of `run`."""
    stage1, stage2 = (load_recipe(GRPORecipe, run / name / RESOLVED) for name in ("stage1", "stage2"))
    steps = stage1.steps + stage2.steps
    chosen = stage2 if arm == "hard only" else stage1
    values = chosen.model_dump(mode="json")
    values |= {"name": out.name, "output_dir": str(out), "evaluation": None}
    values["model"]["name_or_path"] = str(run / "sft" / "final")
    values["data"]["problems"] = str(run / "curation" / "train.parquet")
    values["grpo"]["save_steps"] = steps
    if arm == "hard only":
        phases = stage2.curriculum.phases
        share = [round(steps * phase.steps / stage2.steps) for phase in phases]
        share[-1] = steps - sum(share[:-1])
        for phase, stretched in zip(values["curriculum"]["phases"], share, strict=True):
            phase["steps"] = stretched
    else:
        values["grpo"]["max_steps"] = steps
    if arm == "small, easy and hard":
        values["data"] = {"problems": str(small_set(run, stage2, out.with_suffix(".parquet")))}
    return GRPORecipe.model_validate(values)


def family(run: Path, name: str) -> list[Problem]:
    return [problem for problem in load_problems(run / "curation" / f"{name}.parquet") if TAG in problem.tags]


def small_set(run: Path, stage2: GRPORecipe, path: Path) -> Path:
    pool = family(run, "train")
    size = stage2.curriculum.phases[0].problems or len(pool)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(stage2.seed).choice(len(pool), size, replace=False)
    save_problems([pool[i] for i in sorted(drawn)], path)
    return path


def hardest(run: Path, stage2: GRPORecipe) -> list[Problem]:
    """Training problems that the SFT policy solves least often, as many as the hard stage begins with."""
    pool = family(run, "train")
    rates = pass_rates(stage2, run / "sft" / "final", pool, MEASURED)
    return [pool[i] for i in sorted(range(len(pool)), key=lambda i: rates[i])[: stage2.curriculum.phases[0].problems]]


def measured(run: Path, out: Path) -> dict[str, Any]:
    """Trains the arms that are missing; returns arm -> pass@1 held out, by difficulty, and of the hard problems."""
    from rlvr.training.grpo import train_grpo

    path = out / "outcome.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    stage2 = load_recipe(GRPORecipe, run / "stage2" / RESOLVED)
    held = family(run, "heldout")
    hard: list[Problem] = []
    for arm in [arm for arm in ("SFT", *ARMS) if arm not in found]:
        hard = hard or hardest(run, stage2)
        if arm == "SFT":
            checkpoint = run / "sft" / "final"
        elif arm == "both stages":
            checkpoint = run / "stage2" / "final"
        else:
            checkpoint = train_grpo(recipe_of(arm, run, out / arm.replace(" ", "-").replace(",", "")))
        rates = pass_rates(stage2, checkpoint, held, MEASURED)
        levels = sorted({problem.difficulty for problem in held if problem.difficulty})
        found[arm] = {
            "held out": statistics.fmean(rates),
            **{level: statistics.fmean(r for r, p in zip(rates, held, strict=True) if p.difficulty == level)
               for level in levels},
            "hard, trained on": statistics.fmean(pass_rates(stage2, checkpoint, hard, MEASURED)),
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
        print(f"{run}, {arm}: {json.dumps(found[arm])}", flush=True)
    return found


def table(outcomes: Sequence[dict[str, Any]]) -> None:
    columns = list(outcomes[0]["SFT"])
    print(f"\n{len(outcomes)} run(s); percent, 95 % t-intervals over runs where there are several")
    print("| trained on | " + " | ".join(columns) + " | minus both stages, held out |")
    print("| --- |" + " ---: |" * (len(columns) + 1))
    for arm in ("SFT", *ARMS):
        cells = [interval([outcome[arm][column] for outcome in outcomes], 100) for column in columns]
        behind = [outcome[arm]["held out"] - outcome["both stages"]["held out"] for outcome in outcomes]
        print(f"| {arm} | " + " | ".join(cells) + f" | {interval(behind, 100)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="a finished quickstart; repeatable")
    parser.add_argument("--out", type=Path, default=Path("runs/curriculum"))
    options = parser.parse_args()
    table([measured(run, options.out / run.name) for run in options.run])


if __name__ == "__main__":
    main()
