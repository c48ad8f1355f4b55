"""Uniform against knapsack allocation on one GPU with pretrained models, in one call: about two hours on an H100.

    python benchmarks/gpu_comparison.py [--steps 150 --models smollm2-135m qwen2.5-coder-0.5b --out runs/gpu]
    python benchmarks/gpu_comparison.py --smoke runs/quickstart/model --out runs/smoke   # minutes, without a GPU

Wants MBPP as published at data/mbpp.jsonl.gz, or --mbpp. Fetches the models, curates MBPP, trains each model under each
policy from the same start, evaluates, and prints held-out pass@1, tokens/s, peak memory and the split of the step, with
the roofline beside: the time to read the weights once per decoding step, and to do the update's multiplications, at the
card's stated bandwidth and bf16 rate. A run that was cut short is continued by the same call.

`--smoke` walks the same road with the small model of a folder, a few steps of a few short rollouts: it shows that the
call goes through on a machine, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import yaml

# name of the card -> (bytes/s of memory, dense bf16 operations/s), as its maker states them
CARDS = {
    "H200": (4.8e12, 989e12),
    "H100": (3.35e12, 989e12),
    "A100": (2.0e12, 312e12),
    "L40S": (0.864e12, 362e12),
    "L4": (0.3e12, 121e12),
    "4090": (1.0e12, 165e12),
    "CPU": (4.0e10, 5e11),  # of --smoke: the planner's
}
RECIPES = {"smollm2-135m": "smollm2-135m-mbpp", "qwen2.5-coder-0.5b": "qwen2.5-coder-0.5b-mbpp"}
POLICIES = {
    "uniform": ["budget.policy=uniform"],
    "knapsack": ["budget.policy=knapsack", "budget.estimator=beta", "budget.high=64"],
}


SMOKE_TRAINING = [
    "prompt.style=plain", "grpo.problems_per_step=2", "grpo.num_generations=4", "grpo.per_device_train_batch_size=8",
    "grpo.max_completion_length=16", "grpo.max_length=null", "grpo.bf16=false", "grpo.save_steps=2", "data.limit=16",
]  # fmt: skip
SMOKE_EVALUATION = [
    "prompt.style=plain", "sampling.n=2", "sampling.k=[1, 2]", "sampling.max_completion_length=16", "data.limit=8",
]  # fmt: skip


class PeakMemory:
    """Largest memory in use on the first GPU while the block runs, in GiB, asked of nvidia-smi every second.

    Not a number from the moment on at which nvidia-smi gives none: a part of a peak is no peak.
    """

    def __enter__(self) -> PeakMemory:
        self.gib = 0.0 if shutil.which("nvidia-smi") else math.nan
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        while not math.isnan(self.gib) and not self._over.wait(1.0):
            found = subprocess.run(command, capture_output=True, text=True).stdout.split()
            if not found or not found[0].isdigit():
                self.gib = math.nan
                return
            self.gib = max(self.gib, int(found[0]) / 1024)


def rlvr(*arguments: str) -> None:
    print("+ rlvr", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "rlvr.cli", *arguments], check=True)


def commands(model: str, folder: Path, overrides: list[str], options: argparse.Namespace) -> list[list[str]]:
    """The arguments that train a model under a policy into `folder`, and those that evaluate what came out."""
    smoke = options.smoke is not None
    recipe = RECIPES[model]
    curated = options.out / "mbpp"
    train = [
        "train", "--config", f"configs/rl/{recipe}.yaml", f"output_dir={folder}",
        f"grpo.max_steps={options.steps}", "grpo.bf16=true", f"data.problems={curated / 'train.parquet'}",
        *overrides, *(SMOKE_TRAINING if smoke else []), *([f"model.name_or_path={options.smoke}"] if smoke else []),
    ]  # fmt: skip
    evaluate = [
        "evaluate", "--config", "configs/evaluation/smollm2-135m-mbpp.yaml",
        f"model.name_or_path={folder / 'final'}", f"output_dir={folder / 'evaluation'}",
        f"data.problems={curated / 'heldout.parquet'}", *(SMOKE_EVALUATION if smoke else []),
    ]  # fmt: skip
    return [train, evaluate]


def card(smoke: bool) -> tuple[str, tuple[float, float] | None]:
    if smoke:
        return "CPU", CARDS["CPU"]
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return name, next((figures for key, figures in CARDS.items() if key in name), None)


def weights(checkpoint: Path) -> tuple[int, int]:
    """(numbers, bytes) of a checkpoint's weights; bytes as they lie there, which is how sampling reads them."""
    from safetensors import safe_open

    numbers = 0
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                numbers += math.prod(tensors.get_slice(name).get_shape())
    return numbers, sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))


def summary(folder: Path, rates: tuple[float, float] | None) -> dict[str, float]:
    """Medians over the steps after the tenth, seconds; the roofline's seconds where the card is known."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    late = lines[10:] or lines

    def median(name: str) -> float:
        return statistics.median(line.get(name, 0.0) for line in late)

    found = {
        "steps": len(lines),
        "tokens/s": median("tokens_per_second"),
        "signal": statistics.fmean(line["effective_gradient_ratio"] for line in lines),
        **{part: median(f"time/{part}") for part in ("generate", "grade", "update")},
        "step": median("step_time"),
    }
    if rates is not None:
        bandwidth, operations = rates
        numbers, size = weights(folder / "final")
        tokens = (lines[-1]["num_tokens"] - lines[0]["num_tokens"]) / max(1, len(lines) - 1)
        trained = tokens * (1 - median("skipped_rollouts"))
        recipe = yaml.safe_load((folder / "config.resolved.yaml").read_text())
        passes = 8 if recipe["grpo"]["gradient_checkpointing"] else 6  # operations a weight and token, forward and back
        found["roofline generate"] = median("completions/max_length") * size / bandwidth
        found["roofline update"] = passes * numbers * trained / operations
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(RECIPES), default=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--dry-run", action="store_true", help="check every recipe of the run, without a GPU, and stop")
    parser.add_argument("--mbpp", type=Path, default=Path("data/mbpp.jsonl.gz"), help="MBPP as published")
    parser.add_argument("--smoke", type=Path, metavar="MODEL", help="a small model's folder: see above")
    options = parser.parse_args()
    if options.smoke is not None:
        options.models, options.steps = options.models[:1], min(options.steps, 3)
    if options.dry_run:
        for model in options.models:
            for policy, overrides in POLICIES.items():
                for arguments in commands(model, options.out / f"{model}-{policy}", overrides, options):
                    rlvr(*arguments, "--dry-run")
        return
    if options.smoke is None and shutil.which("nvidia-smi") is None:
        parser.error("no nvidia-smi on this machine: it takes an NVIDIA GPU; --dry-run and --smoke do without one")
    if not options.mbpp.is_file():
        parser.error(f"{options.mbpp}: no such file; put MBPP there as published, or name its place with --mbpp")
    name, rates = card(options.smoke is not None)
    options.out.mkdir(parents=True, exist_ok=True)
    limit = ["--limit", "60"] if options.smoke is not None else []
    source = f'sources=["mbpp:{options.mbpp}"]'
    rlvr("curate", "--config", "configs/curation/mbpp.yaml", source, "--out", str(options.out / "mbpp"), *limit)
    kept = options.out / "results.json"
    results: dict[str, dict[str, float]] = json.loads(kept.read_text())["runs"] if kept.exists() else {}
    for model in options.models:
        label = model if options.smoke is None else "smoke"
        if options.smoke is None:
            rlvr("models", "fetch", model)
        for policy, overrides in POLICIES.items():
            folder = options.out / f"{label}-{policy}"
            train, evaluate = commands(model, folder, overrides, options)
            with PeakMemory() as peak:
                rlvr(*train)
            rlvr(*evaluate)
            evaluated = json.loads((folder / "evaluation" / "results.json").read_text())["results"]
            before = results.get(f"{label}, {policy}", {}).get("peak GiB", 0.0)  # a finished run only reads its results
            row = summary(folder, rates) | {"peak GiB": peak.gib if math.isnan(peak.gib) else max(before, peak.gib)}
            row["pass@1"] = next(iter(evaluated.values()))["pass@1"]
            results[f"{label}, {policy}"] = row
            kept.write_text(json.dumps({"card": name, "runs": results}, indent=1))
    print(f"\n{name}{'' if rates else ': its bandwidth is not in the table, so no roofline'}")
    columns = list(dict.fromkeys(key for row in results.values() for key in row))
    print("| run | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for run, row in results.items():
        print(f"| {run} | " + " | ".join(f"{row.get(key, float('nan')):.4g}" for key in columns) + " |")


if __name__ == "__main__":
    main()
