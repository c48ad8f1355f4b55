"""Call-based tests: from argument lists, keyword text and assert statements to what the judge evaluates in the box."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from data_curation.schema import Test
from data_curation.sources.decoding import Unreadable, long_integers

# What solutions to LeetCode-style problems may use without importing it; `builtins` last, so that math's `pow` and
# operator's `abs` do not hide Python's.
PREAMBLE = """\
from typing import *
from collections import *
from functools import *
from itertools import *
from heapq import *
from bisect import *
from string import *
from operator import *
from math import *
from copy import *
from random import *
from re import *
from builtins import *
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys
inf = float("inf")
"""

# `== True` holds for 1 as well. Only a plain int is turned, so that no class of the program speaks for itself.
_TRUTH = "[v == 1 if type(v) is int and v in (0, 1) else v for v in [{}]][0]"
_LONG = 4000  # digits from which JSON text could not be read back in the box
_INTEGER_KEY = re.compile(r"-?[0-9]{1,18}")


def target(name: str, starter_code: str = "") -> str:
    """The expression for what is to be called: a method of `Solution` or a function, whichever the program defines.

    Published problems of one set use both. A dotted name such as "Solution().f" is taken as it is.
    """
    if "." in name:
        _parsed(name)
        return name
    if not name.isidentifier():
        raise Unreadable(f"{name[:60]!r} is no name of a function")
    return f"(Solution().{name} if 'Solution' in globals() else {name})"


def call_test(function: str, arguments: Sequence[Any], expected: Any, *, sample: bool = False) -> Test:
    """The test that calls `function` with the arguments. They go in as JSON, or in the call where JSON cannot."""
    output = _json(encoded(expected))
    if all(map(_is_plain, arguments)):
        return Test(input=_json(list(arguments)), call=f"{function}(*args)", output=output, sample=sample)
    written = ", ".join(map(source, arguments))
    return Test(call=f"{function}({written})", output=output, sample=sample)


def keyword_arguments(text: str) -> dict[str, Any]:
    """The arguments of text such as 'nums = [3, 3], target = 6', in order. Unreadable for anything but literals."""
    call = _parsed(f"f({text})")
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise Unreadable(f"{text[:60]!r} is not of the form `a = 1, b = [2]`")
    return {str(keyword.arg): value_of(keyword.value) for keyword in call.keywords}


def value_of(node: ast.AST | str) -> Any:
    """The value of a literal, given as text or parsed; JSON's true, false and null are literals here too."""
    tree = _parsed(node) if isinstance(node, str) else node
    if isinstance(tree, ast.Name) and tree.id in _WORDS:
        return _WORDS[tree.id]
    try:
        with long_integers():
            return ast.literal_eval(_JsonWords().visit(tree))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        shown = node if isinstance(node, str) else ast.unparse(node)
        raise Unreadable(f"{shown[:60]!r} is no literal") from None


_WORDS = {"true": True, "false": False, "null": None, "inf": math.inf, "Infinity": math.inf, "nan": math.nan}


class _JsonWords(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in ("true", "false", "null"):
            return ast.copy_location(ast.Constant(_WORDS[node.id]), node)
        return node


def _parsed(text: str) -> ast.expr:
    try:
        with long_integers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Unreadable(f"{text[:60]!r} is no Python expression: {error}") from None


def in_signature_order(arguments: Mapping[str, Any], starter_code: str, function: str) -> list[Any] | None:
    """The arguments in the order of the function's parameters; None where names and parameters do not match.

    Called by position, a program may name its parameters as it likes.
    """
    names = parameters(starter_code, function)
    if names is None or set(names) != set(arguments):
        return None
    return [arguments[name] for name in names]


def parameters(code: str, function: str) -> list[str] | None:
    """The parameter names of a function or method in code, perhaps only its header; None if it is not there."""
    name = function.rpartition(".")[2]
    match = re.search(rf"def\s+{re.escape(name)}\s*\((.*?)\)\s*(?:->[^:\n]*(?:\[.*?\])?)?\s*:", code, re.DOTALL)
    if match is None:
        return None
    try:
        header = ast.parse(f"def f({match[1]}): pass").body[0]
    except SyntaxError:
        return None
    assert isinstance(header, ast.FunctionDef)
    found = [argument.arg for argument in (*header.args.posonlyargs, *header.args.args)]
    return found[1:] if found[:1] == ["self"] else found


def header(code: str, function: str) -> str:
    """The header lines of a function, or of a method with its class, that tell a solver the name; "" if not found."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return ""
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return f"def {function}({ast.unparse(node.args)}):\n"
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == function:
                    return f"class Solution:\n    def {function}({ast.unparse(method.args)}):\n"
    return ""


def unwrapped(outputs: Sequence[Any]) -> list[Any]:
    """The expected values of tests that hold them in lists of one: unwrapped if every one of them is such a list.

    APPS and TACO wrap the value of a call in a list, some of their rows do not, and no column says which.
    """
    if outputs and all(isinstance(output, list) and len(output) == 1 for output in outputs):
        return [output[0] for output in outputs]
    return list(outputs)


def integer_keys(value: Any) -> Any:
    """The value with text keys that are integers as integers: JSON has no other way to write such a dict."""
    if isinstance(value, dict):
        if value and all(isinstance(key, str) and _INTEGER_KEY.fullmatch(key) for key in value):
            return {int(key): integer_keys(item) for key, item in value.items()}
        return {key: integer_keys(item) for key, item in value.items()}
    return [integer_keys(item) for item in value] if isinstance(value, list) else value


def assert_test(text: str, setup: str = "") -> Test:
    """The call-based test of one assert: `f(x) == literal` gives call and value, any other condition must be true.

    `setup` is executed in the program's namespace before the call, after the program has defined its names.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # published asserts hold odd escapes; they are valid all the same
        body = ast.parse(text).body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise ValueError(f"{text[:60]!r}")
    return condition_test(body[0].test, text, setup).model_copy(update={"shown": text})


def condition_test(condition: ast.expr, text: str = "", setup: str = "") -> Test:
    """The test of an assert's condition; `text` is the source it was parsed from, kept where possible."""
    # an assert asks for truth, not for the value True
    call, expected = f"bool({_unparsed(text, condition)})", "true"
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
        try:
            value = ast.literal_eval(condition.comparators[0])
            expected = json.dumps(encoded(value), allow_nan=False)
            call = _unparsed(text, condition.left)
            if isinstance(value, bool):
                call = _TRUTH.format(call)
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


def source(value: Any) -> str:
    """Python source of plain data; long integers in base 16, which Python reads at any length."""
    if isinstance(value, bool) or value is None or isinstance(value, str | bytes):
        return repr(value)
    if isinstance(value, int):
        return hex(value) if abs(value) >= 10**_LONG else repr(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"float('{value}')"
    if isinstance(value, list):
        return f"[{', '.join(map(source, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(source, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(map(source, sorted(value, key=repr)))}}}" if value else "set()"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{source(key)}: {source(item)}' for key, item in value.items())}}}"
    raise Unreadable(f"a {type(value).__name__} cannot be an argument")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 10**_LONG
    return value is None or isinstance(value, bool | float | str)


def _json(value: Any) -> str:
    try:
        with long_integers():
            return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unreadable(f"a value of a test has no JSON form: {error}") from None


def _unparsed(text: str, node: ast.expr) -> str:
    found = ast.get_source_segment(text, node) if text else None
    return ast.unparse(node) if found is None or "\n" in found else found
