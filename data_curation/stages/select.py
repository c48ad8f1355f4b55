"""Which problems each RL stage trains on: an even spread of difficulty for stage 1, the hardest for stage 2.

DRIVE (arXiv 2511.06307) says of stage 1 that its problems are "uniformly distributed" and of medium difficulty, and of
stage 2 that those with the lowest pass rates go on (Pre-GRPO). How evenness is made, how unmeasured problems rank and
that the two sets are disjoint are choices of this project.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from data_curation.config import SelectOptions
from data_curation.families import unit_hash
from data_curation.schema import Problem
from data_curation.stages.difficulty import UNRATED, measured_rate
from data_curation.stages.result import Notes, Stage, Workplace
from data_curation.stages.split import HELDOUT
from data_curation.stored import light

STAGE1, STAGE2 = "stage1", "stage2"
RATING_STEP = 100


@Stage
def select(problems: Sequence[Problem], options: SelectOptions, work: Workplace, notes: Notes) -> Iterator[Problem]:
    """Tags training problems stage1 and stage2 and drops none; figures count stage 1 by difficulty."""
    if options.stage1 is None and options.stage2 is None:
        yield from problems
        return
    # the texts have no say, and are not held
    train = [p.model_copy(update={"statement": ""}) for p in light(problems) if HELDOUT not in p.tags]
    hard: list[Problem] = []
    if options.stage2 is not None:
        rates = {problem.id: measured_rate(problem) for problem in train}
        pool = [p for p in train if (rate := rates[p.id]) is None or rate <= options.stage2_maximum_rate]
        hard = ranked_by_hardness(pool)[: options.stage2]
    spread: list[Problem] = []
    if options.stage1 is not None:
        taken = {problem.id for problem in hard} if options.disjoint else set()
        rest = [problem for problem in train if problem.id not in taken]
        spread = evenly_spread(rest, options.stage1, options.stage1_bins, options.seed)
    names = {STAGE1: {p.id for p in spread}, STAGE2: {p.id for p in hard}}
    chosen = {STAGE1: options.stage1 is not None, STAGE2: options.stage2 is not None}
    for problem in problems:
        tags = [tag for tag in problem.tags if not chosen.get(tag)]
        tags += [tag for tag, members in names.items() if problem.id in members]
        yield problem.model_copy(update={"tags": tags})
    notes.figures = {name: len(members) for name, members in names.items() if chosen[name]}
    counts = Counter(difficulty_bin(problem, options.stage1_bins) for problem in spread)
    notes.figures |= {f"stage1, {name}": count for name, count in sorted(counts.items())}


def ranked_by_hardness(problems: Sequence[Problem]) -> list[Problem]:
    """Hardest first: measured problems by pass rate (Pre-GRPO), then the others by rating; ties keep their order."""

    def place(problem: Problem) -> tuple[bool, float]:
        rate = measured_rate(problem)
        return (rate is None, rate if rate is not None else -(problem.rating or -math.inf))

    return sorted(problems, key=place)


def evenly_spread(problems: Sequence[Problem], size: int, bins: int, seed: int) -> list[Problem]:
    """`size` problems with as equal counts of every difficulty as there are problems for, in their old order.

    Within a difficulty the hash of seed and id decides, so that adding problems moves few others.
    """
    by_bin: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_bin[difficulty_bin(problem, bins)].append(problem)
    for members in by_bin.values():
        members.sort(key=lambda problem: unit_hash(f"select {seed} {problem.id}"))
    chosen: set[str] = set()
    rank = 0
    while len(chosen) < min(size, len(problems)):
        # one more of every difficulty that still has one
        for name in sorted(by_bin):
            if rank < len(by_bin[name]) and len(chosen) < size:
                chosen.add(by_bin[name][rank].id)
        rank += 1
    return [problem for problem in problems if problem.id in chosen]


def difficulty_bin(problem: Problem, bins: int) -> str:
    """The measured pass rate's bin, else the rating's, else the label."""
    rate = measured_rate(problem)
    if rate is not None:
        number = min(bins - 1, int(rate * bins))
        return f"pass rate {number / bins:.2f} to {(number + 1) / bins:.2f}"
    if problem.rating is not None:
        low = int(problem.rating // RATING_STEP) * RATING_STEP
        return f"rating {low:04d}"
    return f"label {problem.difficulty or UNRATED}"
