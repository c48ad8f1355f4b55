"""From per-sample records to `results.json` and `samples.jsonl`, and back again."""

from __future__ import annotations

import datetime
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlvr.evaluation.estimated_rating import estimate_rating
from rlvr.evaluation.lines import numbered_lines
from rlvr.evaluation.statistics import (
    by_difficulty,
    mean_ci,
    pass_at_k_values,
    standard_error,
)
from rlvr.provenance import git_revision, versions
from sandbox import Verdict


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampleRecord(_Strict):
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


class Estimate(_Strict):
    """A mean over problems with its standard error (None for one problem) and 95% interval."""

    value: float
    stderr: float | None
    ci95: tuple[float, float]


class ProblemOutcome(_Strict):
    """What happened on one problem: enough to compare two checkpoints problem by problem."""

    difficulty: str = ""
    samples: int = Field(ge=0)  # graded ones, without the greedy one
    passed: int = Field(ge=0)
    greedy: bool | None = None  # None: not sampled, or not graded
    rating: float | None = None


class Part(_Strict):
    """avg@1 over the problems of one tag or month."""

    problems: int
    pass_at_1: Estimate


class Rating(_Strict):
    """Estimated from the ratings of the problems; see `estimate_rating`."""

    value: float
    ci95: tuple[float, float]
    problems: int
    informative: bool


class SuiteMetrics(_Strict):
    """Metrics of one suite or of one difficulty of it. Rates are shares of graded samples in [0, 1]."""

    problems: int
    pass_at: dict[int, Estimate]
    greedy: Estimate | None = None
    by_difficulty: dict[str, SuiteMetrics] = Field(default_factory=dict)
    by_month: dict[str, Part] = Field(default_factory=dict)
    by_tag: dict[str, Part] = Field(default_factory=dict)
    estimated_rating: Rating | None = None
    verdicts: dict[str, float] = Field(default_factory=dict)
    truncation_rate: float = 0.0
    repetition_rate: float = 0.0
    language_mix_rate: float = 0.0
    mean_completion_tokens: float = 0.0
    infrastructure_errors: int = 0

    def to_json(self) -> dict[str, Any]:
        """The flat shape of results.json: "pass@1", "pass@1_stderr", "pass@1_ci95", ..."""
        flat: dict[str, Any] = {"problems": self.problems}
        named = {f"pass@{k}": estimate for k, estimate in sorted(self.pass_at.items())}
        if self.greedy is not None:
            named["greedy"] = self.greedy
        for name, estimate in named.items():
            flat |= _flat(name, estimate)
        if self.estimated_rating is not None:
            rating = self.estimated_rating
            flat |= {"estimated_rating": rating.value, "estimated_rating_ci95": list(rating.ci95)}
            flat |= {"estimated_rating_problems": rating.problems, "estimated_rating_informative": rating.informative}
        if self.by_difficulty:
            flat["by_difficulty"] = {level: part.to_json() for level, part in self.by_difficulty.items()}
        for field in ("by_month", "by_tag"):
            parts: dict[str, Part] = getattr(self, field)
            if parts:
                flat[field] = {
                    name: {"problems": p.problems} | _flat("pass@1", p.pass_at_1) for name, p in parts.items()
                }
        flat |= {name: getattr(self, name) for name in _PLAIN}
        return flat

    @classmethod
    def from_json(cls, flat: Mapping[str, Any], where: str) -> SuiteMetrics:
        """The metrics behind the flat shape. ValueError naming `where` and the key at fault."""
        if "problems" not in flat:
            raise ValueError(f"{where}: key 'problems' is missing (number of problems evaluated)")
        names = [key for key in flat if key.startswith("pass@") and key[5:].isdigit()]
        pass_at = {int(name[5:]): _estimate(flat, name, where) for name in names}
        if not pass_at:
            raise ValueError(f"{where}: no pass@k found; expected at least 'pass@1' with 'pass@1_ci95'")
        parts = {
            level: cls.from_json(part, f"{where}, difficulty {level!r}")
            for level, part in flat.get("by_difficulty", {}).items()
        }
        greedy = _estimate(flat, "greedy", where) if flat.get("greedy") is not None else None
        plain = {name: flat[name] for name in _PLAIN if name in flat}
        for field in ("by_month", "by_tag"):
            plain[field] = {
                name: Part(
                    problems=part.get("problems", 0), pass_at_1=_estimate(part, "pass@1", f"{where}, {field} {name!r}")
                )
                for name, part in flat.get(field, {}).items()
            }
        if flat.get("estimated_rating") is not None:
            rating = _estimate(flat, "estimated_rating", where)
            plain["estimated_rating"] = Rating(
                value=rating.value,
                ci95=rating.ci95,
                problems=flat.get("estimated_rating_problems", 0),
                informative=flat.get("estimated_rating_informative", True),
            )
        return cls(problems=flat["problems"], pass_at=pass_at, greedy=greedy, by_difficulty=parts, **plain)


_PLAIN = (
    "verdicts",
    "truncation_rate",
    "repetition_rate",
    "language_mix_rate",
    "mean_completion_tokens",
    "infrastructure_errors",
)


def _flat(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_stderr": estimate.stderr, f"{name}_ci95": list(estimate.ci95)}


def _estimate(flat: Mapping[str, Any], name: str, where: str) -> Estimate:
    value, interval = flat.get(name), flat.get(f"{name}_ci95")
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: {name!r} must be a number, got {value!r}")
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        raise ValueError(f"{where}: '{name}_ci95' must be [low, high], got {interval!r}")
    return Estimate(value=value, stderr=flat.get(f"{name}_stderr"), ci95=(interval[0], interval[1]))


class Cost(_Strict):
    """Sampled tokens and seconds spent."""

    tokens: int = 0
    generate_s: float = 0.0
    grade_s: float = 0.0


class Results(_Strict):
    """Content of results.json; `per_problem` maps suite -> problem id -> outcome."""

    results: dict[str, SuiteMetrics]
    n_samples: int  # per problem, without the greedy one
    n_problems: int
    config: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    git_revision: str | None = None
    date: str = ""
    checkpoint: str = ""
    cost: Cost = Field(default_factory=Cost)
    per_problem: dict[str, dict[str, ProblemOutcome]] = Field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        body = self.model_dump(mode="json")
        body["results"] = {suite: metrics.to_json() for suite, metrics in self.results.items()}
        return body


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


def suite_metrics(records: Sequence[SampleRecord], *, ks: Sequence[int] | None = None) -> SuiteMetrics:
    """Metrics of one suite, overall and by difficulty.

    `ks` defaults to those of 1 and 8 that the number of samples allows. A problem with fewer than k graded samples
    (judge failures) is left out of pass@k. ValueError when there is no graded sample or k exceeds the samples.
    """
    problems = outcomes(records)
    most = max((problem.samples for problem in problems.values()), default=0)
    if most == 0:
        raise ValueError("no graded sample to evaluate: every record is missing, greedy or an infrastructure error")
    wanted = tuple(ks) if ks is not None else tuple(k for k in (1, 8) if k <= most)
    if not wanted or max(wanted) > most or min(wanted) < 1:
        raise ValueError(f"pass@k for k={list(wanted)} needs 1 <= k <= {most}, the graded samples of a problem")
    whole = _metrics(records, problems, wanted)
    levels = by_difficulty((record.difficulty for record in records), records)
    parts = {}
    for level, members in levels.items():
        part = outcomes(members)
        fits = tuple(k for k in wanted if k <= max(problem.samples for problem in part.values()))
        if fits:
            parts[level] = _metrics(members, part, fits)
    update = {
        "by_difficulty": parts if set(parts) != {""} else {},
        "by_month": _by_label(records, lambda record: [f"{record.date:%Y-%m}"] if record.date else [], sorted),
        "by_tag": _by_label(records, lambda record: record.tags, _most_common),
        "estimated_rating": _rating(problems.values()),
    }
    return whole.model_copy(update=update)


def _by_label(
    records: Sequence[SampleRecord],
    labels: Callable[[SampleRecord], Iterable[str]],
    order: Callable[[Mapping[str, Any]], Iterable[str]],
) -> dict[str, Part]:
    groups: dict[str, list[SampleRecord]] = {}
    for record in records:
        for label in labels(record):
            groups.setdefault(label, []).append(record)
    parts = {}
    for label in order(groups):
        counted = [problem for problem in outcomes(groups[label]).values() if problem.samples]
        if counted:
            values = pass_at_k_values([p.passed for p in counted], [p.samples for p in counted], 1)
            parts[label] = Part(problems=len(counted), pass_at_1=_summary(values))
    return parts


def _most_common(groups: Mapping[str, Sequence[SampleRecord]]) -> list[str]:
    """Labels of most problems first, at most 40: a source may have a tag of its own for every problem."""
    sizes = {label: len({record.problem_id for record in members}) for label, members in groups.items()}
    return sorted(sizes, key=lambda label: (-sizes[label], label))[:40]


def _rating(problems: Iterable[ProblemOutcome]) -> Rating | None:
    rated = [(problem.rating, problem.passed / problem.samples) for problem in problems
             if problem.samples and problem.rating is not None]  # fmt: skip
    if not rated:
        return None
    found = estimate_rating([rating for rating, _ in rated], [rate for _, rate in rated])
    return Rating(value=found.rating, ci95=found.ci95, problems=found.problems, informative=found.informative)


def _metrics(
    records: Sequence[SampleRecord], problems: Mapping[str, ProblemOutcome], ks: Sequence[int]
) -> SuiteMetrics:
    pass_at = {}
    for k in ks:
        counted = [problem for problem in problems.values() if problem.samples >= k]
        pass_at[k] = _summary(pass_at_k_values([p.passed for p in counted], [p.samples for p in counted], k))
    greedy = [float(problem.greedy) for problem in problems.values() if problem.greedy is not None]
    sampled = [record for record in records if not record.greedy]
    graded = [record for record in sampled if not record.verdict.is_infrastructure]
    verdicts = Counter(record.verdict.value for record in graded)
    return SuiteMetrics(
        problems=sum(problem.samples > 0 or problem.greedy is not None for problem in problems.values()),
        pass_at=pass_at,
        greedy=_summary(greedy) if greedy else None,
        verdicts={name: count / len(graded) for name, count in verdicts.most_common()},
        truncation_rate=sum(record.finish_reason == "length" for record in graded) / len(graded),
        repetition_rate=sum(record.repetitive for record in graded) / len(graded),
        language_mix_rate=sum(record.mixed_languages for record in graded) / len(graded),
        mean_completion_tokens=sum(record.completion_tokens for record in graded) / len(graded),
        infrastructure_errors=sum(record.verdict.is_infrastructure for record in records),
    )


def _summary(values: Sequence[float] | np.ndarray) -> Estimate:
    error = standard_error(values)
    return Estimate(value=float(np.mean(values)), stderr=None if math.isnan(error) else error, ci95=mean_ci(values))


def build_results(
    suites: Mapping[str, Sequence[SampleRecord]],
    *,
    checkpoint: str = "",
    config: Mapping[str, Any] | None = None,
    cost: Cost | None = None,
    ks: Sequence[int] | None = None,
) -> Results:
    """Results of one checkpoint on one or more suites (suite name -> its records), with versions and date.

    ValueError as in `suite_metrics`, and for records graded by different versions of the judge or of the same sample
    twice, naming the suite.
    """
    metrics = {}
    for suite, records in suites.items():
        check_records(records, f"suite {suite!r}")
        try:
            metrics[suite] = suite_metrics(records, ks=ks)
        except ValueError as error:
            raise ValueError(f"suite {suite!r}: {error}") from error
    per_problem = {suite: outcomes(records) for suite, records in suites.items()}
    return Results(
        results=metrics,
        n_samples=max((p.samples for part in per_problem.values() for p in part.values()), default=0),
        n_problems=sum(len(part) for part in per_problem.values()),
        config=dict(config or {}),
        versions=versions(),
        git_revision=git_revision(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        checkpoint=checkpoint,
        cost=cost or Cost(tokens=sum(r.completion_tokens for records in suites.values() for r in records)),
        per_problem=per_problem,
    )


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


def write_results(results: Results, path: Path) -> Path:
    """Path of the file written; whole or not at all. A folder gets `results.json` in it."""
    return _write_atomically(
        path if path.suffix else path / "results.json", [json.dumps(results.to_json(), indent=1, allow_nan=False)]
    )


def write_samples(records: Iterable[SampleRecord], path: Path) -> Path:
    """Path of the JSONL file written, one record a line; whole or not at all. A folder gets `samples.jsonl`."""
    lines = (record.model_dump_json() for record in records)
    return _write_atomically(path if path.suffix else path / "samples.jsonl", lines)


def _write_atomically(path: Path, lines: Iterable[str]) -> Path:
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


def read_results(path: Path) -> Results:
    """Results from a results.json or its folder. FileNotFoundError or ValueError of one line naming file and key."""
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such results file; `rlvr evaluate` writes one")
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON ({error.msg})") from error
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not text; give a results.json or its folder") from None
    if not isinstance(body, dict) or not isinstance(body.get("results"), dict):
        raise ValueError(f"{file}: key 'results' is missing or no mapping; expected suite name -> metrics")
    try:
        metrics = {
            suite: SuiteMetrics.from_json(part, f"{file}, suite {suite!r}") for suite, part in body["results"].items()
        }
        return Results(**(body | {"results": metrics}))
    except ValidationError as error:
        raise ValueError(f"{file}: {_first_error(error)}") from error


def read_samples(path: Path) -> list[SampleRecord]:
    """Records of a samples.jsonl or its folder. FileNotFoundError or ValueError naming file, line and key."""
    file = path / "samples.jsonl" if path.is_dir() else path
    records = []
    for number, line in numbered_lines(file, "samples file; `rlvr evaluate` writes one"):
        try:
            records.append(SampleRecord.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"{file}:{number}: {_first_error(error)}") from error
    return records


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"key {key!r}: {first['msg']}" if key else first["msg"]
