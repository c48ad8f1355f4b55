"""Duplicate removal at scale: a synthetic corpus with known plants, CPU time, peak memory, recall and precision.

    python benchmarks/dedup_scale.py --problems 120000

The corpus imitates contest statements: a heavy-tailed vocabulary, stock sentences that most problems share, and hard
negatives (another task told with half of the same sentences). Plants: exact copies up to case and spacing, and near
copies made by the edits that publishers make (words replaced, a sentence cut, a header added, names changed).
Every problem belongs to one known family; a removal is right if the problem kept instead is of the same family.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_curation.config import DeduplicateOptions
from data_curation.schema import Problem
from data_curation.stages import minhash
from data_curation.stages.deduplicate import deduplicate
from data_curation.stages.result import Workplace

STOCK = (
    "The first line contains a single integer t the number of test cases .",
    "The first line of each test case contains two integers n and m .",
    "It is guaranteed that the sum of n over all test cases does not exceed 200000 .",
    "Print the answer modulo 1000000007 for each test case on a separate line .",
    "The second line contains n space separated integers a1 a2 an .",
    "If there are several answers print any of them .",
    "If it is impossible print -1 .",
    "In the first example the answer is shown in the picture above .",
)
EXACT, NEAR, HARD_NEGATIVES = 0.06, 0.12, 0.05  # shares of the corpus


def corpus(size: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """(id, family, statement) of `size` problems in random order; the same for the same size and seed."""
    random = np.random.default_rng(seed)
    vocabulary = np.array([_word(number) for number in range(30_000)])
    chances = 1.0 / np.arange(1, len(vocabulary) + 1) ** 0.9
    cumulative = np.cumsum(chances / chances.sum())

    def words(count: int) -> list[str]:
        return vocabulary[np.searchsorted(cumulative, random.random(count)).clip(max=len(vocabulary) - 1)].tolist()

    def sentences() -> list[str]:
        length = int(np.clip(random.lognormal(4.9, 0.5), 60, 900))
        story = [" ".join([*words(int(random.integers(8, 22))), "."]) for _ in range(max(3, length // 15))]
        stock = [STOCK[i] for i in random.choice(len(STOCK), int(random.integers(1, 6)), replace=False)]
        return [*story, *stock, f"Example {' '.join(map(str, random.integers(0, 10**6, 8)))}"]

    def near(text: list[str]) -> list[str]:
        text = list(text)
        for _ in range(int(random.integers(1, 4))):
            kind = random.integers(4)
            if kind == 0 and len(text) > 6:  # a sentence cut
                del text[int(random.integers(len(text)))]
            elif kind == 1:  # a header added
                text.insert(0, " ".join(words(6)))
            elif kind == 2:  # a name changed throughout
                old, new = text[0].split()[0], words(1)[0]
                text = [" ".join(new if w == old else w for w in s.split()) for s in text]
            else:  # a few words replaced
                for _ in range(max(1, len(text) // 6)):
                    at = int(random.integers(len(text)))
                    parts = text[at].split()
                    parts[int(random.integers(len(parts)))] = words(1)[0]
                    text[at] = " ".join(parts)
        return text

    fresh = int(size * (1 - EXACT - NEAR - HARD_NEGATIVES))
    originals = [sentences() for _ in range(fresh)]
    rows = [(f"f{i}", "\n".join(text)) for i, text in enumerate(originals)]
    for number in range(size - fresh):
        # families of copies have uneven sizes, as popular problems do
        source = int(fresh * random.random() ** 2)
        share = random.random() * (EXACT + NEAR + HARD_NEGATIVES)
        if share < EXACT:
            text = "\n".join(originals[source])
            rows.append((f"f{source}", text.upper() if random.random() < 0.5 else text.replace("\n", "\n\n")))
        elif share < EXACT + NEAR:
            rows.append((f"f{source}", "\n".join(near(originals[source]))))
        else:
            other = sentences()
            half = len(other) // 2
            rows.append((f"n{number}", "\n".join([*originals[source][:half], *other[half:]])))
    for number, index in enumerate(random.permutation(len(rows))):
        family, text = rows[index]
        yield f"p{number}", family, text


def _word(number: int) -> str:
    syllables = ("ka", "lo", "mi", "ter", "un", "sa", "ro", "den", "vi", "po", "gra", "el")
    parts: list[str] = []
    while number or not parts:
        number, digit = divmod(number, len(syllables))
        parts.append(syllables[digit])
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=120_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="CPU time against datasketch")
    arguments = parser.parse_args()
    if arguments.compare:
        return compare([text for *_, text in corpus(arguments.problems, arguments.seed)])
    rows = list(corpus(arguments.problems, arguments.seed))
    family = {name: group for name, group, _ in rows}
    problems = [Problem(id=name, statement=text) for name, _, text in rows]
    words = sum(len(text.split()) for *_, text in rows) / len(rows)
    del rows
    before = _peak_mib()
    wall, cpu = time.monotonic(), time.process_time()
    result = deduplicate(problems, DeduplicateOptions(), Workplace(Path("."), True))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    removed = [(family[d.id], family[d.kept_instead]) for d in result.dropped]
    right = sum(a == b for a, b in removed)
    planted = len(family) - len(set(family.values()))
    print(
        json.dumps(
            {
                "problems": len(problems),
                "words per statement": round(words, 1),
                "planted copies": planted,
                "removed": len(removed),
                "recall": round(right / planted, 4),
                "precision": round(right / max(1, len(removed)), 4),
                "CPU seconds": round(cpu, 1),
                "wall seconds": round(wall, 1),
                "MiB before": before,
                "peak MiB": _peak_mib(),
            },
            indent=1,
        )
    )


def compare(texts: list[str]) -> None:
    """Prints the CPU seconds of signatures and band lookup from the same shingles, ours and datasketch's."""
    from datasketch import MinHash, MinHashLSH

    started = time.process_time()
    sets = minhash.shingled(texts)
    shingling = time.process_time() - started
    started = time.process_time()
    ours = minhash.candidate_pairs(sets, 0.5)
    own = time.process_time() - started
    started = time.process_time()
    permutations = minhash.BANDS * minhash.ROWS
    index = MinHashLSH(num_perm=permutations, params=(minhash.BANDS, minhash.ROWS))
    theirs = set()
    for number in range(len(texts)):
        signature = MinHash(permutations, hashfunc=int)
        signature.update_batch(sets.of(number).tolist())
        theirs |= {(other, number) for other in index.query(signature)}
        index.insert(number, signature, check_duplication=False)
    library = time.process_time() - started
    print(
        json.dumps(
            {
                "texts": len(texts),
                "shingling, CPU seconds": round(shingling, 1),
                "ours, with exact Jaccard, CPU seconds": round(own, 1),
                "datasketch, candidates only, CPU seconds": round(library, 1),
                "ratio": round(library / own, 1),
                "pairs found by ours and among datasketch's candidates": len({(i, j) for i, j, _ in ours} & theirs),
                "pairs found by ours": len(ours),
            },
            indent=1,
        )
    )


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
