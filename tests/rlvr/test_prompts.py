"""Prompts and the one rule by which a program is found in a completion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_curation import Problem
from rlvr.config import PromptSection
from rlvr.rollouts.prompts import extract_program, render_prompt

CHAT = PromptSection(style="chat")
PLAIN = PromptSection(style="plain")


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("text\n```py\na\n```\nthen\n```python\nb\n```\nbye", "b\n"),
        ("```\nunmarked\n```", "unmarked\n"),
        ("```cpp\nint x;\n```\n```\nplain\n```", "plain\n"),
        ("```python\nright\n```\n```text\noutput\n```", "right\n"),
        ("<think>```python\ndraft\n```</think>```python\nfinal\n```", "final\n"),
        ("<think>```python\nnever finished thinking\n```", ""),
        ("```python\ntruncated", ""),
        ("no code at all", ""),
        ("", ""),
        ("```python\n\n```", ""),
        ("~~~python\ntilde\n~~~", "tilde\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("```python\r\ncrlf\r\n```\r\n", "crlf\n"),
        ("```python\nprint('\0')\n```", "print('\0')\n"),
    ],
)
def test_the_last_complete_block_in_the_language_is_the_program(completion, program):
    assert extract_program(completion, CHAT) == program


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200).filter(
        lambda s: "`" not in s and "~" not in s
    )
)
def test_any_program_survives_being_fenced(body):
    body = body.replace("\r", "").replace("<think>", "")
    if body.strip():
        assert extract_program(f"Here:\n```python\n{body}\n```\n", CHAT) == f"{body}\n"


@given(st.text(max_size=300))
def test_extraction_never_fails(text):
    assert isinstance(extract_program(text, CHAT), str)
    assert extract_program(text, PLAIN) == (text if text.strip() else "")


def test_braces_in_a_statement_are_left_alone():
    problem = Problem(id="a", statement="Print {x} and {statement}.")
    assert render_prompt(problem, PLAIN) == "Print {x} and {statement}.\n# program\n"


def test_chat_prompts_are_messages_with_starter_code():
    problem = Problem(id="a", statement="Add.", starter_code="def solve(a, b):")
    messages = render_prompt(problem, PromptSection(style="chat", system="Be brief."))
    assert [m["role"] for m in messages] == ["system", "user"]
    assert "def solve(a, b):" in messages[1]["content"] and "Add." in messages[1]["content"]
