"""The content of `results.json`: metrics with their intervals, and how they are written and read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rlvr.evaluation.records import ProblemOutcome, Strict, first_error, write_whole


class Estimate(Strict):
    """A mean over problems with its standard error (None for one problem) and 95% interval."""

    value: float
    stderr: float | None
    ci95: tuple[float, float]


class Part(Strict):
    """avg@1 over the problems of one tag or month."""

    problems: int
    pass_at_1: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"problems": self.problems} | _flat("pass@1", self.pass_at_1)


class Rating(Strict):
    """Estimated from the ratings of the problems; see `estimate_rating`."""

    value: float
    ci95: tuple[float, float]
    problems: int
    informative: bool


class SuiteMetrics(Strict):
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
                flat[field] = {name: part.to_json() for name, part in parts.items()}
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


class Cost(Strict):
    """Sampled tokens and seconds spent."""

    tokens: int = 0
    generate_s: float = 0.0
    grade_s: float = 0.0


class Results(Strict):
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


def write_results(results: Results, path: Path) -> Path:
    """Path of the file written; whole or not at all. A folder gets `results.json` in it."""
    return write_whole(
        path if path.suffix else path / "results.json", [json.dumps(results.to_json(), indent=1, allow_nan=False)]
    )


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
        raise ValueError(f"{file}: {first_error(error)}") from error


def results_by_suite(path: Path) -> dict[str, Results]:
    """suite -> the results that hold it: of a results.json, of its folder, or of all that lie below a folder.

    ValueError where a suite stands there twice (several models, or several checkpoints); errors of `read_results`.
    """
    below = sorted(path.glob("**/results.json")) if path.is_dir() and not (path / "results.json").is_file() else []
    found: dict[str, Results] = {}
    where: dict[str, Path] = {}
    for file in below or [path]:
        results = read_results(file)
        for suite in results.results:
            if suite in found:
                raise ValueError(
                    f"{path}: holds results of {suite} more than once, in {where[suite].parent} and {file.parent}; "
                    "give one of them"
                )
            found[suite], where[suite] = results, file
    return found
