"""MBPP as published: `text`, `code`, `test_list` of assert statements, `test_setup_code`, `challenge_test_list`."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_curation.schema import Problem, Solution, Test
from data_curation.sources.rows import RejectedRows, RowError, convert, json_rows

COLUMNS = frozenset({"text", "code", "test_list"})


def read_mbpp(path: Path, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of an MBPP .jsonl or .jsonl.gz file, read as a stream."""
    yield from convert(json_rows(path), lambda value, row: mbpp_problem(value, row, path), path, rejected)


def mbpp_problem(value: Any, row: int | None, file: str | Path) -> Problem:
    """The problem of one MBPP row: a call-based test for each assert; RowError if the row is not usable."""
    if not isinstance(value, dict):
        raise RowError(file, row, f"expected an object, got {type(value).__name__}")
    missing = sorted(COLUMNS - value.keys())
    if missing:
        raise RowError(file, row, f"`{missing[0]}` is missing; MBPP rows have {', '.join(sorted(COLUMNS))}")
    asserts = [*(value["test_list"] or []), *(value.get("challenge_test_list") or [])]
    if not asserts:
        raise RowError(file, row, "no tests: `test_list` is empty")
    setup = (value.get("test_setup_code") or "").replace("\r\n", "\n").strip()
    code = str(value["code"])
    task = value.get("task_id", row)
    try:
        tests = [assert_test(text, setup) for text in dict.fromkeys(text.strip() for text in asserts)]
    except (SyntaxError, AttributeError, ValueError) as error:
        raise RowError(file, row, f"a test is not an assert statement: {error}") from None
    return Problem(
        id=f"mbpp-{task}",
        title=f"MBPP {task}",
        statement=str(value["text"]),
        starter_code=_starter(code, tests),
        checker="floats:1e-9",  # an assert takes 5.0 for 5, as Python does
        tests=tests,
        solutions=[Solution(code=code, note="reference")],
        family=f"mbpp-{task}",
        tags=["mbpp", *_split_tag(task)],
        source="mbpp",
        license="CC-BY-4.0",
        url="https://github.com/google-research/google-research/tree/master/mbpp",
    )


def assert_test(text: str, setup: str = "") -> Test:
    """The call-based test of one assert: `f(x) == literal` gives call and value, any other condition must be true.

    `setup` is executed in the program's namespace before the call, after the program has defined its names.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # published asserts hold odd escapes; they are valid all the same
        body = ast.parse(text).body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise ValueError(f"{text[:60]!r}")
    condition = body[0].test
    # an assert asks for truth, not for the value True
    call, expected = f"bool({_unparsed(text, condition)})", "true"
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
        try:
            expected = json.dumps(encoded(ast.literal_eval(condition.comparators[0])), allow_nan=False)
            call = _unparsed(text, condition.left)
        except (ValueError, TypeError, MemoryError, RecursionError):
            pass  # the right side is no literal: the whole condition stays the call
    if setup:
        call = f"[exec({setup!r}, globals()), {call}][1]"
    return Test(call=call, output=expected)


def encoded(value: Any) -> Any:
    """The JSON form of a Python literal: tuples as lists, sets and non-string keys tagged; TypeError for others."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"__set__": [encoded(item) for item in sorted(value, key=repr)]}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: encoded(item) for key, item in value.items()}
        return {"__dict__": [[encoded(key), encoded(item)] for key, item in value.items()]}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _unparsed(text: str, node: ast.expr) -> str:
    source = ast.get_source_segment(text, node)
    return ast.unparse(node) if source is None or "\n" in source else source


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
