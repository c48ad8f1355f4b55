"""The one rule by which a program is found in a model's completion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox import languages

_OPENING = re.compile(r"( {0,3})(`{3,}|~{3,})[ \t]*(.*)")
_THOUGHT_ENDS = "</think>"
_THOUGHT_BEGINS = "<think>"


@dataclass(frozen=True, slots=True)
class _Block:
    mark: str  # first word behind the opening fence, in lower case
    body: str


def extract_code(completion: str, language: str = "python") -> str:
    """The program in `completion`; "" where there is none, which the judge calls NO_CODE.

    1. Thinking is not the answer: everything up to the last `</think>` is left out, and everything from a `<think>`
       that is never closed.
    2. Fenced blocks are read as CommonMark has them: backticks or tildes, three or more; closed by as many of the same
       at least, so longer fences may hold shorter ones. A block that is never closed (a truncated completion) is none.
    3. Of the blocks marked with the language, by any of its names, the last is the program; else the last one without
       a mark; else the last. Blocks are not joined. Where that one is blank, or there is none, there is no program.

    The text of the block is taken as it is, but for carriage returns at line ends: control characters, NUL and bidi
    marks are for the language to accept or refuse.
    """
    blocks = list(_blocks(_answer(completion)))
    names = languages.spellings(language)
    for wanted in (names, frozenset([""])):
        marked = [block for block in blocks if block.mark in wanted]
        if marked:
            return marked[-1].body if marked[-1].body.strip() else ""
    return blocks[-1].body if blocks and blocks[-1].body.strip() else ""


def _answer(completion: str) -> str:
    """What follows the thinking."""
    text = (
        completion[completion.rfind(_THOUGHT_ENDS) + len(_THOUGHT_ENDS) :]
        if _THOUGHT_ENDS in completion
        else completion
    )
    return text.partition(_THOUGHT_BEGINS)[0]


def _blocks(text: str) -> Iterator[_Block]:
    """Complete fenced blocks, in one pass: an opening fence without end is not looked at twice."""
    lines = iter(text.split("\n"))
    for line in lines:
        opening = _OPENING.fullmatch(line.rstrip())
        if opening is None or ("`" in opening[3] and opening[2][0] == "`"):
            continue
        indent, fence, info = opening.groups()
        body: list[str] = []
        for inner in lines:
            if _closes(inner, fence):
                words = info.lower().split()
                yield _Block(words[0].strip("{}.") if words else "", "".join(body))
                break
            body.append(f"{_without_indent(inner.removesuffix(chr(13)), len(indent))}\n")


def _closes(line: str, fence: str) -> bool:
    stripped = line.rstrip()
    run = stripped.lstrip(" ")
    return len(run) >= len(fence) and len(stripped) - len(run) <= 3 and not run.strip(fence[0])


def _without_indent(line: str, width: int) -> str:
    """The line without the spaces by which the opening fence was indented."""
    spaces = len(line) - len(line.lstrip(" "))
    return line[min(width, spaces) :] if width else line
