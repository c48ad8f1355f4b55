"""Prompts, and what of a completion is the program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data_curation import Problem
from rlvr.config import PromptSection
from rlvr.rollouts.prompts import extract_program, render_prompt
from rlvr.training.loading import render_prompts

CHAT = PromptSection(style="chat")
PLAIN = PromptSection(style="plain")


def test_chat_completions_hold_the_program_in_a_block():
    assert extract_program("<think>```python\ndraft\n```</think>```python\nfinal\n```", CHAT) == "final\n"
    assert extract_program("```python\ntruncated", CHAT) == ""


@given(st.text(max_size=300))
def test_extraction_never_fails(text):
    assert isinstance(extract_program(text, CHAT), str)
    assert extract_program(text, PLAIN) == (text if text.strip() else "")


def test_messages_for_a_model_that_was_not_taught_to_chat_are_refused_before_training(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    problem = Problem(id="a", statement="Add.")
    with pytest.raises(ValueError, match=r"no chat template: prompt\.style=plain"):
        render_prompts([problem], CHAT, tokenizer, None)
    assert render_prompts([problem], PLAIN, tokenizer, None)


def test_braces_in_a_statement_are_left_alone():
    problem = Problem(id="a", statement="Print {x} and {statement}.")
    assert render_prompt(problem, PLAIN) == "Print {x} and {statement}.\n# program\n"


def test_chat_prompts_are_messages_with_starter_code():
    problem = Problem(id="a", statement="Add.", starter_code="def solve(a, b):")
    messages = render_prompt(problem, PromptSection(style="chat", system="Be brief."))
    assert [m["role"] for m in messages] == ["system", "user"]
    assert "def solve(a, b):" in messages[1]["content"] and "Add." in messages[1]["content"]
