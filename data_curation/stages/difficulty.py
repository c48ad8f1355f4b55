"""How hard a problem is: the source's own label, a level from its rating, or measured pass rates.

Never the length of a statement or a guess: a problem nobody graded is "unrated".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_curation.config import DifficultyOptions
from data_curation.schema import Problem
from data_curation.sources.rows import RowError
from data_curation.sources.tables import json_rows
from data_curation.stages.result import Dropped, StageResult, Workplace

# upper ends of the rating bands of levels 1 to 7; level 8 is open
LEVEL_RATINGS = (1000, 1200, 1400, 1600, 1900, 2200, 2500)
UNRATED = "unrated"


def difficulty(problems: Sequence[Problem], options: DifficultyOptions, work: Workplace) -> StageResult:
    """Fills `difficulty`, and with a samples file tags `pass-rate:x` and drops problems that give no signal."""
    rates = read_pass_rates(options.samples) if options.samples else {}
    kept, dropped = [], []
    counts: Counter[str] = Counter()
    for problem in problems:
        passed, samples = rates.get(problem.id, (0, 0))
        measured = samples >= options.minimum_samples
        if measured and passed == samples and options.drop_always_solved:
            dropped.append(Dropped(problem.id, "always solved", f"{passed} of {samples} samples"))
            continue
        if measured and passed == 0 and options.drop_never_solved:
            dropped.append(Dropped(problem.id, "never solved", f"0 of {samples} samples"))
            continue
        label, basis = graded(problem, passed / samples if measured else None, options.relabel)
        counts[f"graded by {basis}"] += 1
        tags = [tag for tag in problem.tags if not tag.startswith("pass-rate:")]
        if measured:
            tags.append(f"pass-rate:{passed / samples:.3f}")
        kept.append(problem.model_copy(update={"difficulty": label, "tags": tags}))
    return StageResult(kept, dropped, dict(sorted(counts.items())))


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


def read_pass_rates(path: Path) -> dict[str, tuple[int, int]]:
    """problem id -> (passed, samples), summed over the file's rows; RowError for a row that is not one."""
    rates: dict[str, tuple[int, int]] = {}
    for row, value in json_rows(path):
        if isinstance(value, RowError):
            raise value
        try:
            name, passed, samples = str(value["problem_id"]), int(value["passed"]), int(value["samples"])
        except (KeyError, TypeError, ValueError):
            shown = json.dumps(value)[:80]
            raise RowError(path, row, f"expected problem_id, passed and samples (whole numbers), got {shown}") from None
        if not 0 <= passed <= samples:
            raise RowError(path, row, f"`passed` must be from 0 to `samples`, got {passed} of {samples}")
        before = rates.get(name, (0, 0))
        rates[name] = (before[0] + passed, before[1] + samples)
    return rates
