"""The files a curation run leaves: problems of both sides, the SFT corpus, what was dropped, and the records."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import sandbox
from data_curation import builtin
from data_curation.card import dataset_card
from data_curation.config import CurationConfig
from data_curation.dataset import write_dataset
from data_curation.exports import write_export
from data_curation.facts import Fact, SftCounts, statement_hash
from data_curation.report import write_report
from data_curation.schema import Problem
from data_curation.stages.result import Dropped
from data_curation.stages.split import HELDOUT
from data_curation.steps import StepRecord, file_hash
from data_curation.storage import save_bytes, save_problems, save_table
from data_curation.stored import StoredProblems

SFT_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("prompt", pa.large_string()),
        ("completion", pa.large_string()),
        ("family", pa.string()),
        ("passes", pa.bool_()),
    ]
)
DROPPED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.large_string()),
        ("kept_instead", pa.string()),
    ]
)
VERIFICATION_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("accepted", pa.int64()),
        ("accepted_passed", pa.int64()),
        ("wrong", pa.int64()),
        ("wrong_rejected", pa.int64()),
        ("otherwise_rejected", pa.int64()),
        ("not_run", pa.int64()),
        ("true_positive_rate", pa.float64()),
        ("true_negative_rate", pa.float64()),
        ("thinned", pa.int64()),
        ("repair", pa.string()),
        ("cause", pa.string()),
        ("missing_module", pa.string()),
        ("weaknesses", pa.list_(pa.string())),
        ("failure", pa.string()),
    ]
)
DIFFICULTY_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("passed", pa.int64()),
        ("samples", pa.int64()),
        ("rate", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("rating", pa.float64()),
        ("source_label", pa.string()),
        ("label", pa.string()),
    ]
)
STRENGTHENING_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("references", pa.int64()),
        ("wrong", pa.int64()),
        ("accepted_before", pa.int64()),
        ("accepted_after", pa.int64()),
        ("unseen", pa.int64()),
        ("unseen_accepted_before", pa.int64()),
        ("unseen_accepted_after", pa.int64()),
        ("inputs_tried", pa.int64()),
        ("inputs_agreed", pa.int64()),
        ("added", pa.int64()),
        ("skipped", pa.string()),
    ]
)
# measured times: the only table that two runs do not give byte for byte
SPEEDS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("slowest_s", pa.float64()),
        ("limit_s", pa.float64()),
        ("estimated_s", pa.float64()),
    ]
)
CONTAMINATION_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("evaluation_set", pa.string()),
        ("evaluation_id", pa.string()),
        ("why", pa.string()),
        ("coverage", pa.float64()),
        ("shared", pa.int64()),
        ("passage", pa.large_string()),
        ("rarest", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class CurationResult:
    """What a curation run left in `out`: the problems of both sides and a record of every stage."""

    out: Path
    train: Sequence[Problem]
    heldout: Sequence[Problem]
    sft_rows: int
    steps: list[StepRecord]

    @property
    def dropped(self) -> list[tuple[str, Dropped]]:
        """(stage, dropped problem or row) of everything that left, in order."""
        return [(step.name, dropped) for step in self.steps for dropped in step.dropped]

    def summary(self) -> str:
        """A few lines for a terminal: the funnel, then the files."""
        width = max(len(step.name) for step in self.steps)
        lines = []
        for step in self.steps:
            reasons = ", ".join(f"{count} {reason}" for reason, count in step.reasons.items())
            again = "  (from the last run)" if step.reused else f"  {step.seconds:.1f} s"
            lines.append(f"{step.name:<{width}}  {step.went_on:>7}  {'-' + reasons if reasons else ''}{again}")
        lines.append(f"{len(self.train)} train, {len(self.heldout)} held out, {self.sft_rows} SFT rows in {self.out}")
        return "\n".join(lines)


def write_outputs(
    config: CurationConfig, out: Path, problems: Sequence[Problem], steps: list[StepRecord]
) -> CurationResult:
    """Writes every output of `curate` from the problems the last stage kept; each file appears whole or not at all."""
    save_problems((p for p in problems if HELDOUT not in p.tags), out / "train.parquet")
    save_problems((p for p in problems if HELDOUT in p.tags), out / "heldout.parquet")
    train, heldout = StoredProblems(out / "train.parquet"), StoredProblems(out / "heldout.parquet")
    train_facts, heldout_facts = [[Fact.of(problem) for problem in side] for side in (train, heldout)]
    sft = SftCounts.beside(train_facts, heldout_facts)
    rows = sft.counted(_sft_rows(config, train, sft.heldout_statements))
    save_table(({n: row[n] for n in SFT_SCHEMA.names} for row in rows), SFT_SCHEMA, out / "sft.parquet")
    result = CurationResult(out, train, heldout, sft.rows, steps)
    dropped = [
        {"id": d.id, "stage": stage, "reason": d.reason, "detail": d.detail, "kept_instead": d.kept_instead}
        for stage, d in result.dropped
    ]
    save_table(dropped, DROPPED_SCHEMA, out / "dropped.parquet")
    verification = next(step.rows for step in steps if step.name == "verify")
    save_table(verification, VERIFICATION_SCHEMA, out / "verification.parquet")
    strengthening = next(step.rows for step in steps if step.name == "strengthen")
    save_table(strengthening, STRENGTHENING_SCHEMA, out / "strengthening.parquet")
    measured = next(step.rows for step in steps if step.name == "difficulty")
    save_table(measured, DIFFICULTY_SCHEMA, out / "difficulty.parquet")
    speeds = [{"id": row["id"], **speed} for row in verification for speed in row["speeds"]]
    save_table(speeds, SPEEDS_SCHEMA, out / "speeds.parquet")
    contamination = next(step.rows for step in steps if step.name == "decontaminate")
    save_table(contamination, CONTAMINATION_SCHEMA, out / "contamination.parquet")
    funnel = _funnel(config, result, {"train": train_facts, "heldout": heldout_facts}, sft)
    save_bytes((json.dumps(funnel, indent=2) + "\n").encode(), out / "funnel.json")
    card = dataset_card(config, funnel, contamination)
    write_dataset(out / "dataset", {"train": train, "test": heldout}, config.outputs, card)
    for layout in config.outputs.exports:
        for split, side in (("train", train), ("test", heldout)):
            path = out / "exports" / layout / f"{split}.parquet"
            if side:
                write_export(layout, side, path, config.outputs, split=split)
            else:  # `datasets` cannot load a file without rows, and an older run's must not stay
                path.unlink(missing_ok=True)
    environment = _environment(out, steps)
    save_bytes((json.dumps(environment, indent=2) + "\n").encode(), out / "environment.json")
    write_report(
        out / "report.html",
        config,
        funnel,
        environment,
        dropped,
        verification,
        [*train_facts, *heldout_facts],
        problems,
        contamination,
        out / "stages",
    )
    return result


def _sft_rows(config: CurationConfig, train: Sequence[Problem], heldout: set[bytes]) -> Iterator[dict[str, Any]]:
    """The SFT corpus: demonstrations of the generated family, and accepted solutions of training problems if asked.

    Rows have the columns of `SFT_SCHEMA` and the bare `statement`; `heldout` are hashes of statements to leave out.
    """
    if any(source in ("builtin", "builtin:pipelines") for source in config.sources):
        for row in builtin.demonstrations(config.sft, config.seed, config.pipelines.vocabulary):
            if statement_hash(row["statement"]) not in heldout:
                prompt = prompt_text(config.sft.template, row["statement"])
                yield {**row, "completion": row["program"], "prompt": prompt}
    for problem in train if config.sft.reference_solutions else ():
        for solution in problem.solutions:
            if solution.verdict == "accepted" and solution.language == "python":
                yield {
                    "problem_id": problem.id,
                    "statement": problem.statement,
                    "prompt": prompt_text(config.sft.template, problem.statement, problem.starter_code),
                    "completion": solution.code,
                    "family": problem.family,
                    "passes": True,
                }


def prompt_text(template: str, statement: str, starter_code: str = "") -> str:
    """The template with {statement} and {starter_code} filled in; braces in the texts themselves stay as they are."""
    values = {"{statement}": statement, "{starter_code}": starter_code}
    return re.sub(r"\{(?:statement|starter_code)\}", lambda match: values[match[0]], template)


def _funnel(
    config: CurationConfig, result: CurationResult, sides: dict[str, list[Fact]], sft: SftCounts
) -> dict[str, Any]:
    def counted(values: Iterator[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items()))

    return {
        "name": config.name,
        "sources": list(config.sources),
        "seed": config.seed,
        "stages": [
            {
                "stage": step.name,
                "in": step.came_in,
                "out": step.went_on,
                "dropped": len(step.dropped),
                "reasons": step.reasons,
                "figures": step.figures,
            }
            for step in result.steps
        ],
        "problems": {
            side: {
                "count": len(facts),
                "families": len({fact.family for fact in facts}),
                "tests": sum(fact.tests for fact in facts),
                "by_difficulty": counted(fact.difficulty for fact in facts),
                "by_source": counted(fact.source for fact in facts),
                "by_license": counted(fact.license or "not stated" for fact in facts),
            }
            for side, facts in sides.items()
        },
        "sft": sft.figures(),
    }


def _environment(out: Path, steps: Sequence[StepRecord]) -> dict[str, Any]:
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "pyarrow": pa.__version__,
        "git_revision": _git_revision(),
        "languages": {name: remedy is None for name, remedy in sandbox.languages.available().items()},
        "data_sha256": {
            name: file_hash(out / name)
            for name in ("train.parquet", "heldout.parquet", "sft.parquet", "dropped.parquet")
        },
        "seconds": {step.name: step.seconds for step in steps},
    }


def _git_revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
