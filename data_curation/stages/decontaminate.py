"""Problems of evaluation sets out of the training data: by rare words in common, by title, by date.

Contest statements share their boilerplate, so a shared n-gram means little (any shared 13-gram flags nine of ten
statements of one judge). Here an n-gram weighs log(texts / texts that have it), and a problem is taken for an
evaluation problem when the n-grams they share hold a large part of the weight of the evaluation statement. Method and
thresholds are choices of this project; `benchmarks/decontamination.py` compares them with the usual rules.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice, repeat

import numpy as np
import numpy.typing as npt

from data_curation.config import DecontaminateOptions
from data_curation.inputs import evaluation_set
from data_curation.schema import Problem
from data_curation.stages.minhash import CHUNK_TEXTS, Hashes, shingled, tokens
from data_curation.stages.normalise import clean_statement
from data_curation.stages.result import Dropped, Notes, Stage, Workplace, parts_of
from data_curation.stored import light

CONTAMINATED = "contaminated:"  # tag prefix of problems that are marked instead of dropped
RARE_SHOWN = 5


@dataclass(frozen=True)
class Hit:
    """One problem found in an evaluation set, with what says so; a row of `contamination.parquet`."""

    id: str
    evaluation_set: str
    evaluation_id: str
    why: str  # "words", "title"
    coverage: float  # weight of the shared n-grams over the weight of the evaluation statement
    shared: int  # n-grams in common
    passage: str  # longest run of words in common
    rarest: list[str]  # shared n-grams that fewest texts have


class EvaluationIndex:
    """The n-grams of evaluation statements, each with its weight and the statements that have it."""

    def __init__(self, sets: dict[str, Sequence[Problem]], words: int) -> None:
        self.words = words
        self.problems = [(name, problem) for name, problems in sets.items() for problem in problems]
        statements = [clean_statement(problem.statement) for _, problem in self.problems]
        texts = shingled(statements, words)
        self._tokens = [tokens(statement) for statement in statements]
        self._grams = [texts.of(index) for index in range(len(texts))]
        every = np.concatenate([*self._grams, np.empty(0, np.uint32)])
        owners = np.repeat(np.arange(len(self._grams)), [len(grams) for grams in self._grams])
        order = np.argsort(every, kind="stable")
        self._owners = owners[order]
        self._known, self._starts, self._counts = np.unique(every[order], return_index=True, return_counts=True)
        self._texts_with = self._counts.astype(np.int64)
        self._texts = len(self._grams)
        self._titles: dict[str, list[int]] = defaultdict(list)
        for index, (_, problem) in enumerate(self.problems):
            if key := title_key(problem.title):
                self._titles[key].append(index)

    def count(self, statements: Iterable[str]) -> None:
        """Takes the texts to be searched into account: an n-gram that many of them have weighs little."""
        self.add(self.counted(statements))

    def counted(self, statements: Iterable[str]) -> tuple[int, npt.NDArray[np.int64]]:
        """(number of texts, how many of them have each known n-gram), for `add`."""
        texts, having = 0, np.zeros(len(self._known), np.int64)
        for grams in self._of_each(statements):
            having[self._positions(grams)] += 1
            texts += 1
        return texts, having

    def add(self, counted: tuple[int, npt.NDArray[np.int64]]) -> None:
        """Adds what `counted` found, here or elsewhere."""
        self._texts += counted[0]
        self._texts_with += counted[1]

    def search(self, problems: Sequence[Problem], coverage: float, title_coverage: float) -> Iterator[list[Hit]]:
        """For each problem its hits, best first: coverage from `coverage` on, under the same title `title_coverage`."""
        weights = np.log(self._texts / np.maximum(self._texts_with, 1)) if self._texts else np.empty(0)
        totals = [weights[self._positions(grams)].sum() for grams in self._grams]
        for problem, grams in zip(problems, self._of_each(p.statement for p in problems), strict=True):
            positions = self._positions(grams)
            found = self._weighed(positions, weights)
            same_title = set(self._titles.get(title_key(problem.title), ()))
            hits = []
            for index in sorted(same_title | found.keys()):
                covered = found.get(index, 0.0) / totals[index] if totals[index] > 0 else 0.0
                if covered >= (min(coverage, title_coverage) if index in same_title else coverage):
                    why = "words" if covered >= coverage else "title"
                    hits.append(self._hit(problem, index, why, covered, positions, weights))
            yield sorted(hits, key=lambda hit: -hit.coverage)

    def _of_each(self, statements: Iterable[str]) -> Iterator[Hashes]:
        source = iter(statements)
        while chunk := list(islice(source, CHUNK_TEXTS)):
            texts = shingled(chunk, self.words)
            yield from (texts.of(index) for index in range(len(chunk)))

    def _positions(self, grams: Hashes) -> npt.NDArray[np.int64]:
        """Where the known ones among `grams` stand in the index."""
        if not len(self._known) or not len(grams):
            return np.empty(0, np.int64)
        places = np.searchsorted(self._known, grams).clip(max=len(self._known) - 1)
        return places[self._known[places] == grams]

    def _weighed(self, positions: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> dict[int, float]:
        """Evaluation problem -> weight of the n-grams it shares."""
        counts = self._counts[positions]
        before = np.cumsum(counts) - counts
        places = np.repeat(self._starts[positions] - before, counts) + np.arange(counts.sum())
        shared = np.bincount(self._owners[places], np.repeat(weights[positions], counts), len(self.problems))
        return {int(index): float(shared[index]) for index in np.flatnonzero(shared)}

    def _hit(
        self,
        problem: Problem,
        index: int,
        why: str,
        covered: float,
        positions: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float64],
    ) -> Hit:
        name, evaluation = self.problems[index]
        shared = np.intersect1d(positions, self._positions(self._grams[index]))
        passage, rarest = self._shown(index, shared, weights)
        return Hit(problem.id, name, evaluation.id, why, round(float(covered), 4), len(shared), passage, rarest)

    def _shown(
        self, index: int, shared: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
    ) -> tuple[str, list[str]]:
        words = self._tokens[index]
        windows = shingled([" ".join(words)], self.words)
        places = np.searchsorted(self._known, windows.values).clip(max=max(0, len(self._known) - 1))
        inside = np.isin(places, shared)
        best, run, end = 0, 0, 0
        for position, is_shared in enumerate(inside):
            run = run + 1 if is_shared else 0
            if run > best:
                best, end = run, position
        passage = " ".join(words[end - best + 1 : end + self.words]) if best else ""
        rare = sorted({(-float(weights[places[p]]), p) for p in np.flatnonzero(inside)})
        texts = dict.fromkeys(" ".join(words[p : p + self.words]) for _, p in rare)
        return passage, list(texts)[:RARE_SHOWN]


def title_key(title: str) -> str:
    """A title's words in lower case; slugs and titles of one problem give the same."""
    return " ".join(token for token in tokens(title.replace("_", " ")) if token[0].isalnum())


@Stage
def decontaminate(
    problems: Sequence[Problem], options: DecontaminateOptions, work: Workplace, notes: Notes
) -> Iterator[Problem]:
    """Drops (or marks) problems that are in an evaluation set, and problems published on or after the cutoff.

    `rows` hold the evidence of every hit; figures count problems by evaluation set.
    """
    hits = _hits(problems, options, work)
    by_set: Counter[str] = Counter()
    undated = 0
    for problem, found in zip(problems, hits, strict=True):
        notes.rows += [asdict(hit) for hit in found]
        by_set.update({hit.evaluation_set for hit in found})
        undated += problem.date is None
        if found and options.action == "drop":
            notes.dropped.append(Dropped(problem.id, "in an evaluation set", _said(found[0]), found[0].evaluation_id))
            continue
        if options.published_before is not None:
            if problem.date is not None and problem.date >= options.published_before:
                notes.dropped.append(Dropped(problem.id, "published after the cutoff", str(problem.date)))
                continue
            if problem.date is None and options.drop_undated:
                notes.dropped.append(Dropped(problem.id, "no date", f"cutoff {options.published_before}"))
                continue
        marks = [f"{CONTAMINATED}{name}" for name in dict.fromkeys(hit.evaluation_set for hit in found)]
        new = [mark for mark in marks if mark not in problem.tags]
        yield problem.model_copy(update={"tags": [*problem.tags, *new]}) if new else problem
    notes.figures = {f"found in {name}": by_set[name] for name in options.against}
    if options.published_before is not None:
        notes.figures["problems without a date"] = undated


def _said(hit: Hit) -> str:
    share = f"{hit.coverage:.0%} of the weight of {hit.evaluation_id} ({hit.evaluation_set})"
    return f"{share}, same title" if hit.why == "title" else share


def _hits(problems: Sequence[Problem], options: DecontaminateOptions, work: Workplace) -> Iterator[list[Hit]]:
    if not options.against:
        return repeat([], len(problems))
    index = EvaluationIndex({name: evaluation_set(name) for name in options.against}, options.words)
    parts = -(-len(problems) // CHUNK_TEXTS)
    statements = ([p.statement for p in part] for part in parts_of(light(problems), CHUNK_TEXTS))
    for counted in work.track(work.map(index.counted, statements), parts, "n-grams", "part"):
        index.add(counted)
    search = partial(_searched, index, options)
    found = work.track(work.map(search, parts_of(light(problems), CHUNK_TEXTS)), parts, "decontaminate", "part")
    return chain.from_iterable(found)


def _searched(index: EvaluationIndex, options: DecontaminateOptions, problems: Sequence[Problem]) -> list[list[Hit]]:
    return list(index.search(problems, options.coverage, options.title_coverage))
