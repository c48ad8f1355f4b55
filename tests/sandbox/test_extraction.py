"""One rule finds the program in a completion: docs/sandbox.md states it, these tests hold it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandbox
from sandbox import TestCase, Verdict, languages
from sandbox.extraction import extract_code

BLOCK = "```python\nprint(1)\n```"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        (BLOCK, "print(1)\n"),
        (f"First:\n```py\na\n```\nbetter:\n{BLOCK}\ndone", "print(1)\n"),
        ("```Python3 title=x\na\n```", "a\n"),
        ("```{.python}\na\n```", "a\n"),
        ("```\nunmarked\n```", "unmarked\n"),
        ("```cpp\nint x;\n```\n```\nplain\n```", "plain\n"),
        (f"{BLOCK}\n```text\noutput\n```", "print(1)\n"),
        ("```cpp\nint x;\n```", "int x;\n"),
        ("~~~python\ntilde\n~~~", "tilde\n"),
        ("~~~python\na = '''\n```\n'''\n~~~", "a = '''\n```\n'''\n"),
        ("````python\na = '''\n```\n'''\n````", "a = '''\n```\n'''\n"),
        ("```python\na\n`````", "a\n"),
        ("1. do\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("```python\r\ncrlf\r\n```\r\n", "crlf\n"),
        ("```python\na\n    ```\nb\n```", "a\n    ```\nb\n"),
        # nothing, or nothing whole
        ("", ""), ("print(1)", ""), ("the answer is `print(1)`", ""), ("```python\ntruncated", ""),
        ("```python\n\n```", ""), ("```python print(1)```", ""), ("``` `python`\na", ""),
        (f"{BLOCK}\n```python\n \n```", ""),
        (f"{BLOCK}\n```python\nsecond, truncated", "print(1)\n"),
        # thinking
        ("<think>```python\ndraft\n```</think>```python\nfinal\n```", "final\n"),
        ("<think>\n```python\ndraft\n```\n</think>\nI give up.", ""),
        ("```python\ndraft\n```\n</think>\nI give up.", ""),  # the prompt had opened the thought
        ("<think>\n```python\nnever finished\n```", ""),
        (f"{BLOCK}\n<think>\n```python\nsecond thoughts\n```", "print(1)\n"),
        ("<think>a</think>```python\nx\n```\n<think>b</think>\n```python\ny\n```", "y\n"),
        # characters that are the language's business
        ("```python\nprint('\0')\n```", "print('\0')\n"),
        ("```python\n# \u202e\u2066\n\ud800\x0c\n```", "# \u202e\u2066\n\ud800\x0c\n"),
        ("```python\na\u2028b\x0bc\n```", "a\u2028b\x0bc\n"),
    ],
)  # fmt: skip
def test_the_program_in_a_completion(completion: str, program: str) -> None:
    assert extract_code(completion) == program


@pytest.mark.parametrize("language", languages.names())
def test_every_spelling_of_a_language_marks_it(language: str) -> None:
    for spelling in languages.spellings(language):
        assert extract_code(f"```{spelling.upper()}\nright\n```\n```other\nwrong\n```", language) == "right\n"


_text = st.text(max_size=200)
_line = st.text(alphabet=st.characters(exclude_characters="\n\r"), max_size=40)
_pieces = st.lists(
    st.sampled_from(["```", "```python", "~~~", "````", "<think>", "</think>", "\n", "a\n", " ", "\r\n", "\0", "`"]),
    max_size=40,
).map("".join)


@given(_text | _pieces)
def test_extraction_never_fails_and_invents_nothing(completion: str) -> None:
    program = extract_code(completion)
    assert program == "" or program.strip()
    rest = completion.replace("\r\n", "\n")
    for line in program.splitlines():
        assert line.strip("\r") in rest


@given(st.lists(_line, min_size=1, max_size=8), _text, _text)
def test_any_program_survives_a_fence_longer_than_its_own(lines: list[str], before: str, after: str) -> None:
    body = "".join(f"{line}\n" for line in lines)
    for thinking in ("<think>", "</think>"):
        body, before, after = (text.replace(thinking, "") for text in (body, before, after))
    fence = "`" * 50
    before, after = (text.replace("`", "").replace("~", "") for text in (before, after))
    expected = body if body.strip() else ""
    assert extract_code(f"{before}\n{fence}python\n{body}{fence}\n{after}") == expected


@given(_pieces)
def test_what_was_thought_is_never_the_program(thought: str) -> None:
    assert extract_code(f"<think>{thought}</think> no answer") == ""
    assert extract_code(f"{thought}</think>\n{BLOCK}") == "print(1)\n"


@pytest.mark.parametrize("piece", ["```a\n", "~~~\n```\n", "<think>", "```python\nx\n```\n", "`", "````\n```\n"])
def test_ten_megabytes_are_read_in_one_pass(piece: str) -> None:
    extract_code(piece * (10_000_000 // len(piece)))  # quadratic time would not end


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("no code", Verdict.NO_CODE), ("```python\nprint('\0')\n```", Verdict.CE),
        ("```python\nprint(1) # \u202e\u2066 )1+1(tnirp\n```", Verdict.AC),
        ("```python\nx\u202e = 1\nprint(1)\n```", Verdict.CE),
        ("```python\n\x0cprint(1)\n```", Verdict.AC), ("```python\nprint('\ud800')\n```", Verdict.CE),
        ("```python\n# -*- coding: utf-7 -*-\n+AHAAcgBpAG4AdAAoADEAKQ-\n```", Verdict.AC),
        ("```python\n# -*- coding: klingon -*-\nprint(1)\n```", Verdict.CE),
    ],
)  # fmt: skip
def test_odd_characters_get_a_verdict(judge: sandbox.Judge, completion: str, verdict: Verdict) -> None:
    found = judge.judge(extract_code(completion), [TestCase("", "1")])
    assert found.verdict is verdict, found
