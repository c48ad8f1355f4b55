"""Running a stage once: its output is kept under a key of its options, code and input, and reused while that holds."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_curation.code_hash import code_hash
from data_curation.schema import Problem
from data_curation.stages.result import SCRATCH, Dropped, Machines, Notes, Workplace
from data_curation.storage import clear_unfinished, save_bytes, save_problems
from data_curation.stored import StoredProblems

PROBLEMS, DONE = "problems.parquet", "done.json"


@dataclass(frozen=True)
class StepRecord:
    """A finished stage: counts, what it dropped, its figures; `seconds` and `reused` describe this run only."""

    name: str
    came_in: int
    went_on: int
    dropped: list[Dropped]
    figures: Mapping[str, int | float]
    rows: list[dict[str, Any]]
    seconds: float
    reused: bool

    @property
    def reasons(self) -> dict[str, int]:
        """Number of dropped problems by reason, most frequent first."""
        counts: dict[str, int] = {}
        for dropped in self.dropped:
            counts[dropped.reason] = counts.get(dropped.reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def text(self) -> str:
        """Lines for a terminal: what came and went, every reason with its count and first example, the figures."""
        again = "from the last run" if self.reused else f"{self.seconds:.1f} s"
        lines = [f"{self.name}: {self.came_in} in, {len(self.dropped)} removed, {self.went_on} out ({again})"]
        for reason, count in self.reasons.items():
            first = next(dropped for dropped in self.dropped if dropped.reason == reason)
            instead = f" (kept: {first.kept_instead})" if first.kept_instead else ""
            shown = " ".join(f"{first.id}{instead}{': ' if first.detail else ''}{first.detail}".split())
            lines.append(f"  - {count} {reason}, e.g. {shown[:120]}")
        figures = [f"{name}: {value:g}" for name, value in self.figures.items() if value]
        if figures:
            lines.append(f"  {'; '.join(figures)}")
        return "\n".join(lines)


def run_step(
    name: str,
    folder: Path,
    key: str,
    came_in: int | None,
    stream: Callable[[Workplace, Notes], Iterator[Problem]],
    show_progress: bool,
    sampler: Callable[..., Any] | None = None,
    policy: str = "",
    machines: Machines | None = None,
) -> tuple[StoredProblems, StepRecord]:
    """The stage's problems and record: taken as they are if `folder` holds a finished run under `key`, else made.

    Problems are written as the stage gives them. The marker is written last, so a run that is killed at any point
    leaves either a finished stage or none.
    """
    record = _read_record(folder, key)
    if record is not None:
        return StoredProblems(folder / PROBLEMS), record
    started = time.monotonic()
    (folder / DONE).unlink(missing_ok=True)
    clear_unfinished(folder)
    notes = Notes()
    save_problems(stream(Workplace(folder, show_progress, sampler, policy, machines), notes), folder / PROBLEMS)
    problems = StoredProblems(folder / PROBLEMS)
    record = StepRecord(
        name,
        len(problems) + len(notes.dropped) if came_in is None else came_in,
        len(problems),
        notes.dropped,
        notes.figures,
        notes.rows,
        round(time.monotonic() - started, 2),
        False,
    )
    body = {**asdict(record), "key": key, "sha256": file_hash(folder / PROBLEMS)}
    save_bytes(json.dumps(body, indent=1).encode(), folder / DONE)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    return problems, record


def step_key(module: str, options: Any, inputs: str) -> str:
    """The key of a stage: hash of its options (JSON-able), of the code its module runs and of its input's hash."""
    text = json.dumps([module, code_hash(module), options, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_record(folder: Path, key: str) -> StepRecord | None:
    try:
        body = json.loads((folder / DONE).read_bytes())
        if body.pop("key") != key or body.pop("sha256") != file_hash(folder / PROBLEMS):
            return None
        return StepRecord(**{**body, "dropped": [Dropped(**row) for row in body["dropped"]], "reused": True})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # no finished run here, or one of another version: the stage is run again
