"""Fingerprints of training problems: enough to tell later whether an evaluation holds one of them, without its text."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_curation import Problem
from data_curation.stages.minhash import shingles

FILE = "training_problems.jsonl"
FULL_TEXTS = 20_000  # of more texts a share of the 5-grams is kept, about so many texts' worth


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One training problem: id, title, a digest of its statement's words, and hashes of its word 5-grams, sorted."""

    id: str
    title: str
    digest: str
    grams: npt.NDArray[np.uint32]


def fingerprint(name: str, title: str, statement: str) -> Fingerprint:
    """The fingerprint of a statement; equal digests mean equal words, whatever their case and spacing."""
    return Fingerprint(name, title, digest(statement), np.asarray(shingles(statement), dtype=np.uint32))


def digest(text: str) -> str:
    """16 hex digits, the same for texts of the same words, whatever their case and spacing."""
    words = " ".join(text.casefold().split())
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def of_problem(problem: Problem) -> Fingerprint:
    return fingerprint(problem.id, problem.title, problem.statement)


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of a training set. Of its 5-grams only those that `modulus` divides are kept: 1 keeps all."""

    problems: list[Fingerprint]
    modulus: int = 1

    def sampled(self, one: Fingerprint) -> Fingerprint:
        """A fingerprint of another text, with the 5-grams this set would have kept of it."""
        return one if self.modulus == 1 else replace(one, grams=one.grams[one.grams % self.modulus == 0])


def write_fingerprints(folder: Path, problems: Iterable[Problem]) -> Path:
    """Writes `folder/training_problems.jsonl` for what a run trains on; returns the path. Whole or not at all."""
    return write_texts(folder, ((problem.id, problem.title, problem.statement) for problem in problems))


def write_texts(folder: Path, texts: Iterable[tuple[str, str, str]]) -> Path:
    """As `write_fingerprints`, of (id, title, text). Equal texts count once; of many a sample of 5-grams is kept."""
    distinct = {text: (name, title) for name, title, text in texts}
    modulus = -(-len(distinct) // FULL_TEXTS) or 1
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"modulus": modulus, "problems": len(distinct)}) + "\n")
        for text, (name, title) in distinct.items():
            one = fingerprint(name, title, text)
            grams = one.grams[one.grams % modulus == 0]
            encoded = base64.b64encode(grams.astype("<u4").tobytes()).decode()
            file.write(json.dumps({"id": name, "title": title, "digest": one.digest, "grams": encoded}) + "\n")
    temporary.replace(path)
    return path


def read_fingerprints(path: Path) -> Fingerprints:
    """Fingerprints of a run's folder or of the file itself. FileNotFoundError, or ValueError naming file and line."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; `rlvr train` and `rlvr sft` write one beside a run")
    found, modulus, number = [], 1, 1
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            row = json.loads(line)
            if number == 1:
                modulus = int(row["modulus"])
                continue
            grams = np.frombuffer(base64.b64decode(row["grams"]), dtype="<u4").astype(np.uint32)
            found.append(Fingerprint(row["id"], row["title"], row["digest"], grams))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}:{number}: not a fingerprint: {error}") from None
    return Fingerprints(found, modulus)
