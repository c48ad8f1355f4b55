"""The whole road at a size two cores walk in minutes: curate, SFT, two GRPO stages, evaluate, report.

Every stage is the real one, called as its own verb calls it. What is small: the problems (a generated family of list
pipelines beside the hand-made contest set), the policy (a Llama of under a million parameters, built here) and the
number of steps. A stage that is finished is not run again, a stage that was interrupted continues.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rlvr.config import (
    EvaluationRecipe,
    ModelSection,
    QuickstartRecipe,
    SFTRecipe,
    write_resolved,
)
from rlvr.config.evaluation import EvaluationData
from rlvr.config.quickstart import PROMPT

CHECKPOINTS = ("sft", "stage1", "stage2")


def quickstart(recipe: QuickstartRecipe) -> Path:
    """Runs what is left of the road and returns the path of the report."""
    started = time.perf_counter()
    _use_cores(recipe)
    folder = Path(recipe.output_dir)
    write_resolved(recipe, folder)
    with _announced("1/6 curate the built-in problems"):
        _curate(recipe)
    with _announced("2/6 build a tiny policy and warm it up (SFT)"):
        sft = _sft(recipe)
    with _announced("3/6 GRPO stage 1: broad set"):
        stage1 = _stage(recipe, "stage1", sft)
    with _announced("4/6 GRPO stage 2: hard focus"):
        stage2 = _stage(recipe, "stage2", stage1)
    with _announced("5/6 evaluate on held-out problem families"):
        results = {
            name: _evaluate(recipe, name, checkpoint)
            for name, checkpoint in zip(CHECKPOINTS, (sft, stage1, stage2), strict=True)
        }
    with _announced("6/6 report"):
        from rlvr.report import render_report, write_model_card

        report = render_report(folder)
        write_model_card(folder)
    _print_table(results)
    print(f"\n{time.perf_counter() - started:.0f} s. Report: {report}", flush=True)
    return report


def _use_cores(recipe: QuickstartRecipe) -> None:
    """Thread settings must be in place before torch is imported. Spinning threads are right when the run owns the
    machine, and the judge's workers only run while the trainer waits for them."""
    threads = recipe.threads or min(4, os.cpu_count() or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from a hub


def _curate(recipe: QuickstartRecipe) -> None:
    from data_curation.pipeline import curate

    curate(recipe.curation, recipe.curated)


def _sft(recipe: QuickstartRecipe) -> Path:
    folder = Path(recipe.output_dir)
    model, demonstrations = folder / "model", recipe.curated / "sft.parquet"
    if not model.is_dir():
        import pyarrow.parquet as pq

        from rlvr.models import build_tiny_policy

        size = recipe.model
        rows = pq.read_table(demonstrations, columns=["prompt", "completion"]).to_pylist()
        build_tiny_policy(
            (row["prompt"] + row["completion"] for row in rows[: size.tokenizer_samples]),
            model,
            seed=recipe.seed,
            **size.model_dump(exclude={"tokenizer_samples"}),
        )
    from rlvr.training.sft import train_sft

    return train_sft(
        SFTRecipe(
            name=f"{recipe.name}-sft",
            output_dir=str(folder / "sft"),
            seed=recipe.seed,
            model=ModelSection(name_or_path=str(model)),
            data=str(demonstrations),
            sft=recipe.sft,
            tracking=recipe.tracking,
        )
    )


def _stage(recipe: QuickstartRecipe, name: Literal["stage1", "stage2"], start: Path) -> Path:
    from rlvr.training.grpo import train_grpo

    return train_grpo(recipe.stage(name, start))


def _evaluate(recipe: QuickstartRecipe, name: str, checkpoint: Path) -> Any:
    from rlvr.evaluation.evaluate import evaluate

    return evaluate(
        EvaluationRecipe(
            suite="heldout",
            output_dir=str(Path(recipe.output_dir) / "evaluation" / name),
            seed=recipe.seed,
            model=ModelSection(name_or_path=str(checkpoint)),
            data=EvaluationData(problems=str(recipe.curated / "heldout.parquet"), tags=["pipelines"]),
            prompt=PROMPT,
            sampling=recipe.evaluation,
            judge=recipe.judge,
        )
    )


def _print_table(results: dict[str, Any]) -> None:
    print("\nheld-out problems, mean and 95% interval")
    for name, result in results.items():
        metrics = result.results["heldout"]
        cells = [f"pass@{k} {e.value:.3f} [{e.ci95[0]:.3f}, {e.ci95[1]:.3f}]" for k, e in metrics.pass_at.items()]
        if metrics.greedy is not None:
            cells.append(f"greedy {metrics.greedy.value:.3f}")
        levels = " ".join(f"{level} {part.pass_at[1].value:.2f}" for level, part in metrics.by_difficulty.items())
        print(f"  {name:7s} {'  '.join(cells)}  ({levels})")


@contextmanager
def _announced(what: str) -> Iterator[None]:
    started = time.perf_counter()
    print(f"\n== {what}", flush=True)
    yield
    print(f"== {what}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
