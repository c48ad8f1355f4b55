"""What a run's folder holds, read tolerantly: a report shows what is there and says what is not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import yaml

from rlvr.config.load import RESOLVED
from rlvr.evaluation import Results, SuiteMetrics, read_results

BEFORE_TRAINING = ("base", "before", "initial", "init", "untrained")


@dataclass(frozen=True, slots=True)
class Segment:
    """The metric rows of one stage, in step order; `offset` turns its steps into places on the common axis."""

    name: str
    kind: Literal["sft", "rl"]
    rows: list[dict[str, Any]]
    offset: int = 0

    def series(self, metric: str) -> tuple[list[float], list[float]]:
        """(places on the axis, values) of the rows that have the metric."""
        found = [(row["step"] + self.offset, row[metric]) for row in self.rows if is_number(row.get(metric))]
        return [float(x) for x, _ in found], [float(y) for _, y in found]

    @property
    def last_step(self) -> int:
        return int(self.rows[-1]["step"])

    @property
    def seconds(self) -> float:
        """Seconds in training steps: `step_time` summed, else from the first to the last row."""
        times = [row["step_time"] for row in self.rows if is_number(row.get("step_time"))]
        if times:
            return float(sum(times))
        stamps = [row["time"] for row in self.rows if is_number(row.get("time"))]
        return float(stamps[-1] - stamps[0]) if stamps else 0.0


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """One step's rollouts; `rows` from the file's footer."""

    stage: str
    step: int
    path: Path
    rows: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One checkpoint on one suite."""

    label: str
    suite: str
    metrics: SuiteMetrics
    results: Results


@dataclass(slots=True)
class Run:
    """A run as found on disk; `missing` holds one line for each thing that is absent or broken."""

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    rollout_files: list[RolloutFile] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    funnel: Any = None
    tokens: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def rl(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.kind == "rl"]

    @property
    def sft(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.kind == "sft"]

    @property
    def suites(self) -> dict[str, list[Evaluation]]:
        """Evaluations by suite, each from the least to the most trained checkpoint."""
        suites: dict[str, list[Evaluation]] = {}
        for evaluation in self.evaluations:
            suites.setdefault(evaluation.suite, []).append(evaluation)
        return {suite: self._in_training_order(found) for suite, found in suites.items()}

    @property
    def rollouts(self) -> int:
        """Rollouts sampled in training: from the allocation histograms, else from the rollout files."""
        counted = [
            sum(int(n) * count for n, count in row["budget/allocation_histogram"].items())
            for segment in self.rl
            for row in segment.rows
            if isinstance(row.get("budget/allocation_histogram"), dict)
        ]
        return max(sum(counted), sum(file.rows for file in self.rollout_files))

    def _in_training_order(self, evaluations: list[Evaluation]) -> list[Evaluation]:
        stages = {segment.name: place for place, segment in enumerate(self.segments)}
        places: list[float] = []
        for evaluation in evaluations:
            label = evaluation.label.lower()
            number = re.search(r"checkpoint-(\d+)", label)
            if label in BEFORE_TRAINING:
                places.append(-1)
            elif label == "final":
                places.append(math.inf)
            elif label in stages:
                places.append(stages[label])
            elif number:
                places.append(int(number[1]))
            else:  # no order in the names: the order in which they were evaluated
                return sorted(evaluations, key=lambda e: e.results.date)
        return [e for _, e in sorted(zip(places, evaluations, strict=True), key=lambda pair: pair[0])]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def load_run(folder: Path) -> Run:
    """The run in `folder`: one training run, or a quickstart with a folder for each stage.

    FileNotFoundError when there is no such folder, ValueError when it holds nothing of a run.
    """
    if folder.is_file():
        raise FileNotFoundError(f"{folder}: is a file; give the folder of a run, for example runs/quickstart")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the folder of a run, for example runs/quickstart")
    run = Run(folder, name=folder.resolve().name)
    bases = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and _is_stage(path))]
    # A stage run by itself keeps its own recipe; a quickstart has one for all, and an environment in each stage.
    run.config = _first_mapping(bases, RESOLVED, run, "the resolved recipe")
    run.environment = _first_mapping([folder, *reversed(bases[1:])], "environment.json", run, "versions and hardware")
    for base in bases:
        if (base / "metrics.jsonl").is_file():
            segments = _read_metrics(base / "metrics.jsonl", run, default="train" if base is folder else base.name)
            run.segments += segments
            run.tokens += _tokens(segments)
        run.rollout_files += _rollout_files(base, run)
        run.evaluations += _read_evaluations(base / "evaluation", run)
    if (folder / "curation" / "funnel.json").is_file():
        run.funnel = json.loads((folder / "curation" / "funnel.json").read_text(encoding="utf-8"))
    run.segments = _on_one_axis(sorted(run.segments, key=lambda s: (s.kind == "rl", s.rows[0].get("time", 0.0))))
    if not run.segments and not run.rollout_files and not run.evaluations:
        raise ValueError(f"{folder}: no metrics.jsonl, rollouts or evaluation in it; is it the folder of a run?")
    order = {segment.name: place for place, segment in enumerate(run.segments)}
    run.rollout_files.sort(key=lambda file: (order.get(file.stage, len(order)), file.stage, file.step))
    _note_absences(run)
    return run


def _is_stage(path: Path) -> bool:
    return path.name != "evaluation" and ((path / "metrics.jsonl").is_file() or (path / "rollouts").is_dir())


def _first_mapping(bases: list[Path], name: str, run: Run, what: str) -> dict[str, Any]:
    """Content of the first of the bases' files that is readable; noted as missing when there is none."""
    present = [base / name for base in bases if (base / name).is_file()]
    for path in present:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
        except yaml.YAMLError:
            content = None
        if isinstance(content, dict):
            return content
    run.missing.append(f"{name}{' is unreadable' if present else ''} ({what})")
    return {}


def _read_metrics(path: Path, run: Run, default: str) -> list[Segment]:
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    broken = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                step = int(row["step"])
            except (json.JSONDecodeError, KeyError, TypeError, ValueError):
                broken.append(number)
                continue
            # A resumed run logs some steps twice and TRL may log a step in several lines: the later value stands.
            stages.setdefault(str(row.get("stage") or default), {}).setdefault(step, {}).update(row)
    if broken:
        where = path.relative_to(run.folder)
        run.missing.append(f"{where}: line {broken[0]} is no metric row and was skipped" + _and_more(len(broken) - 1))
    segments = []
    for name, rows in stages.items():
        kind: Literal["sft", "rl"] = "rl" if any("reward" in row for row in rows.values()) else "sft"
        segments.append(Segment(name, kind, [rows[step] for step in sorted(rows)]))
    if not segments:
        run.missing.append(f"{path.relative_to(run.folder)} holds no metric row yet")
    return segments


def _tokens(segments: list[Segment]) -> int:
    """Tokens seen: the counter is cumulative, and starts anew with each trainer."""
    total, before = 0.0, 0.0
    for segment in segments:
        for row in segment.rows:
            if is_number(row.get("num_tokens")):
                total += row["num_tokens"] - (before if row["num_tokens"] >= before else 0.0)
                before = row["num_tokens"]
    return int(total)


def _and_more(count: int) -> str:
    return f", {count} more lines too" if count > 0 else ""


def _on_one_axis(segments: list[Segment]) -> list[Segment]:
    """RL stages one after the other: a stage whose steps start anew is moved behind the one before."""
    placed, end = [], 0
    for segment in segments:
        if segment.kind == "sft":
            placed.append(segment)
            continue
        offset = end if segment.rows[0]["step"] <= end else 0
        placed.append(Segment(segment.name, segment.kind, segment.rows, offset))
        end = segment.last_step + offset
    return placed


def _rollout_files(base: Path, run: Run) -> Iterator[RolloutFile]:
    for path in sorted((base / "rollouts").glob("**/step-*.parquet")):
        match = re.fullmatch(r"step-(\d+)\.parquet", path.name)
        if not match:
            continue
        in_stage = path.parent.name != "rollouts"
        stage = path.parent.name if in_stage else ("train" if base == run.folder else base.name)
        try:
            rows = pq.read_metadata(path).num_rows
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            run.missing.append(f"{path.relative_to(run.folder)} is unreadable ({str(error).splitlines()[0]})")
            continue
        yield RolloutFile(stage, int(match[1]), path, rows)


def _read_evaluations(folder: Path, run: Run) -> Iterator[Evaluation]:
    for path in sorted(folder.glob("**/results.json")):
        try:
            results = read_results(path)
        except ValueError as error:
            run.missing.append(str(error).replace(str(run.folder), run.name))
            continue
        for suite, metrics in results.results.items():
            checkpoint = Path(results.checkpoint).name or "checkpoint"
            label = checkpoint if path.parent.name == suite or path.parent == folder else path.parent.name
            if label == suite:
                label = path.parent.parent.name
            yield Evaluation(label, suite, metrics, results)


def _note_absences(run: Run) -> None:
    if not run.segments:
        run.missing.append("metrics.jsonl: no training curve to show")
    elif not run.rl:
        run.missing.append("metrics of a reinforcement learning stage: only supervised fine-tuning has been logged")
    if not run.rollout_files and (run.rl or not run.segments):
        run.missing.append("rollouts/*.parquet: no rollouts to look at")
    if not run.evaluations:
        run.missing.append("evaluation/*/results.json: no evaluated checkpoint; `rlvr evaluate` adds them")
    elif all(len(found) < 2 for found in run.suites.values()):
        run.missing.append("a second evaluated checkpoint: there is no before and after to compare")
    for segment in run.rl:
        declared = _declared_steps(run.config, segment.name)
        if declared is not None and segment.last_step < declared:
            run.missing.append(
                f"{segment.name}: {segment.last_step} of {declared} steps are there (interrupted or running)"
            )


def _declared_steps(config: dict[str, Any], stage: str) -> int | None:
    """Steps the recipe gives a stage: those of its curriculum's phases, else max_steps; None when it does not say."""
    section = config if config.get("stage") == stage else config.get(stage)
    if not isinstance(section, dict):
        return None
    phases = (section.get("curriculum") or {}).get("phases") or []
    steps = sum(phase.get("steps", 0) for phase in phases) or (section.get("grpo") or {}).get("max_steps")
    return steps if isinstance(steps, int) else None
