"""The samples of an evaluation as rows of `samples.jsonl`, and what they say of each problem."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlvr.evaluation.lines import numbered_lines
from sandbox import Verdict


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampleRecord(Strict):
    """One sampled (or greedy) solution of one problem: a row of `samples.jsonl`.

    A verdict of IE is the judge's failure: the sample enters no rate and is counted apart.
    """

    problem_id: str
    sample: int = Field(0, ge=0)  # index within the problem; the greedy solution has its own flag
    greedy: bool = False
    verdict: Verdict
    difficulty: str = ""
    family: str = ""
    rating: float | None = None
    tags: list[str] = Field(default_factory=list)
    date: datetime.date | None = None
    passed: int = Field(0, ge=0)  # tests
    tests: int = Field(0, ge=0)
    cases: list[Verdict] = Field(default_factory=list)
    completion_tokens: int = Field(0, ge=0)
    finish_reason: Literal["stop", "length"] = "stop"
    prompt: str = ""
    completion: str = ""
    program: str = ""
    message: str = ""
    repetitive: bool = False
    mixed_languages: bool = False
    grader: str = ""  # version of the judge's rules; "" for records older than this field

    @property
    def key(self) -> tuple[str, bool, int]:
        """What no two records of a file may share."""
        return self.problem_id, self.greedy, self.sample


class ProblemOutcome(Strict):
    """What happened on one problem: enough to compare two checkpoints problem by problem."""

    difficulty: str = ""
    samples: int = Field(ge=0)  # graded ones, without the greedy one
    passed: int = Field(ge=0)
    greedy: bool | None = None  # None: not sampled, or not graded
    rating: float | None = None


def outcomes(records: Iterable[SampleRecord]) -> dict[str, ProblemOutcome]:
    """Outcome of each problem, in order of first appearance; IE samples leave only the problem's name behind."""
    samples: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    greedy: dict[str, bool] = {}
    first: dict[str, SampleRecord] = {}
    for record in records:
        first.setdefault(record.problem_id, record)
        if record.verdict.is_infrastructure:
            continue
        accepted = record.verdict is Verdict.AC
        if record.greedy:
            greedy[record.problem_id] = accepted
        else:
            samples[record.problem_id] += 1
            passed[record.problem_id] += accepted
    return {
        problem: ProblemOutcome(
            difficulty=record.difficulty,
            samples=samples[problem],
            passed=passed[problem],
            greedy=greedy.get(problem),
            rating=record.rating,
        )
        for problem, record in first.items()
    }


def check_records(records: Sequence[SampleRecord], where: str) -> None:
    """ValueError naming `where` for a sample that stands twice or for records of different graders."""
    keys = Counter(record.key for record in records)
    twice = next((key for key, count in keys.items() if count > 1), None)
    if twice is not None:
        problem, greedy, sample = twice
        raise ValueError(
            f"{where}: {'the greedy sample' if greedy else f'sample {sample}'} of problem {problem!r} stands"
            f" {keys[twice]} times; each sample may stand once"
        )
    graders = sorted({record.grader for record in records})
    if len(graders) > 1:
        raise ValueError(
            f"{where}: records of different graders ({', '.join(name or 'unnamed' for name in graders)});"
            " grade all completions again with one of them"
        )


def write_samples(records: Iterable[SampleRecord], path: Path) -> Path:
    """Path of the JSONL file written, one record a line; whole or not at all. A folder gets `samples.jsonl`."""
    lines = (record.model_dump_json() for record in records)
    return write_whole(path if path.suffix else path / "samples.jsonl", lines)


def write_whole(path: Path, lines: Iterable[str]) -> Path:
    """Writes lines of text, all of them or none; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path


def read_samples(path: Path) -> list[SampleRecord]:
    """Records of a samples.jsonl or its folder. FileNotFoundError or ValueError naming file, line and key."""
    file = path / "samples.jsonl" if path.is_dir() else path
    records = []
    for number, line in numbered_lines(file, "samples file; `rlvr evaluate` writes one"):
        try:
            records.append(SampleRecord.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"{file}:{number}: {first_error(error)}") from error
    return records


def first_error(error: ValidationError) -> str:
    """The first thing wrong, with its key, in one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"key {key!r}: {first['msg']}" if key else first["msg"]
