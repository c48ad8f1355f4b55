"""One form for the same text: Unicode NFC, line endings, trailing blanks, markup left over in statements, ids."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain

from data_curation.config import NormaliseOptions
from data_curation.schema import Problem
from data_curation.stages.markup import plain_text
from data_curation.stages.result import PART_CHARACTERS, PART_PROBLEMS, Notes, Stage, Workplace
from data_curation.stored import batches
from sandbox import languages

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_WIDE_SPACES = re.compile(r"[\u00a0\u2000-\u200a\u202f\u205f\u3000\t]")
# only entities that are certain to be markup in a contest statement; a full unescape would eat examples
_ENTITIES = {
    "&nbsp;": " ",
    "&lt;": "<",
    "&gt;": ">",
    "&le;": "<=",
    "&ge;": ">=",
    "&quot;": '"',
    "&#39;": "'",
    "&amp;": "&",
}


@Stage
def normalise(
    problems: Sequence[Problem], options: NormaliseOptions, work: Workplace, notes: Notes
) -> Iterator[Problem]:
    """Drops nothing; figures count the problems whose text changed and the ids that had to be made unique."""
    seen, changed, renamed = set[str](), 0, 0
    for clean, is_changed in chain.from_iterable(
        work.map(_normalised, batches(problems, PART_PROBLEMS, PART_CHARACTERS))
    ):
        changed += is_changed
        name, copy = clean.id, 1
        while name in seen:
            copy += 1
            name = f"{clean.id}~{copy}"
        seen.add(name)
        renamed += name != clean.id
        yield clean.model_copy(update={"id": name, "family": clean.family or name})
    notes.figures = {"text changed": changed, "id made unique": renamed}


def _normalised(problems: Sequence[Problem]) -> list[tuple[Problem, bool]]:
    """Each problem in normal form, and whether that is another."""
    return [(clean, clean != problem) for problem in problems for clean in [normalised(problem)]]


def normalised(problem: Problem) -> Problem:
    """The problem in normal form; applying it twice changes nothing more."""
    return problem.model_copy(
        update={
            "title": " ".join(clean_statement(problem.title).split()),
            "statement": clean_statement(problem.statement),
            "starter_code": unix_lines(problem.starter_code),
            "tests": [
                test.model_copy(update={"input": unix_lines(test.input), "output": unix_lines(test.output)})
                for test in problem.tests
            ],
            "solutions": [
                s.model_copy(update={"code": unix_lines(s.code), "language": language_name(s.language)})
                for s in problem.solutions
            ],
            "languages": [language_name(name) for name in problem.languages],
        }
    )


def language_name(name: str) -> str:
    """The sandbox's name of a language it knows under another ("c++", "Python3"); other names as they are."""
    try:
        return languages.find(name).name
    except ValueError:
        return name


def unix_lines(text: str) -> str:
    """The text with every line ending as a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def clean_statement(text: str) -> str:
    """The statement as plain text in NFC, without invisible characters, trailing blanks and runs of blank lines."""
    text = plain_text(unicodedata.normalize("NFC", unix_lines(text)))
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    text = _WIDE_SPACES.sub(" ", text.translate(_INVISIBLE))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    # leading blanks stay: an indented first line may be the start of an example
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")
