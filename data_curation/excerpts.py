"""Texts of dropped problems for the report: looked up in what the stage before has stored, with differences marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from markupsafe import Markup, escape

from data_curation.steps import PROBLEMS

SHOWN_CHARACTERS = 1500
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_FIELDS = ("id", "title", "statement", "source")


def texts_of(folder: Path, ids: Collection[str]) -> dict[str, dict[str, str]]:
    """id -> id, title, statement and source of problems in a stage's output; ids that are not there are left out."""
    path = folder / PROBLEMS
    found: dict[str, dict[str, str]] = {}
    if not ids or not path.is_file():
        return found
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=512, columns=list(_FIELDS)):
            for row in batch.to_pylist():
                if row["id"] in ids:
                    found[row["id"]] = {name: row[name] or "" for name in _FIELDS}
    return found


def excerpt(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """The beginning of a text, cut at a line end where one is near, with how much is left out."""
    if len(text) <= most:
        return text
    cut = text.rfind("\n", most - 200, most)
    cut = most if cut < 0 else cut
    return f"{text[:cut].rstrip()}\n[... {len(text) - cut:,} more characters]"


def side_by_side(ours: str, theirs: str) -> tuple[Markup, Markup]:
    """Both texts as HTML, with the words that only one of them has marked; both begin near the first difference."""
    ours, theirs = _from_first_difference(ours, theirs)
    a, b = _WORDS.findall(excerpt(ours)), _WORDS.findall(excerpt(theirs))
    left, right = Markup(""), Markup("")
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        left += _marked("".join(a[i1:i2]), kind != "equal")
        right += _marked("".join(b[j1:j2]), kind != "equal")
    return left, right


def _marked(text: str, different: bool) -> Markup:
    return Markup("<mark>{}</mark>").format(text) if different and text.strip() else escape(text)


def _from_first_difference(ours: str, theirs: str) -> tuple[str, str]:
    same = 0
    while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
        same += 1
    start = ours.rfind("\n", 0, max(0, same - 300)) + 1 if same > SHOWN_CHARACTERS // 2 else 0
    if not start:
        return ours, theirs
    return (
        f"[... the same {start:,} characters]\n{ours[start:]}",
        f"[... the same {start:,} characters]\n{theirs[start:]}",
    )


def duplicate_pairs(
    dropped: Sequence[dict[str, Any]], texts: dict[str, dict[str, str]], most: int
) -> list[dict[str, Any]]:
    """Up to `most` (dropped, kept) pairs with texts: the least alike first."""
    pairs = []
    for row in dropped:
        copy, kept = texts.get(row["id"]), texts.get(row["kept_instead"])
        if row["kept_instead"] and copy and kept:
            alike = difflib.SequenceMatcher(
                None, copy["statement"].split()[:400], kept["statement"].split()[:400], autojunk=False
            ).ratio()
            pairs.append((alike, row, copy, kept))
        if len(pairs) >= 20 * most:
            break
    chosen = []
    for alike, row, copy, kept in sorted(pairs, key=lambda pair: (pair[0], pair[1]["id"]))[:most]:
        left, right = side_by_side(copy["statement"], kept["statement"])
        chosen.append({**row, "alike": alike, "removed": copy, "kept": kept, "left": left, "right": right})
    return chosen
