"""Rollouts in a form that a web page can hold by the ten thousand: columns, interned texts, gzip, base64."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlvr.report.run_data import RolloutFile

_LONGEST_TEXT = 8_000  # characters kept of one text: the first and the last half of it
_CHUNK_CHARACTERS = 1_000_000  # texts are decompressed by the page in pieces of this size
_NAMES = ("stage", "problem_id", "difficulty", "verdict", "finish_reason", "message")
_NUMBERS = (
    "step",
    "reward",
    "advantage",
    "passed",
    "tests",
    "completion_tokens",
    "n_allocated",
    "success_rate",
    "group",
)
_TEXTS = ("prompt", "program", "completion")


@dataclass(slots=True)
class Rollouts:
    """Rollouts by column, in the order they were sampled.

    `names[c][i]` indexes `vocabulary[c]`; `numbers[c][i]` is a number or None; `text_ids[c][i]` indexes `texts`, -1
    for none (for `completion` also when it equals the program); `cases[i]` indexes `vocabulary["cases"]`.
    """

    total: int = 0  # in the files
    clipped: int = 0  # texts that were shortened
    names: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in _NAMES})
    numbers: dict[str, list[float | None]] = field(default_factory=lambda: {name: [] for name in _NUMBERS})
    text_ids: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in _TEXTS})
    cases: list[int] = field(default_factory=list)
    vocabulary: dict[str, list[str]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))

    def row(self, index: int) -> dict[str, Any]:
        """One rollout under the column names of its file."""
        row: dict[str, Any] = {name: self.vocabulary[name][self.names[name][index]] for name in _NAMES}
        row |= {name: self.numbers[name][index] for name in _NUMBERS}
        for name in _TEXTS:
            place = self.text_ids[name][index]
            row[name] = self.texts[place] if place >= 0 else ""
        row["cases"] = [case for case in self.vocabulary["cases"][self.cases[index]].split(",") if case]
        row["index"] = index
        return row


def load_rollouts(files: Sequence[RolloutFile], *, most: int = 60_000, most_characters: int = 60_000_000) -> Rollouts:
    """At most `most` rollouts, sampled evenly over the run beyond that, fewer if their texts exceed the characters."""
    while True:
        rollouts = _load(files, most)
        if rollouts.characters <= most_characters or len(rollouts) < 2:
            return rollouts
        most = max(1, int(0.9 * len(rollouts) * most_characters / rollouts.characters))


def _load(files: Sequence[RolloutFile], most: int) -> Rollouts:
    total = sum(file.rows for file in files)
    stride = max(1.0, total / max(1, most))
    found = Rollouts(total=total)
    words: dict[str, dict[str, int]] = {name: {} for name in (*_NAMES, "cases")}
    texts: dict[str, int] = {}
    start, wanted = 0, 0  # rows before this file; rollouts chosen so far
    for file in files:
        here = []
        while (place := math.floor(wanted * stride)) < start + file.rows:
            here.append(place - start)
            wanted += 1
        start += file.rows
        if here:
            _append(found, file, here, words, texts)
    found.vocabulary = {name: list(entries) for name, entries in words.items()}
    found.texts = [_clip(text) for text in texts]
    found.clipped = sum(len(text) > _LONGEST_TEXT for text in texts)
    return found


def _append(
    found: Rollouts, file: RolloutFile, rows: list[int], words: dict[str, dict[str, int]], texts: dict[str, int]
) -> None:
    stored = pq.ParquetFile(file.path)
    wanted = [*_NAMES, *_NUMBERS, *_TEXTS, "cases"]
    table = stored.read(columns=[name for name in wanted if name in stored.schema_arrow.names])
    if len(rows) < table.num_rows:
        table = table.take(pa.array(rows))
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    size = len(rows)

    def column(name: str) -> list[Any]:
        return columns.get(name, [None] * size)

    def intern(entries: dict[str, int], word: str) -> int:
        return entries.setdefault(word, len(entries))

    for name in _NAMES:
        given = [file.stage if name == "stage" and not value else str(value or "") for value in column(name)]
        found.names[name] += [intern(words[name], value) for value in given]
    for name in _NUMBERS:
        given_numbers = [file.step] * size if name == "step" and "step" not in columns else column(name)
        found.numbers[name] += [_short(value) for value in given_numbers]
    found.cases += [intern(words["cases"], ",".join(cases or [])) for cases in column("cases")]
    programs = column("program")
    for name in ("prompt", "program"):
        found.text_ids[name] += [intern(texts, text) if text else -1 for text in column(name)]
    found.text_ids["completion"] += [
        intern(texts, text) if text and text != program else -1
        for text, program in zip(column("completion"), programs, strict=True)
    ]


def _short(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else round(value, 4)


def _clip(text: str) -> str:
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[... {left_out:,} characters left out of the report ...]\n{text[-half:]}"


def encode(rollouts: Rollouts) -> tuple[str, list[str]]:
    """(index, text chunks), each base64 of gzipped JSON: the index is read at once, a chunk when a text is shown."""
    chunks: list[list[str]] = []
    starts: list[int] = []
    size = _CHUNK_CHARACTERS
    for place, text in enumerate(rollouts.texts):
        if size >= _CHUNK_CHARACTERS:
            chunks.append([])
            starts.append(place)
            size = 0
        chunks[-1].append(text)
        size += len(text)
    index = {
        "size": len(rollouts),
        "names": rollouts.names,
        "numbers": rollouts.numbers,
        "texts": rollouts.text_ids,
        "cases": rollouts.cases,
        "vocabulary": rollouts.vocabulary,
        "chunks": starts,
    }
    return packed(index), [packed(chunk) for chunk in chunks]


def packed(content: Any) -> str:
    raw = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode()


def pick(rollouts: Rollouts, *, solved: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """(why it was picked, rollout) for a handful: hard problems solved, and the newest failure of each verdict."""
    verdict = [rollouts.vocabulary["verdict"][i] for i in rollouts.names["verdict"]] if len(rollouts) else []
    rates, steps = rollouts.numbers["success_rate"], rollouts.numbers["step"]
    picked: list[tuple[str, dict[str, Any]]] = []

    def hardness(i: int) -> tuple[float, int]:
        rate = rates[i]  # an unseen problem says nothing of its difficulty
        return (1.0 if rate is None else rate, -i)

    seen: set[int] = set()
    for i in sorted((i for i, v in enumerate(verdict) if v == "AC"), key=hardness):
        problem = rollouts.names["problem_id"][i]
        if problem in seen or len(seen) >= solved:
            continue
        seen.add(problem)
        rate = rates[i]
        why = "Solved" if rate is None else f"Solved against an estimated success rate of {rate:.0%}"
        picked.append((why, rollouts.row(i)))
    newest: dict[str, int] = {}
    counts: dict[str, int] = {}
    for i, v in enumerate(verdict):
        if v == "AC":
            continue
        counts[v] = counts.get(v, 0) + 1
        best = newest.get(v)
        # Among the newest step's failures the one that passed most tests is the nearest miss.
        key = (rollouts.names["stage"][i], steps[i] or 0, rollouts.numbers["passed"][i] or 0)
        if best is None or key > (
            rollouts.names["stage"][best],
            steps[best] or 0,
            rollouts.numbers["passed"][best] or 0,
        ):
            newest[v] = i
    for v in sorted(newest, key=lambda name: -counts[name]):
        shown = "all" if len(rollouts) == rollouts.total else "the shown"
        why = f"{counts[v]:,} of {shown} {len(rollouts):,} rollouts ({_percent(counts[v] / len(rollouts))})"
        picked.append((why, rollouts.row(newest[v])))
    return picked


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"
