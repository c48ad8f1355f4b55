"""Does a suite hold what the model was trained on? By fingerprints of training problems, and by dates."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from data_curation import Problem, load_problems
from rlvr.config import EvaluationRecipe
from rlvr.config.load import RESOLVED
from rlvr.fingerprints import FILE, Fingerprint, Fingerprints, digest, of_problem, read_fingerprints

COVERAGE = 0.5  # share of the weight of a problem's 5-grams that a training problem holds
TITLE_COVERAGE = 0.2  # the same under an equal title
IDENTIFYING = 0.25  # weight held, over the weight of a statement that shares no 5-gram with the corpus
BOTH_WAYS = 0.95  # share of equal 5-grams, of the larger set
FEW = 5  # a 5-gram in more training texts than this (or than one in 2,000) is a phrase of the corpus
_FEW_IN = 2000
_SIBLINGS = 2  # a 5-gram in more problems of the suite than this is a phrase of the suite
_LONGEST_CHAIN = 16

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Overlap:
    """A problem of the suite that a training problem equals or nearly equals."""

    problem_id: str
    training_id: str
    source: str  # run or source the training problem is from
    why: str  # "statement", "prompt", "id", "words" or "title"
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
            "suite_problems": self.problems,
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
            checked = ", ".join(f"{name} ({count} texts)" for name, count in self.sources.items())
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


def find_overlaps(
    problems: Sequence[Problem], recipe: EvaluationRecipe, prompts: Mapping[str, str] | None = None
) -> Overlaps:
    """Overlaps of `problems`, asked with `prompts` (id -> text), with what the recipe's model was trained on.

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
        found=overlapping(problems, training, prompts),
        problems=len(problems),
        cutoff=cutoff,
        before_cutoff=sum(p.date is not None and p.date <= cutoff for p in problems) if cutoff else 0,
        undated=sum(problem.date is None for problem in problems),
    )


def ancestry(checkpoint: Path) -> Iterator[Path]:
    """The run folders with fingerprints that a checkpoint comes from, the latest first."""
    seen: set[Path] = set()
    for _ in range(_LONGEST_CHAIN):
        run = next((p for p in (checkpoint, *checkpoint.resolve().parents[:2]) if (p / RESOLVED).is_file()
                    or (p / FILE).is_file()), None)  # fmt: skip
        if run is None or run.resolve() in seen:
            return
        seen.add(run.resolve())
        if (run / FILE).is_file():
            yield run
        try:
            config = yaml.safe_load((run / RESOLVED).read_text(encoding="utf-8"))
            checkpoint = Path(config["model"]["name_or_path"])
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return


def overlapping(
    problems: Sequence[Problem], training: dict[str, Fingerprints], prompts: Mapping[str, str] | None = None
) -> list[Overlap]:
    """The closest training problem of every problem that has one, in the order of `problems`.

    Equal ids or equal words (of the statement or of its prompt) are an overlap, and so are nearly the same 5-grams of
    words both ways (`BOTH_WAYS`).
    Otherwise a 5-gram weighs log(1 + texts / texts that hold it), counted over all training texts, and nothing where
    more than `FEW` of them hold it, or three of `problems`: a phrase of the corpus or of the suite tells no problem
    from another. One training problem must
    hold half of a problem's weight (`COVERAGE`), or a fifth under the same title; and what it holds must be a quarter
    (`IDENTIFYING`) of what the statement would weigh if all of it were its own, so that statements filled into one
    template are not taken for each other.
    """
    suite = [of_problem(problem) for problem in problems]
    corpus = _Corpus(training, suite)
    asked = {name: digest(prompt) for name, prompt in (prompts or {}).items()}
    found = (corpus.closest(problem, asked.get(problem.id, "")) for problem in suite)
    return [overlap for overlap in found if overlap is not None]


class _Corpus:
    """All training texts, with their 5-grams in one sorted array."""

    def __init__(self, training: dict[str, Fingerprints], suite: Sequence[Fingerprint]) -> None:
        texts = [(source, known.modulus, one) for source, known in training.items() for one in known.problems]
        self.texts = [(source, one) for source, _, one in texts]
        self.moduli = np.array([modulus for _, modulus, _ in texts], dtype=np.int64)
        self.sizes = np.array([len(one.grams) for _, _, one in texts], dtype=np.int64)
        grams = np.concatenate([*(one.grams for _, _, one in texts), np.empty(0, np.uint32)])
        owners = np.repeat(np.arange(len(texts)), self.sizes)
        order = np.argsort(grams, kind="stable")
        self.grams, self.owners = grams[order], owners[order]
        self.few = max(FEW, len(texts) / _FEW_IN)
        asked, times = np.unique(
            np.concatenate([*(one.grams for one in suite), np.empty(0, np.uint32)]), return_counts=True
        )
        self.phrases = asked[times > _SIBLINGS]
        self.ids = {one.id: place for place, (_, _, one) in reversed(list(enumerate(texts)))}
        self.digests = {one.digest: place for place, (_, _, one) in reversed(list(enumerate(texts)))}
        self.titles: dict[str, list[int]] = {}
        for place, (_, _, one) in enumerate(texts):
            self.titles.setdefault(_title(one.title), []).append(place)

    def closest(self, problem: Fingerprint, asked: str = "") -> Overlap | None:
        """The training text that `problem`, asked with a prompt of digest `asked`, overlaps with."""
        if not self.texts:
            return None
        for why, key in (("statement", problem.digest), ("prompt", asked)):
            if key in self.digests:
                return self._overlap(problem, self.digests[key], why, 1.0)
        covered, identifying, both_ways = self._shares(problem)
        if problem.id in self.ids:
            place = self.ids[problem.id]
            return self._overlap(problem, place, "id", covered[place])
        if both_ways.max() >= BOTH_WAYS:
            return self._overlap(problem, int(both_ways.argmax()), "words", both_ways.max())
        marked = np.where(identifying >= IDENTIFYING, covered, 0.0)
        if marked.max() >= COVERAGE:
            return self._overlap(problem, int(marked.argmax()), "words", marked.max())
        same = max(self.titles.get(_title(problem.title), []), key=lambda place: covered[place], default=None)
        if _title(problem.title) and same is not None and covered[same] >= TITLE_COVERAGE:
            return self._overlap(problem, same, "title", covered[same])
        return None

    def _overlap(self, problem: Fingerprint, place: int, why: str, coverage: float) -> Overlap:
        source, one = self.texts[place]
        return Overlap(problem.id, one.id, source, why, round(float(coverage), 3))

    def _shares(self, problem: Fingerprint) -> tuple[Floats, Floats, Floats]:
        """Per training text: share it holds of the problem's weight; the same weight over that of a statement all its
        own; share of 5-grams in common, of the larger of the two."""
        covered, identifying, both_ways = (np.zeros(len(self.texts)) for _ in range(3))
        for modulus in np.unique(self.moduli):
            grams = problem.grams[problem.grams % modulus == 0] if modulus > 1 else problem.grams
            if not len(grams):
                continue
            left, right = (np.searchsorted(self.grams, grams, side=side) for side in ("left", "right"))
            counts = right - left
            phrase = (counts > self.few) | np.isin(grams, self.phrases)
            weights = np.where(phrase, 0.0, np.log1p(len(self.texts) / np.maximum(counts, 1)))
            places = np.repeat(left - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
            owners = self.owners[places]
            held = np.bincount(owners, weights=np.repeat(weights, counts), minlength=len(self.texts))
            shared = np.bincount(owners, minlength=len(self.texts))
            here = self.moduli == modulus
            if weights.sum() > 0:
                covered[here] = held[here] / weights.sum()
            identifying[here] = held[here] / (len(grams) * np.log1p(len(self.texts)))
            both_ways[here] = shared[here] / np.maximum(self.sizes[here], len(grams))
        return covered, identifying, both_ways


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
