"""HumanEval as published: `prompt`, `entry_point`, `canonical_solution`, and `test`, a function of asserts."""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from data_curation.schema import Problem, Solution, Test
from data_curation.sources.calls import condition_test
from data_curation.sources.decoding import Unreadable, text
from data_curation.sources.testcases import CALL_CHECKER, distinct

COLUMNS = frozenset({"task_id", "prompt", "entry_point", "canonical_solution", "test"})


def humaneval_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of one row: a call-based test for each plain assert of `check`, and `check` whole where it has more.

    What stands in the prompt before the function (imports, helper functions) becomes the preamble.
    """
    name, prompt = text(row, "entry_point"), text(row, "prompt")
    starter, preamble = split_prompt(prompt, name)
    task = str(row["task_id"])
    return Problem(
        id=f"humaneval/{task.rpartition('/')[2]}",
        title=task,
        statement=_docstring(starter, name) or prompt,
        starter_code=starter,
        preamble=preamble,
        tests=check_tests(text(row, "test"), name),
        memory_mb=512,
        checker=CALL_CHECKER,
        solutions=[Solution(code=f"{starter.rstrip()}\n{text(row, 'canonical_solution')}", note="reference")],
        family=f"humaneval-{task.rpartition('/')[2]}",
        tags=["humaneval"],
        source="humaneval",
        license="MIT",
        url="https://github.com/openai/human-eval",
    )


def split_prompt(prompt: str, name: str) -> tuple[str, str]:
    """(the function with its docstring, everything before it) of a prompt that ends with the function's header."""
    match = re.search(rf"^def {re.escape(name)}\b", prompt, re.MULTILINE)
    if match is None:
        raise Unreadable(f"`prompt` does not define {name}")
    before = prompt[: match.start()].strip("\n")
    return prompt[match.start() :], before + "\n" if before.strip() else ""


def check_tests(code: str, name: str, *, allowed: Sequence[str] = (), called: bool = True) -> list[Test]:
    """The tests of a `check(candidate)` function that is called with `name`, an expression.

    An assert directly in its body becomes a call whose value is compared outside the box. If the body has more than
    asserts that hold only literals (loops, local names), the whole function is a test too, and decides in the box.
    With `called` false the asserts name the functions of the program themselves.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Unreadable(f"`test` is no Python: {error}") from None
    check = next((n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
    if check is None or len(check.args.args) != 1:
        raise Unreadable("`test` does not define check(candidate)")
    candidate = check.args.args[0].arg
    tests, whole = [], False
    for statement in check.body:
        if isinstance(statement, ast.Assert) and not (called and _local_names(statement.test, {candidate, *allowed})):
            if not called or _calls(statement.test, candidate):
                tests.append(condition_test(_renamed(statement.test, candidate, name)))
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            whole = True
    if whole:
        tests.append(Test(call=f"[exec({code!r}, globals()), check({name}), True][2]", output="true"))
    if not tests:
        raise Unreadable("`test` has no assert about its candidate")
    return distinct(tests)


def _local_names(node: ast.AST, known: set[str]) -> set[str]:
    """Names a condition needs besides the candidate and Python's own, with the variables of its comprehensions out."""
    bound = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {argument.arg for n in ast.walk(node) if isinstance(n, ast.Lambda) for argument in n.args.args}
    used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return used - bound - known - set(dir(builtins))


def _calls(node: ast.AST, candidate: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == candidate for n in ast.walk(node))


def _renamed(node: ast.expr, candidate: str, name: str) -> ast.expr:
    target = ast.parse(name, mode="eval").body

    class Rename(ast.NodeTransformer):
        def visit_Name(self, found: ast.Name) -> ast.AST:
            return target if found.id == candidate else found

    return Rename().visit(node)


def _docstring(starter: str, name: str) -> str:
    """The statement: the docstring of the function, which a prompt leaves open at its end."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(f"{starter.rstrip()}\n    pass\n").body
    except SyntaxError:
        return ""
    function = next((n for n in body if isinstance(n, ast.FunctionDef) and n.name == name), None)
    return (ast.get_docstring(function) or "") if function else ""
