"""From the records of samples to the metrics of a suite and the content of `results.json`."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr.evaluation.estimated_rating import estimate_rating
from rlvr.evaluation.records import ProblemOutcome, SampleRecord, check_records, outcomes
from rlvr.evaluation.results import Cost, Estimate, Part, Rating, Results, SuiteMetrics
from rlvr.evaluation.statistics import by_difficulty, mean_ci, pass_at_k_values, standard_error
from rlvr.provenance import git_revision, versions


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
        part = pass_at_1(groups[label])
        if part is not None:
            parts[label] = part
    return parts


def pass_at_1(records: Sequence[SampleRecord]) -> Part | None:
    """avg@1 over the problems of `records`; None where none has a graded sample."""
    counted = [problem for problem in outcomes(records).values() if problem.samples]
    if not counted:
        return None
    values = pass_at_k_values([p.passed for p in counted], [p.samples for p in counted], 1)
    return Part(problems=len(counted), pass_at_1=_summary(values))


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
