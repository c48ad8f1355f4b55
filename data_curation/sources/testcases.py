"""Test cases as published sets hold them, and the checker that a problem's tests ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_curation.schema import Solution, Test
from data_curation.sources.calls import (
    call_test,
    header,
    in_signature_order,
    integer_keys,
    keyword_arguments,
    target,
    unwrapped,
)
from data_curation.sources.decoding import Unreadable, decoded, literal, optional, strings, unfenced

CALL_CHECKER = "floats:1e-9"  # 5.0 for 5, as the asserts and comparisons of the published harnesses take it
_REAL = re.compile(r"[+-]?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?")
_ANY_CASE = re.compile(
    r"(?:any|either|arbitrary) (?:letter )?(?:case|register)|case[- ]insensitive|upper ?case or lower ?case"
    r"|in any (?:lower|upper)",
    re.IGNORECASE,
)
_LANGUAGES = {"": "python", "py": "python", "python3": "python", "c++": "cpp", "cplusplus": "cpp"}


def checker_for(tests: Sequence[Test], statement: str = "") -> str:
    """The checker for problems whose source names none: our choice, by the expected outputs.

    Call-based tests compare as Python does. Printed outputs compare token by token; where they hold decimal fractions,
    numbers may differ by 1e-6, and where all are yes or no and the statement lets the case free, the case is free.
    """
    if any(test.call is not None for test in tests):
        return CALL_CHECKER
    tokens = {token for test in tests for token in test.output.split()}
    if any(map(_REAL.fullmatch, tokens)):
        return "floats:1e-6"
    if tokens and {token.casefold() for token in tokens} <= {"yes", "no"} and _ANY_CASE.search(statement):
        return "yes_no"
    return "tokens"


def printed_text(value: Any) -> str:
    """Standard input or output given as text, or as a list of its lines."""
    if isinstance(value, list):
        return "".join(printed_text(line).removesuffix("\n") + "\n" for line in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unreadable(f"a test's input or output is a {type(value).__name__}; expected text or a list of lines")
    return str(value).replace("\r\n", "\n")


def stdin_test(given: Any, expected: Any, *, sample: bool = False) -> Test:
    """The test that feeds `given` to standard input and expects `expected` on standard output."""
    return Test(input=printed_text(given), output=printed_text(expected), sample=sample)


def paired_tests(value: Any, column: str, starter_code: str = "") -> list[Test]:
    """The tests of {"inputs": [...], "outputs": [...], "fn_name"?}, the layout of APPS and TACO.

    With a name, each input is an argument list and each output a value, mostly wrapped in a list of one.
    """
    if not isinstance(value, Mapping) or "inputs" not in value or "outputs" not in value:
        raise Unreadable(f"`{column}` has no `inputs` and `outputs`")
    inputs, outputs = value["inputs"] or [], value["outputs"] or []
    if len(inputs) != len(outputs):
        raise Unreadable(f"`{column}` has {len(inputs)} inputs and {len(outputs)} outputs")
    name = optional(value.get("fn_name"))
    if not name:
        return distinct(stdin_test(given, expected) for given, expected in zip(inputs, outputs, strict=True))
    arguments = [argument_list(given) for given in inputs]
    as_text = any(isinstance(output, str) for output in outputs)  # as LiveCodeBench writes values: never wrapped
    values = [value_in(output) for output in outputs] if as_text else unwrapped(outputs)
    return called_tests(name, arguments, values, starter_code)


def called_tests(
    name: str, arguments: Sequence[Any], outputs: Sequence[Any], starter_code: str, samples: int = 0
) -> list[Test]:
    """Call-based tests from argument lists (or dicts of named arguments) and expected values."""
    function = target(name, starter_code)
    tests = []
    for number, (given, expected) in enumerate(zip(arguments, outputs, strict=True)):
        if isinstance(given, dict):
            ordered = in_signature_order(given, starter_code, name)
            given = list(given.values()) if ordered is None else ordered
        tests.append(call_test(function, integer_keys(given), integer_keys(expected), sample=number < samples))
    return distinct(tests)


def argument_list(given: Any) -> list[Any] | dict[str, Any]:
    """The arguments of a call from a list, from JSON or a literal of one, or from text: a JSON value or `a = 1` a line.

    Named arguments come as a dict.
    """
    if isinstance(given, list | dict):
        return given
    if not isinstance(given, str):
        raise Unreadable(f"the arguments of a call are a {type(given).__name__}; expected a list")
    lines = [line for line in given.split("\n") if line.strip()]
    for read in (_json_lines, _named, _one_literal):
        try:
            return read(lines)
        except Unreadable:
            continue
    raise Unreadable(f"the arguments {given[:60]!r} are neither JSON nor literals, one a line, nor `a = 1, b = 2`")


def _json_lines(lines: list[str]) -> list[Any]:
    return [decoded(line, "input") for line in lines]


def _named(lines: list[str]) -> dict[str, Any]:
    return keyword_arguments(", ".join(line.strip().rstrip(",") for line in lines))


def _one_literal(lines: list[str]) -> list[Any]:
    if len(lines) > 1:
        return [literal(line, "input") for line in lines]
    value = literal("\n".join(lines), "input")
    return list(value) if isinstance(value, list | tuple) else [value]


def value_in(expected: Any) -> Any:
    """The expected value of a call: JSON or a Python literal in text as its value; other text stands for itself."""
    if not isinstance(expected, str):
        return expected
    try:
        return literal(expected, "output")
    except Unreadable:
        return expected


def distinct(tests: Iterable[Test]) -> list[Test]:
    """The tests without those whose input, white space at its ends aside, came before; the first one stays."""
    kept: dict[tuple[str, str | None], Test] = {}
    for test in tests:
        kept.setdefault((test.input.strip(), test.call), test)
    return list(kept.values())


def mark_samples(tests: Sequence[Test], samples: Iterable[str]) -> list[Test]:
    """The tests, with those whose input is among `samples` (white space aside) marked as shown in the statement."""
    shown = {" ".join(sample.split()) for sample in samples}
    return [
        test.model_copy(update={"sample": True}) if " ".join(test.input.split()) in shown else test for test in tests
    ]


def solutions_of(codes: Any, column: str, *, language: str = "python", verdict: str = "accepted") -> list[Solution]:
    """Programs from a list of texts, JSON of one, or one text; Markdown fences taken off, equal ones once."""
    found: dict[tuple[str, str], Solution] = {}
    for code in strings(codes, column):
        program, fence = unfenced(code)
        name = _LANGUAGES.get(fence, fence) if fence else language
        if program.strip():
            found.setdefault(
                (program, name),
                Solution(code=program, language=name, verdict=verdict),  # type: ignore[arg-type]
            )
    return list(found.values())


def starter_for(name: str, given: str, solutions: Sequence[Solution]) -> str:
    """The starter code of a call-based problem: the source's own, else the header in its first usable solution."""
    if given.strip() or not name:
        return given
    headers = (header(s.code, name) for s in solutions if s.verdict == "accepted" and s.language == "python")
    return next(filter(None, headers), f"def {name}(*args):\n")
