"""The model card of a run: what it is, how it was made, how good it is; every figure read from the run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from rlvr.evaluation import Estimate
from rlvr.report.run_data import Run, load_run
from rlvr.report.summary import base_model, costs, find, suite_tables, what_was_trained

_MARK = "\n- rlvr\n"  # the tag by which a card is known as one of ours
_SAMPLING = ("temperature", "top_p", "top_k", "max_completion_length", "seed")
_PLACES = ("output_dir", "name", "tracking")  # of this machine, not of the method


def write_model_card(run_dir: Path) -> Path:
    """Path of `run_dir/README.md`, written whole or not at all; ValueError where that is another's file. Errors as in
    `render_report`."""
    run = load_run(Path(run_dir))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rate"] = _rate
    text = environment.get_template("card.md.j2").render(
        run=run,
        sentence=what_was_trained(run),
        base_model=base_model(run),
        tables=_tables(run),
        method=_method(run),
        data=_data(run),
        hyperparameters=[(key, _cell(value)) for key, value in _flat(run.config) if key.split(".")[0] not in _PLACES],
        environment=_environment(run),
    )
    target = run.folder / "README.md"
    if target.exists() and _MARK not in target.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{target}: is no model card of ours; move it away first")
    temporary = target.with_name(f".README.md.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
    return target


def _rate(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{100 * estimate.value:.1f} [{100 * estimate.ci95[0]:.1f}, {100 * estimate.ci95[1]:.1f}]"


def _tables(run: Run) -> list[dict[str, Any]]:
    found = []
    for table in suite_tables(run):
        settings = ", ".join(f"{key} {value}" for key in _SAMPLING if (value := find(table.config, key)) is not None)
        found.append({"suite": table.suite, "metrics": table.metrics, "rows": table.rows, "samples": table.samples,
                      "settings": settings})  # fmt: skip
    return found


def _method(run: Run) -> list[str]:
    lines = []
    if run.sft:
        steps = sum(segment.last_step for segment in run.sft)
        lines.append(f"Supervised fine-tuning, {steps:,} optimiser steps.")
    for segment in run.rl:
        low = [row["budget/n_min"] for row in segment.rows if "budget/n_min" in row]
        high = [row["budget/n_max"] for row in segment.rows if "budget/n_max" in row]
        groups = ""
        if low and high:
            groups = f", {min(low):g} rollouts per problem" if min(low) == max(high) else (
                f", {min(low):g} to {max(high):g} rollouts per problem, shared out by expected learning value "
                "(Knapsack RL, arXiv 2509.25849)"
            )  # fmt: skip
        lines.append(f"{segment.name}: GRPO (arXiv 2402.03300), {len(segment.rows):,} steps{groups}.")
    if len(run.rl) > 1:
        lines.append(
            "Training in stages after DRIVE (arXiv 2511.06307); the recipe below says what each stage trained on."
        )
    if run.rl:
        lines.append("A judge failure has no reward: such rollouts are left out, never counted as wrong.")
    return lines or ["No training metrics were found in the run's folder."]


def _data(run: Run) -> list[str]:
    lines = []
    problems = find(run.config, "problems", "source", kind=str)
    if problems:
        lines.append(f"Problems: `{problems}`")
    fingerprint = run.environment.get("data_fingerprint")
    if fingerprint:
        lines.append(f"Data fingerprint: `{fingerprint}`")
    if (run.folder / "curation" / "report.html").is_file():
        lines.append("Curation report: [curation/report.html](curation/report.html)")
    return lines


def _environment(run: Run) -> list[str]:
    lines = [f"{what}: {value}{f' ({note})' if note else ''}" for what, value, note in costs(run)]
    facts = run.environment
    if isinstance(facts.get("versions"), dict):
        lines.append("Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    if facts.get("git_revision"):
        lines.append(f"Revision of the code: `{facts['git_revision']}`")
    seed = find(run.config, "seed")
    if seed is not None:
        lines.append(f"Seed: {seed}")
    return lines or ["No `environment.json` was found in the run's folder."]


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], ""):
            yield f"{prefix}{key}", value


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()).replace("|", "\\|")[:200]
