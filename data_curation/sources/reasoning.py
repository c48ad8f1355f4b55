"""OpenCodeReasoning: questions with a worked answer and its program, for SFT; there are no tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_curation.schema import Problem, Solution
from data_curation.sources.decoding import Unreadable, optional, text, unfenced

COLUMNS = frozenset({"input", "output", "solution", "dataset", "split", "license"})


def reasoning_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The question with its program. Without tests it goes no further than an SFT corpus or a richer copy.

    Rows of split_1 have "-" for the question, which stands in another data set; they are refused with that place.
    """
    question = optional(row.get("input"))
    if not question:
        place = ", ".join(f"{key} {row.get(key)}" for key in ("dataset", "split", "index") if row.get(key) is not None)
        raise Unreadable(f'`input` is "-": the question is that of {place}; join it before reading')
    code, _ = unfenced(text(row, "solution", "output"))
    return Problem(
        id=f"opencodereasoning/{optional(row.get('id')) or number}",
        statement=question.strip(),
        solutions=[Solution(code=code, note="not tested")],
        difficulty=optional(row.get("difficulty")).casefold(),
        tags=[f"from:{optional(row.get('dataset'))}:{optional(row.get('split'))}", "no tests"],
        source=optional(row.get("source")) or "opencodereasoning",
        license=optional(row.get("license")),
    )


def demonstration(row: Mapping[str, Any]) -> tuple[str, str]:
    """(question, worked answer) of a row, for an SFT corpus. Unreadable where either is missing."""
    question = optional(row.get("input")).strip()
    if not question:
        raise Unreadable('`input` is "-": join the question before reading')
    return question, text(row, "output")
