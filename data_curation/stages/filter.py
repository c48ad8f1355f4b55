"""Cheap reasons to drop a problem: nothing to judge with, nothing to read, nothing that could run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import chain

from data_curation.config import FilterOptions
from data_curation.schema import Problem
from data_curation.stages.markup import IMAGE
from data_curation.stages.result import PART_CHARACTERS, PART_PROBLEMS, Dropped, Notes, Stage, Workplace
from data_curation.stages.second_look import MANY_ANSWERS, has_many_answers
from data_curation.stored import batches
from sandbox import checkers, languages

FAULT = "fault:"  # tag prefix of statements that are marked instead of dropped
_URL = re.compile(r"https?://\S+")
_PICTURE = re.compile(r"\b(?:image|picture|figure|diagram) (?:below|above|on the (?:left|right))\b", re.IGNORECASE)
_INTERACTIVE = re.compile(
    r"\b(?:this is an interactive|interactive problem|flush (?:the )?(?:output|stdout|standard output))\b",
    re.IGNORECASE,
)
_ELLIPSIS = re.compile(r"[A-Za-z]{2,}\s?(?:\u2026|\.\.\.)$")
_CONNECTING = frozenset("the of and to a an with for is are that by from or in on as at if such".split())  # noqa: SIM905
_ENGLISH = frozenset(
    "the of and to a in is that it for on with as are be this by from or an at you each if all given not one can "  # noqa: SIM905
    "number return print find which there have has will input output integer integers string array line first "
    "function write".split()
)


@Stage
def filter_problems(
    problems: Sequence[Problem], options: FilterOptions, work: Workplace, notes: Notes
) -> Iterator[Problem]:
    """Drops problems by the rules of `fault` and `statement_faults`, marks those whose fault is only to be marked.

    Solutions in unknown languages are taken out and counted.
    """
    known = frozenset(languages.names())
    removed = 0
    marked: Counter[str] = Counter()
    looked = chain.from_iterable(
        work.map(partial(_looked_at, options, known), batches(problems, PART_PROBLEMS, PART_CHARACTERS))
    )
    for problem, found, marks in looked:
        if found is not None:
            notes.dropped.append(Dropped(problem.id, *found))
            continue
        marked.update(marks)
        solutions = [solution for solution in problem.solutions if solution.language in known]
        removed += len(problem.solutions) - len(solutions)
        tags = [*problem.tags, *(mark for mark in marks if mark not in problem.tags)]
        yield problem.model_copy(update={"solutions": solutions, "tags": tags})
    notes.figures = {"solutions in unknown languages removed": removed}
    notes.figures |= {f"marked {name}": count for name, count in sorted(marked.items())}


def _looked_at(
    options: FilterOptions, known: frozenset[str], problems: Sequence[Problem]
) -> list[tuple[Problem, tuple[str, str] | None, list[str]]]:
    """Each problem with the reason to drop it, if any, and its marks."""
    result = []
    for problem in problems:
        found = fault(problem, options, known)
        marks = []
        for name, reason in statement_faults(problem).items():
            if getattr(options, name) == "drop" and found is None:
                found = reason
            elif getattr(options, name) == "mark":
                marks.append(f"{FAULT}{name}")
        result.append((problem, found, marks))
    return result


def statement_faults(problem: Problem) -> dict[str, tuple[str, str]]:
    """The option that decides about each fault of the statement -> (reason, detail)."""
    faults = {}
    text = problem.statement
    if IMAGE in text or _PICTURE.search(text) or text.rstrip().endswith(":"):  # what is announced there is lost
        faults["images"] = ("picture missing", f"{text.count(IMAGE)} pictures were in the statement")
    if (ending := _broken_ending(text)) is not None:
        faults["truncated"] = ("statement breaks off", ending)
    if (foreign := _foreign(text)) is not None:
        faults["foreign"] = ("statement not in English", foreign)
    if not problem.interactor and (_INTERACTIVE.search(text) or "interactive" in problem.tags):
        faults["interactive"] = ("interactive without an interactor", "")
    if has_many_answers(problem):
        match = MANY_ANSWERS.search(text)
        said = f"it says {match[0]!r}" if match else "the source compares with a checker that is not at hand"
        said += f"; the checker is {problem.checker}"
        faults["many_answers"] = ("many answers, no checker", said)
    return faults


def _broken_ending(text: str) -> str | None:
    end = text.rstrip()
    if text.count("```") % 2:
        return "a code block is not closed"
    if _ELLIPSIS.search(end):
        return f"it ends in {end[-20:]!r}"
    last = end.rsplit(None, 1)[-1:] if end else []
    if last and (last[0].endswith((",", "(")) or last[0] in _CONNECTING):
        return f"it ends in {end[-20:]!r}"
    return None


def _foreign(text: str) -> str | None:
    letters = [character for character in text if character.isalpha()]
    other = sum(character > "\u024f" for character in letters)  # neither Latin nor Latin with accents
    if letters and other > 0.2 * len(letters):
        return f"{other} of {len(letters)} letters are not Latin"
    words = re.findall(r"[a-z\u00df-\u024f]+", text.casefold())
    common = sum(word in _ENGLISH for word in words)
    if len(words) >= 40 and common < 0.08 * len(words):
        return f"{common} of {len(words)} words are common in English"
    return None


def fault(problem: Problem, options: FilterOptions, known_languages: Collection[str]) -> tuple[str, str] | None:
    """(reason, detail) of the first rule the problem breaks, None if it breaks none."""
    words = len(problem.statement.split())
    count = len(problem.tests) + (len(problem.generator.arguments) if problem.generator else 0)
    if not problem.statement.strip():
        return "statement is empty", ""
    if words < options.minimum_statement_words:
        return "statement too short", f"{words} words, at least {options.minimum_statement_words} needed"
    if len(_URL.sub(" ", problem.statement).split()) < options.minimum_statement_words:
        return "statement is only a link", _URL.findall(problem.statement)[0]
    if options.licenses is not None and not problem.license.casefold().startswith(
        tuple(name.casefold() for name in options.licenses)
    ):
        return "licence not allowed", problem.license or "not stated"
    if count == 0:
        return "no tests", "neither tests nor a generator"
    if count < options.minimum_tests:
        return "too few tests", f"{count}, at least {options.minimum_tests} needed"
    if not set(problem.languages) & set(known_languages):
        return "unknown language", f"{', '.join(problem.languages)}; known: {', '.join(sorted(known_languages))}"
    if (unknown := _unknown_checker(problem.checker)) is not None:
        return "unknown checker", unknown
    if problem.interactor and (unknown := _unknown_interactor(problem.interactor)) is not None:
        return "unknown interactor", unknown
    if options.samples_in_statement and (missing := _sample_not_shown(problem)):
        return "statement is cut short", f"sample test {missing} is not in it"
    if options.require_solution and not any(s.verdict == "accepted" for s in problem.solutions):
        return "no accepted solution", ""
    return None


def _unknown_checker(spec: str) -> str | None:
    try:
        checkers.find(spec)
    except ValueError as error:
        return str(error)
    return None


def _unknown_interactor(spec: str) -> str | None:
    try:
        return None if checkers.user.parse(spec) is not None else spec[:60]
    except ValueError as error:
        return str(error)


def _sample_not_shown(problem: Problem) -> int | None:
    """Number (from 1) of the first sample test whose input the statement does not show; None if all are there."""
    text = " ".join(problem.statement.casefold().split())
    for number, test in enumerate(problem.tests, start=1):
        if test.sample and test.call is None and " ".join(test.input.casefold().split()) not in text:
            return number
    return None
