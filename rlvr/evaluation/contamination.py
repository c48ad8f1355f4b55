"""Does a suite hold what the model was trained on? By fingerprints of training problems, and by dates."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_curation import Problem, load_problems
from rlvr.config import EvaluationRecipe
from rlvr.fingerprints import FILE, Fingerprint, Fingerprints, of_problem, read_fingerprints

COVERAGE = 0.5  # share of the weight of a problem's 5-grams that a training problem holds
TITLE_COVERAGE = 0.2  # the same under an equal title
_LONGEST_CHAIN = 16


@dataclass(frozen=True, slots=True)
class Overlap:
    """A problem of the suite that a training problem equals or nearly equals."""

    problem_id: str
    training_id: str
    source: str  # run or source the training problem is from
    why: str  # "id", "statement", "words" or "title"
    coverage: float


@dataclass(frozen=True)
class Overlaps:
    """What was checked and found. `sources` empty: nothing is known of the training data."""

    sources: dict[str, int] = field(default_factory=dict)  # source -> training problems
    found: list[Overlap] = field(default_factory=list)
    problems: int = 0
    cutoff: datetime.date | None = None
    before_cutoff: int = 0
    undated: int = 0

    def summary(self) -> dict[str, Any]:
        """The figures that go into results.json."""
        return {
            "checked": self.sources,
            "overlapping_problems": len({overlap.problem_id for overlap in self.found}),
            "data_cutoff": self.cutoff.isoformat() if self.cutoff else None,
            "problems_before_cutoff": self.before_cutoff if self.cutoff else None,
            "problems_without_date": self.undated,
        }

    def lines(self, suite: str) -> list[str]:
        """What the user is told, most important first."""
        said = []
        hit = {overlap.problem_id for overlap in self.found}
        if hit:
            said.append(
                f"WARNING: {suite}: {len(hit)} of {self.problems} problems are in the training data; "
                "the figures do not measure what the model can do on unseen problems"
            )
            said += [
                f"  {o.problem_id} ~ {o.training_id} ({o.source}; {o.why}, {o.coverage:.0%})" for o in self.found[:5]
            ]
            if len(self.found) > 5:
                said.append(f"  ... and {len(self.found) - 5} more in contamination.json")
        elif self.sources:
            checked = ", ".join(f"{name} ({count} problems)" for name, count in self.sources.items())
            said.append(f"{suite}: no overlap with training data: {checked}")
        else:
            said.append(f"{suite}: training data unknown, overlap not checked (name it with trained_on)")
        if self.cutoff is not None and self.before_cutoff:
            said.append(
                f"WARNING: {suite}: {self.before_cutoff} of {self.problems} problems are from before the model's data "
                f"cutoff {self.cutoff}: it may have seen them"
            )
        if self.cutoff is not None and self.undated:
            said.append(f"{suite}: {self.undated} of {self.problems} problems have no date to hold against the cutoff")
        return said

    def warn(self, suite: str) -> None:
        """Prints `lines` to standard error."""
        for line in self.lines(suite):
            print(line, file=sys.stderr, flush=True)


def find_overlaps(problems: Sequence[Problem], recipe: EvaluationRecipe) -> Overlaps:
    """Overlaps of `problems` with what the recipe's model was trained on.

    That is `recipe.trained_on` (run folders, fingerprint files, or sources of problems), and for a checkpoint the runs
    it comes from: its own, that of the model it started from, and so on, as far as they lie here.
    """
    training: dict[str, Fingerprints] = {}
    for name in recipe.trained_on:
        path = Path(name)
        is_run = (path / FILE).is_file() or path.name == FILE
        training[name] = (
            read_fingerprints(path) if is_run else Fingerprints([of_problem(p) for p in load_problems(name)])
        )
    if recipe.model is not None:
        for run in ancestry(Path(recipe.model.name_or_path)):
            training.setdefault(str(run), read_fingerprints(run))
    cutoff = recipe.data_cutoff
    return Overlaps(
        sources={name: len(found.problems) for name, found in training.items()},
        found=overlapping(problems, training),
        problems=len(problems),
        cutoff=cutoff,
        before_cutoff=sum(p.date is not None and p.date <= cutoff for p in problems) if cutoff else 0,
        undated=sum(problem.date is None for problem in problems),
    )


def ancestry(checkpoint: Path) -> Iterator[Path]:
    """The run folders with fingerprints that a checkpoint comes from, the latest first."""
    seen: set[Path] = set()
    for _ in range(_LONGEST_CHAIN):
        run = next((p for p in (checkpoint, *checkpoint.resolve().parents[:2]) if (p / "config.resolved.yaml").is_file()
                    or (p / FILE).is_file()), None)  # fmt: skip
        if run is None or run.resolve() in seen:
            return
        seen.add(run.resolve())
        if (run / FILE).is_file():
            yield run
        try:
            config = yaml.safe_load((run / "config.resolved.yaml").read_text(encoding="utf-8"))
            checkpoint = Path(config["model"]["name_or_path"])
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return


def overlapping(problems: Sequence[Problem], training: dict[str, Fingerprints]) -> list[Overlap]:
    """The closest training problem of every problem that has one, in the order of `problems`.

    Equal ids or equal words are an overlap. Otherwise a 5-gram of words weighs log(1 + texts / texts that hold it), so
    that boilerplate counts little, and half of a problem's weight must lie in one training problem, or a fifth under
    the same title.
    """
    own = [of_problem(problem) for problem in problems]
    best: dict[str, Overlap] = {}
    for source, known in training.items():
        for overlap in _within(own, source, known):
            if overlap.problem_id not in best or best[overlap.problem_id].coverage < overlap.coverage:
                best[overlap.problem_id] = overlap
    return [best[problem.id] for problem in problems if problem.id in best]


def _within(own: Sequence[Fingerprint], source: str, known: Fingerprints) -> Iterator[Overlap]:
    flat = known.problems
    if not flat or not own:
        return
    own = [known.sampled(problem) for problem in own]
    grams = np.concatenate([one.grams for one in flat])
    owners = np.repeat(np.arange(len(flat)), [len(one.grams) for one in flat])
    order = np.argsort(grams, kind="stable")
    grams, owners = grams[order], owners[order]
    every, texts_with = np.unique(np.concatenate([grams, *(one.grams for one in own)]), return_counts=True)
    weights = np.log1p((len(flat) + len(own)) / texts_with)
    ids = {one.id: place for place, one in enumerate(flat)}
    digests = {one.digest: place for place, one in enumerate(flat)}
    titles: dict[str, list[int]] = {}
    for place, one in enumerate(flat):
        titles.setdefault(_title(one.title), []).append(place)
    for problem in own:
        covered = _coverage(problem, grams, owners, every, weights, len(flat))
        closest = int(np.argmax(covered))
        same = max(titles.get(_title(problem.title), []), key=lambda place: covered[place], default=None)
        if problem.digest in digests:
            yield _overlap(problem, flat[digests[problem.digest]], source, "statement", 1.0)
        elif problem.id in ids:
            yield _overlap(problem, flat[ids[problem.id]], source, "id", covered[ids[problem.id]])
        elif covered[closest] >= COVERAGE:
            yield _overlap(problem, flat[closest], source, "words", covered[closest])
        elif _title(problem.title) and same is not None and covered[same] >= TITLE_COVERAGE:
            yield _overlap(problem, flat[same], source, "title", covered[same])


def _overlap(problem: Fingerprint, one: Fingerprint, source: str, why: str, coverage: float) -> Overlap:
    return Overlap(problem.id, one.id, source, why, round(float(coverage), 3))


def _coverage(problem: Fingerprint, grams: Any, owners: Any, every: Any, weights: Any, size: int) -> Any:
    """Share of the weight of the problem's 5-grams that each training problem holds, [training problems]."""
    if not len(problem.grams):
        return np.zeros(size)
    own_weights = weights[np.searchsorted(every, problem.grams)]
    left, right = (np.searchsorted(grams, problem.grams, side=side) for side in ("left", "right"))
    counts = right - left
    places = np.repeat(left - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
    held = np.bincount(owners[places], weights=np.repeat(own_weights, counts), minlength=size)
    return held / own_weights.sum()


def _title(title: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in title.casefold()).split())


def write_overlaps(overlaps: Overlaps, folder: Path) -> Path:
    """Writes `folder/contamination.json`: the summary and every overlap; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "contamination.json"
    body = overlaps.summary() | {"overlaps": [asdict(overlap) for overlap in overlaps.found]}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
