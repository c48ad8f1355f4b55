"""From a problem to a prompt, and from a completion to a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_curation import Problem
from data_curation.prompts import chat_prompt, filled
from sandbox.extraction import extract_code

if TYPE_CHECKING:
    from rlvr.config import PromptSection

PLAIN_TEMPLATE = "{statement}\n# program\n"


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


def chat_text(messages: Any, tokenizer: Any) -> str:
    """Returns the messages as the tokenizer's chat template writes them, up to where the answer begins. ValueError
    where it has none, as base models and models trained on plain prompts."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError("the model's tokenizer has no chat template: prompt.style=plain asks with the text alone")
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def extract_program(completion: str, section: PromptSection) -> str:
    """Returns the program in a completion, "" where there is none.

    `plain`: the completion itself. `chat`: the block that `sandbox.extraction` finds.
    """
    if section.style == "plain":
        return completion if completion.strip() else ""
    return extract_code(completion, section.language)
