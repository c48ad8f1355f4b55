"""From a problem to a prompt, and from a completion to a program."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from data_curation import Problem
from data_curation.prompts import chat_prompt, filled

if TYPE_CHECKING:
    from rlvr.config import PromptSection

PLAIN_TEMPLATE = "{statement}\n# program\n"

_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_FENCE = re.compile(
    r"^[ ]{0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)\n(?P<body>.*?)^[ ]{0,3}(?P=fence)[`~]*[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_ALIASES = {
    "python": {"python", "py", "python3", "py3"},
    "cpp": {"cpp", "c++", "cc", "cxx", "c++17", "c++20", "cpp17", "cpp20"},
}


def render_prompt(problem: Problem, section: PromptSection) -> str | list[dict[str, str]]:
    """Returns the prompt as text (`plain`) or as chat messages (`chat`)."""
    if section.style == "chat":
        return chat_prompt(problem, section.template, section.system or "", section.language)
    return filled(section.template or PLAIN_TEMPLATE, problem, section.language)


def completion_text(completion: Any) -> str:
    """Returns the text of a completion given as text or as chat messages."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)


def extract_program(completion: str, section: PromptSection) -> str:
    """Returns the program in a completion, "" where there is none.

    `plain`: the completion itself. `chat`: thinking between <think> tags is dropped; of the complete fenced blocks
    the last one marked with the language counts, else the last one without a mark, else the last one. A block that
    was never closed (a truncated completion) is no program.
    """
    if section.style == "plain":
        return completion if completion.strip() else ""
    text = _THOUGHT.sub("", completion.replace("\r\n", "\n"))
    blocks = [(match["info"].strip().lower(), match["body"]) for match in _FENCE.finditer(text)]
    names = _ALIASES.get(section.language, {section.language})
    for wanted in (names, {""}):
        marked = [body for info, body in blocks if (info.split() or [""])[0] in wanted]
        if marked:
            return marked[-1] if marked[-1].strip() else ""
    return blocks[-1][1] if blocks and blocks[-1][1].strip() else ""
