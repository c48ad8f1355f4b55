"""`curate`: sources in, verified and split problems out, with every dropped problem and the reason for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

import sandbox
from data_curation import builtin
from data_curation.config import CurationConfig
from data_curation.inputs import faults_of_inputs, source_state
from data_curation.outputs import CurationResult, write_outputs
from data_curation.schema import Problem
from data_curation.sources import RejectedRows, iter_problems
from data_curation.stages.decontaminate import decontaminate
from data_curation.stages.deduplicate import deduplicate
from data_curation.stages.difficulty import difficulty
from data_curation.stages.filter import filter_problems
from data_curation.stages.generate import generate
from data_curation.stages.normalise import normalise
from data_curation.stages.pass_rates import Sampler
from data_curation.stages.result import Dropped, Machines, Notes, Stage, Workplace
from data_curation.stages.select import select
from data_curation.stages.split import split
from data_curation.stages.strengthen import strengthen
from data_curation.stages.verify import verify
from data_curation.steps import StepRecord, file_hash, run_step, step_key
from data_curation.storage import clear_unfinished, save_bytes
from data_curation.stored import StoredProblems

STAGES: tuple[tuple[str, Stage[Any]], ...] = (
    ("normalise", normalise),
    ("filter", filter_problems),
    ("deduplicate", deduplicate),
    ("decontaminate", decontaminate),
    ("generate", generate),
    ("verify", verify),
    ("strengthen", strengthen),
    ("difficulty", difficulty),
    ("split", split),
    ("select", select),
)


def curate(
    config: CurationConfig,
    out: str | Path,
    *,
    show_progress: bool = True,
    sampler: Sampler | None = None,
    policy: str = "",
    say: Callable[[str], None] | None = None,
    machines: Machines | None = None,
) -> CurationResult:
    """Runs all stages of the recipe and writes its files to `out`; finished stages of an earlier run are reused.

    Writes the tables of problems and records (.parquet), funnel.json, report.html, config.resolved.yaml and
    environment.json. `sampler` is a policy whose pass rates grade the problems (problems and n in, n programs for each
    out); `policy` names it, so that one policy's rates are never taken for another's. `say` gets what every stage
    removed and why; `machines` are more than this one (`data_curation.cluster.RayData`). The same recipe and sources
    give the same bytes in all .parquet files but speeds.parquet, and in funnel.json.
    Raises ValueError or FileNotFoundError for unusable sources, NothingLeft when every problem was removed (the files
    with the reasons are written all the same), JudgeFailure when the sandbox fails.
    """
    for fault in faults_of_inputs(config, ask_hub=True):
        raise fault
    if config.difficulty.policy is not None and sampler is None:
        raise ValueError("difficulty.policy is sampled from by `rlvr curate`; in Python pass curate(..., sampler=)")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: the output is a folder, and this is a file")
    new = _first_missing(out)
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    steps: list[StepRecord] = []
    try:
        problems, record = _load(config, out / "stages" / "0-load", show_progress)
    except Exception:
        _remove_empty(out / "stages" / "0-load", new)  # a run refused for its sources leaves nothing
        raise
    save_bytes(resolved.encode(), out / "config.resolved.yaml")
    steps.append(record)
    if say is not None:
        say(record.text())
    folder = out / "stages" / "0-load"
    for number, (name, stage) in enumerate(STAGES, start=1):
        options = getattr(config, name)
        values = _key_options(name, options)
        if name == "difficulty" and sampler is not None:
            values["policy"] = policy
        key = step_key(stage.module, values, _input_key(folder))
        folder = out / "stages" / f"{number}-{name}"
        problems, record = run_step(
            name,
            folder,
            key,
            len(problems),
            _bound(stage, problems, options),
            show_progress,
            sampler,
            policy,
            machines,
        )
        steps.append(record)
        if say is not None and (record.dropped or any(record.figures.values())):
            say(record.text())
    clear_unfinished(out)
    result = write_outputs(config, out, problems, steps)
    if not problems:
        raise NothingLeft(out, steps)
    return result


def _first_missing(folder: Path) -> Path:
    """The uppermost folder that would have to be made for `folder`, or the folder itself."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else folder


def _remove_empty(folder: Path, last: Path) -> None:
    """Removes `folder` and those above it down to `last`, as long as nothing is in them."""
    for path in (folder, *folder.parents):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        if path == last:
            return


class NothingLeft(ValueError):
    """Every problem was removed; the message says by which stages and for which reasons."""

    def __init__(self, out: Path, steps: Sequence[StepRecord]) -> None:
        self.steps = steps
        total = steps[0].went_on
        removed = [
            f"{step.name}: {', '.join(f'{count} {reason}' for reason, count in step.reasons.items())}"
            for step in steps[1:]
            if step.dropped
        ]
        super().__init__(
            f"nothing is left of {total} problems; removed by {'; '.join(removed)}. "
            f"Row by row: {out / 'dropped.parquet'}"
        )


def _bound(
    stage: Stage[Any], problems: Sequence[Problem], options: Any
) -> Callable[[Workplace, Notes], Iterator[Problem]]:
    return lambda work, notes: stage.stream(problems, options, work, notes)


def _key_options(name: str, options: Any) -> dict[str, Any]:
    """What decides a stage's result beside its code and its input, as JSON types."""
    values: dict[str, Any] = options.model_dump(mode="json")
    if name in ("deduplicate", "generate", "verify", "strengthen", "difficulty"):
        values["judge"] = sandbox.JUDGE_VERSION
    if name in ("deduplicate", "generate", "verify", "strengthen", "filter"):
        # what can be run decides what they do
        values["languages"] = {n: remedy is None for n, remedy in sandbox.languages.available().items()}
    if name == "decontaminate":
        values["sets"] = [source_state(source) for source in options.against]
    if name == "difficulty" and options.samples is not None and options.samples.is_file():
        values["samples"] = file_hash(options.samples)
    return values


def _input_key(folder: Path) -> str:
    return file_hash(folder / "problems.parquet")


def _load(config: CurationConfig, folder: Path, show_progress: bool) -> tuple[StoredProblems, StepRecord]:
    options = config.model_dump(
        mode="json", include={"sources", "seed", "limit", "pipelines", "planted", "sft", "maximum_rejected_rows"}
    )
    inputs = hashlib.sha256("".join(map(source_state, config.sources)).encode()).hexdigest()
    key = step_key("data_curation.sources", options, inputs)

    def read(work: Workplace, notes: Notes) -> Iterator[Problem]:
        rejected = RejectedRows()
        count = 0
        for source in config.sources:
            before = count
            for problem in work.track(_source_problems(config, source, rejected), 0, source, "problem"):
                count += 1
                yield problem
                if config.limit is not None and count - before == config.limit:
                    break
            notes.figures[f"from {source}"] = count - before
        notes.figures["rows that could not be read"] = len(rejected)
        if config.maximum_rejected_rows is not None and len(rejected) > config.maximum_rejected_rows:
            raise ValueError(
                f"{len(rejected)} rows could not be read, more than maximum_rejected_rows "
                f"({config.maximum_rejected_rows}); the first: {rejected.errors[0]}"
            )
        if not count:
            first = f"; the first bad row: {rejected.errors[0]}" if len(rejected) else ": no rows there"
            raise ValueError(f"no problem could be read from {', '.join(config.sources)}{first}")
        notes.dropped = [
            Dropped(Path(error.file).name + (f" row {error.row}" if error.row else ""), "row not readable", error.what)
            for error in rejected
        ]

    return run_step("load", folder, key, None, read, show_progress)


def _source_problems(config: CurationConfig, source: str, rejected: RejectedRows) -> Iterator[Problem]:
    kind, _, part = source.partition(":")
    if kind == "builtin":
        return iter(
            builtin.problems(part, options=config.pipelines, sft=config.sft, seed=config.seed, planted=config.planted)
        )
    return iter_problems(source, rejected=rejected)
