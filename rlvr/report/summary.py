"""The numbers of a report in words and tables: what was trained, before and after, at which cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlvr.evaluation import Estimate, PairedDifference, SuiteMetrics, compare, difficulty_key
from rlvr.report.run_data import Evaluation, Run, Segment


@dataclass(frozen=True, slots=True)
class Cell:
    """A rate with its interval; `gain` over the first checkpoint, where problems can be paired."""

    estimate: Estimate | None
    gain: PairedDifference | None = None


@dataclass(frozen=True, slots=True)
class TableRow:
    """One checkpoint at one difficulty; `cells` by metric name."""

    difficulty: str
    problems: int
    label: str
    first_of_level: bool
    checkpoints: int
    cells: dict[str, Cell]
    truncation_rate: float


@dataclass(frozen=True, slots=True)
class SuiteTable:
    suite: str
    metrics: list[str]
    rows: list[TableRow]
    labels: list[str]
    samples: int
    config: dict[str, Any]
    infrastructure_errors: int

    def cell(self, label: str, metric: str) -> Cell:
        """The cell over all problems; `label` of a checkpoint."""
        for row in self.rows:
            if row.difficulty == "all" and row.label == label:
                return row.cells[metric]
        raise KeyError(label)


def suite_tables(run: Run) -> list[SuiteTable]:
    return [_table(suite, evaluations) for suite, evaluations in run.suites.items()]


def _table(suite: str, evaluations: Sequence[Evaluation]) -> SuiteTable:
    ks = sorted({k for evaluation in evaluations for k in evaluation.metrics.pass_at})
    metrics = [f"pass@{k}" for k in ks]
    if any(evaluation.metrics.greedy for evaluation in evaluations):
        metrics.append("greedy")
    levels = ["all", *sorted({d for e in evaluations for d in e.metrics.by_difficulty}, key=difficulty_key)]
    first = evaluations[0]
    gains = {id(e): _gains(first, e, suite) for e in evaluations[1:]}
    rows = []
    for level in levels:
        present = [e for e in evaluations if level == "all" or level in e.metrics.by_difficulty]
        for place, evaluation in enumerate(present):
            part = evaluation.metrics if level == "all" else evaluation.metrics.by_difficulty[level]
            paired = gains.get(id(evaluation), {}).get(level, {})
            cells = {name: Cell(_estimate(part, name), paired.get(name)) for name in metrics}
            rows.append(
                TableRow(level, part.problems, evaluation.label, place == 0, len(present), cells, part.truncation_rate)
            )
    return SuiteTable(
        suite=suite,
        metrics=metrics,
        rows=rows,
        labels=[evaluation.label for evaluation in evaluations],
        samples=max(evaluation.results.n_samples for evaluation in evaluations),
        config=evaluations[-1].results.config,
        infrastructure_errors=sum(evaluation.metrics.infrastructure_errors for evaluation in evaluations),
    )


def _gains(first: Evaluation, other: Evaluation, suite: str) -> dict[str, dict[str, PairedDifference]]:
    try:
        return compare(first.results, other.results, suite=suite).differences
    except ValueError:  # results that do not hold their problems, or different ones: no pairing, no gain shown
        return {}


def _estimate(metrics: SuiteMetrics, name: str) -> Estimate | None:
    return metrics.greedy if name == "greedy" else metrics.pass_at.get(int(name[5:]))


def find(config: Any, *names: str, kind: type = object) -> Any:
    """The first value of the kind under one of the keys, anywhere in the recipe, nearest the top first, or None."""
    level = [config]
    while level:
        mappings = [part for part in level if isinstance(part, dict)]
        for name in names:
            for mapping in mappings:
                value = mapping.get(name)
                if value is not None and not isinstance(value, dict) and isinstance(value, kind):
                    return value
        level = [value for mapping in mappings for value in mapping.values()]
    return None


def base_model(run: Run) -> str | None:
    """Name of the model that was trained, None when the recipe does not name one."""
    name = find(run.config, "name_or_path", "model_name_or_path", "base_model")
    return str(name) if name else None


def what_was_trained(run: Run) -> str:
    """One sentence from the recipe and the metrics."""
    model = base_model(run)
    section = run.config.get("model")
    if model is None and isinstance(section, dict) and {"hidden", "layers"} <= set(section):
        model = f"A new model of {section['layers']} layers and width {section['hidden']}"
        if str(section.get("family", "")).endswith("_moe"):
            model += f" with {section['experts']} experts a layer, {section['top_k']} of them for a token"
    stages = [_stage_words(segment, run) for segment in run.segments]
    if not stages:
        return f"{model or 'The model'}: no training metrics in this folder."
    return f"{model or 'The model'}, trained in {_joined(stages)}."


def _stage_words(segment: Segment, run: Run) -> str:
    steps = segment.last_step - int(segment.rows[0]["step"]) + 1 if segment.offset else segment.last_step
    if segment.kind == "rl" and segment.rows[0]["step"] > 1:
        steps = segment.last_step - int(segment.rows[0]["step"]) + 1
    if segment.kind == "sft":
        return f"{steps:,} steps of supervised fine-tuning"
    return f"{steps:,} GRPO steps{f' ({segment.name})' if len(run.rl) > 1 else ''}"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def costs(run: Run) -> list[tuple[str, str, str]]:
    """(what, value, note) for the cost cards; only what the files say."""
    found = []
    if run.segments:
        parts = ", ".join(f"{segment.name} {duration(segment.seconds)}" for segment in run.segments)
        found.append(
            (
                "Time in training steps",
                duration(sum(s.seconds for s in run.segments)),
                parts if len(run.segments) > 1 else "",
            )
        )
    spent = sum(e.results.cost.generate_s + e.results.cost.grade_s for e in run.evaluations)
    if spent:
        found.append(
            (
                "Evaluation time",
                duration(spent),
                f"{len(run.evaluations)} evaluation{'s' if len(run.evaluations) > 1 else ''}",
            )
        )
    if run.rollouts:
        steps = sum(len(segment.rows) for segment in run.rl)
        found.append(("Rollouts", f"{run.rollouts:,}", f"{run.rollouts / steps:,.0f} a step" if steps else ""))
    if run.tokens:
        found.append(("Tokens", compact(run.tokens), "prompt and completion, seen in training"))
    hardware = hardware_words(run)
    if hardware:
        found.append(("Hardware", hardware[0], hardware[1]))
    return found


def hardware_words(run: Run) -> tuple[str, str] | None:
    """(main device, the rest) from environment.json; None when it says nothing."""
    facts = run.environment
    devices = facts.get("gpus") or facts.get("devices") or facts.get("gpu")
    if isinstance(devices, list) and devices:
        names = [str(device.get("name", device)) if isinstance(device, dict) else str(device) for device in devices]
        main = f"{len(names)} x {names[0]}" if len(names) > 1 else names[0]
    elif isinstance(devices, str):
        main = devices
    else:
        main = ""
    processor = []
    if facts.get("cores"):
        processor.append(f"{facts['cores']} CPU cores")
    if facts.get("memory_gib"):
        processor.append(f"{facts['memory_gib']} GiB memory")
    if not main and not processor:
        return None
    return (main, ", ".join(processor)) if main else (processor[0], ", ".join(processor[1:]))


def duration(seconds: float) -> str:
    """Seconds as "42 s", "3 min 20 s" or "5 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def compact(number: float) -> str:
    """1234567 as "1.23 M"."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"
