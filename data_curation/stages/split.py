"""Training or held out: whole families go to one side; a family held out anywhere is held out everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from data_curation.config import SplitOptions
from data_curation.families import is_heldout
from data_curation.schema import Problem
from data_curation.stages.result import Notes, Stage, Workplace
from data_curation.stored import light

TRAIN, HELDOUT = "split:train", "split:heldout"


@Stage
def split(problems: Sequence[Problem], options: SplitOptions, work: Workplace, notes: Notes) -> Iterator[Problem]:
    """Tags every problem split:train or split:heldout and drops none.

    A problem published on `heldout_from` or later takes its family to the held-out side. Then a source's own tag
    decides for its family (held-out wins where a family has both); other families go by the hash of their name, so that
    adding problems never moves one that was there before.
    """
    said: dict[str, str] = {}
    for problem in light(problems):
        if options.heldout_from is not None and problem.date is not None and problem.date >= options.heldout_from:
            said[_family(problem)] = HELDOUT
        for tag in problem.tags:
            if tag in (TRAIN, HELDOUT) and said.get(_family(problem)) != HELDOUT:
                said[_family(problem)] = tag
    counts: Counter[str] = Counter()
    for problem in problems:
        family = _family(problem)
        side = said.get(family) or (HELDOUT if is_heldout(family, options.heldout) else TRAIN)
        tags = [tag for tag in problem.tags if tag not in (TRAIN, HELDOUT)]
        counts[side] += 1
        counts["source"] += family in said
        yield problem.model_copy(update={"tags": [*tags, side]})
    notes.figures = {
        "train": counts[TRAIN],
        "held out": counts[HELDOUT],
        "split given by the source": counts["source"],
    }


def _family(problem: Problem) -> str:
    return problem.family or problem.id
