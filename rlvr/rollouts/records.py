"""Rollout records: what the model wrote, its verdict, and what was done with it; one parquet file a step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("stage", pa.string()),
        ("problem_id", pa.string()),
        ("family", pa.string()),
        ("difficulty", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("program", pa.string()),
        ("verdict", pa.string()),
        ("reward", pa.float32()),  # null: unscorable, the judge itself failed
        ("advantage", pa.float32()),
        ("passed", pa.int32()),
        ("tests", pa.int32()),
        ("cases", pa.list_(pa.string())),
        ("message", pa.string()),
        ("completion_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("n_allocated", pa.int32()),
        ("success_rate", pa.float32()),  # the estimate the allocation was made from; null: unseen
        ("group", pa.int32()),
        ("policy_version", pa.int32()),  # updates made before the weights that sampled it
        # null but with `moe.keep_routes`
        ("tokens", pa.list_(pa.int32())),  # of prompt and completion
        ("logps", pa.list_(pa.float32())),  # of the completion's tokens, under the sampling policy
        ("routes", pa.binary()),  # `rlvr.moe.routes.Routes.to_bytes`
    ]
)


@dataclass(slots=True)
class RolloutRecord:
    """One rollout; fields as in `SCHEMA`."""

    problem_id: str
    family: str
    difficulty: str
    prompt: str
    completion: str
    program: str
    verdict: str
    reward: float | None
    passed: int
    tests: int
    cases: list[str] = field(default_factory=list)
    message: str = ""
    completion_tokens: int = 0
    finish_reason: str = "stop"
    step: int = 0
    stage: str = ""
    advantage: float = 0.0
    n_allocated: int = 0
    success_rate: float | None = None
    group: int = 0
    policy_version: int = 0
    tokens: list[int] | None = None
    logps: list[float] | None = None
    routes: bytes | None = None


def write_records(folder: Path, step: int, records: Iterable[RolloutRecord]) -> Path:
    """Writes a step's rollouts to `folder/step-000012.parquet`, atomically; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.parquet"
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=SCHEMA)
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
    return path


def drop_records(folder: Path, beyond: int) -> None:
    """Removes the files of steps after step `beyond`, which are sampled again, or no more."""
    for step, path in record_files(folder):
        if step > beyond:
            path.unlink()


def record_files(folder: Path) -> list[tuple[int, Path]]:
    """Returns (step, path) of every step's file in `folder`, in step order."""
    found = []
    for path in folder.glob("step-*.parquet"):
        match = re.fullmatch(r"step-(\d+)\.parquet", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


def read_records(folder: Path) -> Iterator[dict]:
    """Yields the rollouts of a run's `rollouts/<stage>` folder in step order."""
    for _, path in record_files(folder):
        yield from pq.read_table(path).to_pylist()
