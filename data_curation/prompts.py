"""The words in which a problem is put to a model: one template for data sets and trainers alike."""

from __future__ import annotations

import re

from data_curation.schema import Problem

CHAT_TEMPLATE = (
    "{statement}\n\n{starter_code}Write a correct and efficient {language} program for this problem. "
    "Put the whole program into one fenced code block."
)
SHOWN_TESTS = 3  # of {asserts}: as many as MBPP's own prompt shows
_FIELDS = re.compile(r"\{(statement|starter_code|language|preamble|asserts)\}")


def filled(template: str, problem: Problem, language: str, *, starter: str | None = None) -> str:
    """The template with the problem's texts in the places of its fields; braces in the texts stay as they are.

    {preamble} is the code that is placed before the program, with two blank lines after it; {asserts} the first three
    tests' assert statements as their source writes them, for suites whose published prompt shows them.
    """
    values = {
        "statement": problem.statement,
        "starter_code": problem.starter_code if starter is None else starter,
        "language": language,
        "preamble": f"{problem.preamble.rstrip()}\n\n\n" if problem.preamble.strip() else "",
        "asserts": "\n".join(test.shown for test in problem.tests[:SHOWN_TESTS] if test.shown),
    }
    return _FIELDS.sub(lambda match: values[match[1]], template)


def chat_prompt(
    problem: Problem, template: str | None = None, system: str = "", language: str = "python"
) -> list[dict[str, str]]:
    """The problem as chat messages. Without a template of one's own, starter code stands in a block with a lead."""
    starter = None
    if template is None:
        code = problem.starter_code.rstrip("\n")
        starter = f"Start from this code:\n```{language}\n{code}\n```\n\n" if code.strip() else ""
    content = filled(template or CHAT_TEMPLATE, problem, language, starter=starter)
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": content}]
