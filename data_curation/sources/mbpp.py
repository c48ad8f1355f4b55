"""MBPP as published: `text`, `code`, `test_list` of assert statements, `test_setup_code`, `challenge_test_list`."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from typing import Any

from data_curation.schema import Problem, Solution, Test
from data_curation.sources.calls import assert_test
from data_curation.sources.decoding import Unreadable, optional
from data_curation.sources.decoding import text as text_column
from data_curation.sources.testcases import CALL_CHECKER

COLUMNS = frozenset({"text", "code", "test_list"})


def mbpp_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of one MBPP row: a call-based test for each assert; Unreadable if the row is not usable."""
    asserts = [*(row["test_list"] or []), *(row.get("challenge_test_list") or [])]
    if not asserts:
        raise Unreadable("no tests: `test_list` is empty")
    setup = optional(row.get("test_setup_code")).strip()
    code = str(row["code"])
    task = row.get("task_id", number)
    try:
        tests = [assert_test(text, setup) for text in dict.fromkeys(text.strip() for text in asserts)]
    except (SyntaxError, AttributeError, ValueError) as error:
        raise Unreadable(f"a test is not an assert statement: {error}") from None
    return Problem(
        id=f"mbpp-{task}",
        title=f"MBPP {task}",
        statement=text_column(row, "text"),
        starter_code=_starter(code, tests),
        checker=CALL_CHECKER,
        tests=tests,
        solutions=[Solution(code=code, note="reference")],
        family=f"mbpp-{task}",
        tags=["mbpp", *_split_tag(task)],
        source="mbpp",
        license="CC-BY-4.0",
        url="https://github.com/google-research/google-research/tree/master/mbpp",
    )


def _starter(code: str, tests: list[Test]) -> str:
    """The header of the function that the first test calls, so that a solver knows the name; "" if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            functions = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    except (SyntaxError, ValueError):
        return ""
    called = [
        node.func.id
        for test in tests[:1]
        for node in ast.walk(ast.parse(test.call or ""))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    for function in functions:
        if function.name in called:
            return f"def {function.name}({ast.unparse(function.args)}):\n"
    return ""


def _split_tag(task: Any) -> list[str]:
    """The published split by task number: 1-10 prompt, 11-510 test, 511-600 validation, from 601 train."""
    if not isinstance(task, int):
        return []
    return ["split:heldout" if 11 <= task <= 510 else "split:train"]
