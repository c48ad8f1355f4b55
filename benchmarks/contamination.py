"""How often the contamination check errs: alarms on problems that were not trained on, and copies it misses.

    python benchmarks/contamination.py --humaneval HumanEval.jsonl.gz --mbpp mbpp.jsonl \
        --leetcode-train LeetCodeDataset.jsonl.gz --leetcode-contests contests.jsonl.gz

Without files only the built-in families are measured. Single-threaded; under a minute.
"""

from __future__ import annotations

import argparse
import random

from data_curation import Problem, load_problems
from data_curation.builtin.pipelines import pipeline_problems
from rlvr.evaluation.contamination import overlapping
from rlvr.fingerprints import Fingerprints, fingerprint, of_problem

EDIT_RATES = (0.0, 0.05, 0.1)


def edited(text: str, rate: float, seed: int) -> str:
    """The text with a share of its words left out or replaced by others of it."""
    chance, words = random.Random(seed), text.split()
    kept = [chance.choice(words) if chance.random() < rate / 2 else word for word in words]
    return " ".join(word for word in kept if chance.random() >= rate / 2)


def without_names(problems: list[Problem]) -> list[Problem]:
    """The problems with other ids and no titles, so that words alone decide."""
    return [problem.model_copy(update={"id": f"p{n}", "title": ""}) for n, problem in enumerate(problems)]


def copies(problems: list[Problem], rate: float) -> Fingerprints:
    return Fingerprints([fingerprint(f"c{n}", "", edited(p.statement, rate, n)) for n, p in enumerate(problems)])


def false_alarms_of_a_template(sizes: tuple[int, ...], draws: int) -> None:
    heldout = pipeline_problems(48, [1, 2, 2], 0, split="heldout", vocabulary="core")
    training = pipeline_problems(640, [1, 2, 2], 0, split="train", vocabulary="core")
    contest = load_problems("builtin:contest")
    print(f"false alarms, mean of {draws} draws: training texts, built-in pipelines of 48, built-in contest of 40")
    for size in sizes:
        alarms = [0, 0]
        for seed in range(draws):
            chance = random.Random(seed)
            chosen = chance.sample(training, size)
            alarms[0] += len(overlapping(heldout, {"run": Fingerprints([of_problem(p) for p in chosen])}))
            shuffled = chance.sample(contest, len(contest))
            rest = Fingerprints([of_problem(p) for p in shuffled[40 : 40 + size]])
            alarms[1] += len(overlapping(without_names(shuffled[:40]), {"run": rest}))
        print(f"  {size:5d}  {alarms[0] / draws:5.2f}  {alarms[1] / draws:5.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name in ("humaneval", "mbpp", "leetcode-train", "leetcode-contests"):
        parser.add_argument(f"--{name}", default=None)
    parser.add_argument("--draws", type=int, default=10)
    given = parser.parse_args()
    false_alarms_of_a_template((4, 12, 40, 80, 160, 320, 640), given.draws)
    sets = {
        name: load_problems(f"{source}:{path}")
        for name, source, path in (
            ("HumanEval", "humaneval", given.humaneval),
            ("MBPP", "mbpp", given.mbpp),
            ("LeetCode training", "leetcode", given.leetcode_train),
            ("LeetCode contests", "leetcode-contest", given.leetcode_contests),
        )
        if path is not None
    }
    for name, problems in sets.items():
        others = {other: Fingerprints([of_problem(p) for p in found]) for other, found in sets.items() if other != name}
        suite = without_names(problems)
        alarms = overlapping(suite, others)
        sources = ", ".join(f"{sum(o.source == other for o in alarms)} by {other}" for other in others)
        print(f"{name}, {len(suite)} problems: claimed {sources or 'nothing'}")
        for rate in EDIT_RATES:
            found = overlapping(suite, others | {"copies": copies(suite, rate)})
            print(f"  copies with {rate:.0%} of the words edited: {len(found) / len(suite):.1%} found", flush=True)


if __name__ == "__main__":
    main()
