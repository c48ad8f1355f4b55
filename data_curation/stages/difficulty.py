"""How hard a problem is: the source's own label, a level from its rating, or measured pass rates.

Never the length of a statement or a guess: a problem nobody graded is "unrated".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from data_curation.config import DifficultyOptions
from data_curation.schema import Problem
from data_curation.stages.pass_rates import Rate, read_pass_rates, sampled_ids, sampled_pass_rates
from data_curation.stages.result import Dropped, Notes, Stage, Workplace
from data_curation.stored import light

# upper ends of the rating bands of levels 1 to 7; level 8 is open
LEVEL_RATINGS = (1000, 1200, 1400, 1600, 1900, 2200, 2500)
UNRATED = "unrated"
RATE_TAG = "pass-rate:"
MARKS = {"always": "always-solved", "never": "never-solved"}


@Stage
def difficulty(
    problems: Sequence[Problem], options: DifficultyOptions, work: Workplace, notes: Notes
) -> Iterator[Problem]:
    """Fills `difficulty`, tags measured problems `pass-rate:x`, drops or marks those that give no signal.

    Rates come from the samples file, else from the policy passed to `curate`. `rows` hold every measured problem's
    rate with its credible interval, next to its rating and the source's label.
    """
    rates: dict[str, Rate] = {}
    counts: Counter[str] = Counter()
    if options.samples is not None:
        rates = read_pass_rates(options.samples, problems, work)
        here = {problem.id for problem in light(problems)}
        counts["problems of the samples that are not here"] = len(sampled_ids(options.samples) - here)
    elif work.sampler is not None:
        rates = sampled_pass_rates(problems, work.sampler, options.rollouts, work)
    for problem in problems:
        rate = rates.get(problem.id)
        measured = rate is not None and rate.samples >= options.minimum_samples
        label, basis = graded(problem, rate.mean if rate is not None and measured else None, options.relabel)
        if rate is not None:
            notes.rows.append(_row(problem, rate, label, options.credible))
        solved = None if rate is None or not measured else {rate.samples: "always", 0: "never"}.get(rate.passed)
        drop = {"always": options.drop_always_solved, "never": options.drop_never_solved}.get(solved or "", False)
        if rate is not None and drop:
            notes.dropped.append(Dropped(problem.id, f"{solved} solved", f"{rate.passed} of {rate.samples} samples"))
            continue
        counts[f"graded by {basis}"] += 1
        old = (RATE_TAG, *MARKS.values())
        tags = [tag for tag in problem.tags if not tag.startswith(old)]
        if rate is not None and measured:
            tags.append(f"{RATE_TAG}{rate.mean:.3f}")
        if solved is not None:
            counts[f"marked {solved} solved"] += 1
            tags.append(MARKS[solved])
        yield problem.model_copy(update={"difficulty": label, "tags": tags})
    notes.figures = dict(sorted(counts.items()))


def _row(problem: Problem, rate: Rate, label: str, credible: float) -> dict[str, Any]:
    low, high = rate.interval(credible)
    return {
        "id": problem.id,
        "passed": rate.passed,
        "samples": rate.samples,
        "rate": round(rate.mean, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "rating": problem.rating,
        "source_label": problem.difficulty,
        "label": label,
    }


def graded(problem: Problem, rate: float | None, relabel: bool) -> tuple[str, str]:
    """(label, what it rests on: label, rating, samples or nothing)."""
    if rate is not None and (relabel or not (problem.difficulty or problem.rating)):
        return pass_rate_label(rate), "samples"
    if problem.difficulty and problem.difficulty != UNRATED:
        return problem.difficulty, "label"
    if problem.rating is not None:
        return str(1 + sum(problem.rating >= bound for bound in LEVEL_RATINGS)), "rating"
    return UNRATED, "nothing"


def pass_rate_label(rate: float) -> str:
    """The label of a pass rate in [0, 1]."""
    if rate in (0.0, 1.0):
        return "solved" if rate else "unsolved"
    return "easy" if rate >= 2 / 3 else "medium" if rate >= 1 / 3 else "hard"


def measured_rate(problem: Problem) -> float | None:
    """The pass rate this stage has measured, from the problem's tag; None if there is none."""
    return next((float(tag.removeprefix(RATE_TAG)) for tag in problem.tags if tag.startswith(RATE_TAG)), None)
