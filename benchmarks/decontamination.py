"""How well training problems that are in an evaluation set are found: our stage beside the usual rules.

    python benchmarks/decontamination.py --train TRAIN --evaluation EVALUATION

TRAIN and EVALUATION are sources as curation reads them. Two problems count as the same where their titles are (LeetCode
slugs identify problems), so titles are not used as evidence in the rows "words only". Precision is over training
problems a rule would remove, recall over those it should.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence

from data_curation import Problem, load_problems
from data_curation.config import DecontaminateOptions
from data_curation.stages.decontaminate import EvaluationIndex, title_key
from data_curation.stages.minhash import jaccard, shingled
from data_curation.stages.normalise import clean_statement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--evaluation", required=True)
    arguments = parser.parse_args()
    train, evaluation = load_problems(arguments.train), load_problems(arguments.evaluation)
    titles = {title_key(problem.title) for problem in evaluation} - {""}
    truth = {problem.id for problem in train if title_key(problem.title) in titles}
    print(f"{len(train)} training problems, {len(evaluation)} evaluation problems, {len(truth)} in both")
    for words in (8, 13):
        report(f"any shared {words}-gram", shared_gram(train, evaluation, words), truth)
    for threshold in (0.7, 0.5):
        report(f"Jaccard of 5-grams >= {threshold}", near(train, evaluation, threshold), truth)
    options = DecontaminateOptions()
    for title_coverage, name in ((1.0, "words only"), (options.title_coverage, "words and titles")):
        started = time.process_time()
        index = EvaluationIndex({"evaluation": evaluation}, options.words)
        index.count(problem.statement for problem in train)
        found = {h.id for hits in index.search(train, options.coverage, title_coverage) for h in hits}
        report(f"rarity-weighted coverage >= {options.coverage}, {name}", found, truth, time.process_time() - started)


def report(rule: str, found: set[str], truth: set[str], seconds: float | None = None) -> None:
    right = len(found & truth)
    row = {
        "rule": rule,
        "removed": len(found),
        "precision": round(right / len(found), 3) if found else None,
        "recall": round(right / len(truth), 3) if truth else None,
    }
    if seconds is not None:
        row["CPU seconds"] = round(seconds, 1)
    print(json.dumps(row))


def shared_gram(train: Sequence[Problem], evaluation: Sequence[Problem], words: int) -> set[str]:
    texts = shingled((clean_statement(p.statement) for p in evaluation), words)
    known = {gram for index in range(len(texts)) for gram in texts.of(index).tolist()}
    texts = shingled((clean_statement(p.statement) for p in train), words)
    return {p.id for index, p in enumerate(train) if not known.isdisjoint(texts.of(index).tolist())}


def near(train: Sequence[Problem], evaluation: Sequence[Problem], threshold: float) -> set[str]:
    texts = shingled(clean_statement(p.statement) for p in evaluation)
    owners = defaultdict(set)
    for index in range(len(texts)):
        for gram in texts.of(index).tolist():
            owners[gram].add(index)
    found = set()
    trained = shingled(clean_statement(p.statement) for p in train)
    for index, problem in enumerate(train):
        grams = trained.of(index)
        rivals = set().union(*(owners.get(gram, ()) for gram in grams.tolist()))
        if any(jaccard(grams, texts.of(rival)) >= threshold for rival in rivals):
            found.add(problem.id)
    return found


if __name__ == "__main__":
    main()
