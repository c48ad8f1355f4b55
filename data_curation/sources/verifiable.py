"""Sets whose test cases name their kind: PrimeIntellect's and open-r1's verifiable problems, DeepCoder, Skywork."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data_curation.schema import Problem, Test
from data_curation.sources.calls import PREAMBLE, unwrapped
from data_curation.sources.decoding import Unreadable, decoded, literal, objects, optional, text
from data_curation.sources.humaneval import check_tests
from data_curation.sources.leetcode import assert_tests, completed_preamble, leetcode_checker
from data_curation.sources.testcases import (
    CALL_CHECKER,
    argument_list,
    called_tests,
    checker_for,
    distinct,
    paired_tests,
    solutions_of,
    starter_for,
    stdin_test,
    value_in,
)
from data_curation.sources.units import megabytes, seconds

COLUMNS = frozenset({"gold_standard_solution", "verification_info", "prompt"})
DEEPCODER_COLUMNS = frozenset({"problem", "tests"})
SKYWORK_COLUMNS = frozenset({"data_source", "prompt", "ability", "reward_model", "extra_info"})

_LANGUAGES = {"python3": "python", "py": "python", "c++": "cpp"}
# what these sets put around a statement; a prompt is made anew from the bare statement
_FRAMES = (
    re.compile(r"\ASolve the following coding problem using the programming language [\w+#]+:\s*\n", re.I),
    re.compile(r"\AYou will be given a question \(problem specification\)[^\n]*\n+", re.I),
    re.compile(r"\AYou are an expert Python programmer\.[^\n]*\n+", re.I),
    re.compile(
        r"\n+The input will be (?:given via |stdin)[^\n]*\s*\n+Now solve the problem and return the code\.\s*\Z"
    ),
    re.compile(r"\n+Now solve the problem and return the code\.\s*\Z"),
)


def bare_statement(prompt: str) -> str:
    """The statement without the sentences that these sets put before and after it."""
    for frame in _FRAMES:
        prompt = frame.sub("", prompt)
    return prompt.strip("\n")


def verifiable_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of a row whose `verification_info` is a struct, JSON, or a Python literal of one."""
    info = literal(row.get("verification_info"), "verification_info")
    if not isinstance(info, Mapping):
        raise Unreadable("`verification_info` is empty or no object")
    metadata = literal(row.get("metadata"), "metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    language = optional(info.get("language")).casefold() or "python"
    language = _LANGUAGES.get(language, language)
    solutions = solutions_of(row.get("gold_standard_solution"), "gold_standard_solution", language=language)
    cases = objects(info.get("test_cases"), "verification_info.test_cases")
    name = _function(cases)
    starter = starter_for(name, "", solutions)
    tests = case_tests(cases, "verification_info.test_cases", name, starter)
    statement = bare_statement(text(row, "prompt"))
    origin = optional(row.get("source"))
    return Problem(
        id=optional(row.get("problem_id")) or f"verifiable/{number}",
        statement=statement,
        starter_code=starter,
        preamble=PREAMBLE if name else "",
        tests=tests,
        cpu_s=seconds(metadata.get("time_limit"), "metadata.time_limit") or 2.0,
        memory_mb=megabytes(metadata.get("memory_limit_bytes"), "metadata.memory_limit_bytes", unit="bytes")
        or megabytes(metadata.get("memory_limit"), "metadata.memory_limit")
        or 256,
        checker=checker_for(tests, statement),
        languages=[language],
        solutions=solutions,
        difficulty=optional(metadata.get("difficulty")).casefold(),
        tags=[f"from:{origin}:{optional(row.get('in_source_id'))}"] if origin else [],
        source="verifiable-coding-problems",
        url=optional(metadata.get("problem_url")),
    )


def deepcoder_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of a DeepCoder row: `tests` is JSON of paired lists, of a list of cases, or of one case."""
    metadata = decoded(row.get("metadata"), "metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    solutions = solutions_of(row.get("solutions"), "solutions")
    found = decoded(row.get("tests"), "tests")
    paired = isinstance(found, Mapping) and "inputs" in found
    cases = [] if paired else objects(found, "tests")
    name = optional(found.get("fn_name")) if paired else optional(metadata.get("func_name")) or _function(cases)
    starter = starter_for(name, optional(row.get("starter_code")), solutions)
    tests = paired_tests(found, "tests", starter) if paired else case_tests(cases, "tests", name, starter)
    if not tests:
        raise Unreadable("no tests: `tests` is empty")
    statement = bare_statement(text(row, "problem"))
    return Problem(
        id=f"deepcoder/{number}",
        statement=statement,
        starter_code=starter,
        preamble=PREAMBLE if any(test.call for test in tests) else "",
        tests=tests,
        checker=checker_for(tests, statement),
        solutions=solutions,
        source="deepcoder",
        license="MIT",
    )


def skywork_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of a Skywork-OR1 code row, in verl's layout: paired tests, a check function, or assert statements."""
    model, extra = row.get("reward_model"), row.get("extra_info")
    truth = decoded(model.get("ground_truth") if isinstance(model, Mapping) else None, "reward_model.ground_truth")
    if not isinstance(truth, Mapping):
        raise Unreadable("`reward_model.ground_truth` is empty or no object")
    if "statement" in truth:  # exported by us with the whole problem
        return Problem.model_validate(truth)
    content = user_message(row)
    statement, checker, preamble = bare_statement(content), "", PREAMBLE
    if "inputs" in truth:
        tests = paired_tests(truth, "reward_model.ground_truth")
        name = optional(truth.get("fn_name"))
        preamble = PREAMBLE if name else ""
    elif "test_code" in truth:
        name = text(truth, "entry_point")
        tests = assert_tests(text(truth, "test_code"), name, _starter_in(statement))
        preamble = completed_preamble(optional(truth.get("import_prefix")) or PREAMBLE)
        checker = leetcode_checker(statement, tests)
    elif "assert_case" in truth:
        name = ""
        lines = "".join(f"    {line}\n" for case in truth["assert_case"] for line in str(case).split("\n"))
        tests = check_tests(f"def check(_):\n    True\n{lines}", "None", called=False)
        checker = CALL_CHECKER
    else:
        raise Unreadable("`reward_model.ground_truth` has neither inputs, test_code nor assert_case")
    if not tests:
        raise Unreadable("no tests: `reward_model.ground_truth` has no inputs")
    extra = extra if isinstance(extra, Mapping) else {}
    graded = extra.get("model_difficulty")
    return Problem(
        id=f"skywork/{extra.get('index', number)}",
        statement=statement,
        starter_code=_starter_in(statement) or (starter_for(name, "", []) if name.isidentifier() else ""),
        preamble=preamble,
        tests=tests,
        checker=checker or checker_for(tests, statement),
        tags=[
            f"from:{optional(row.get('data_source'))}",
            *(f"wrong of 16:{key}:{value}" for key, value in sorted((graded or {}).items()) if value is not None),
        ],
        source="skywork-or1",
    )


def user_message(row: Mapping[str, Any]) -> str:
    """What the user says in a chat prompt; Unreadable if nothing."""
    messages = objects(row.get("prompt"), "prompt")
    content = next((optional(message.get("content")) for message in messages if message.get("role") == "user"), "")
    if not content:
        raise Unreadable("`prompt` holds no message of the user")
    return content


def case_tests(cases: list[dict[str, Any]], column: str, name: str, starter: str) -> list[Test]:
    """The tests of cases that say their kind in `type` or `testtype`; Unreadable if there are none."""
    calls = [case for case in cases if _kind(case) == "call"]
    if not cases:
        raise Unreadable(f"no tests: `{column}` is empty")
    for case in cases:
        if "input" not in case or "output" not in case:
            raise Unreadable(f"`{column}`: a test needs `input` and `output`")
    if not calls:
        return distinct(stdin_test(case["input"], case["output"]) for case in cases)
    if len(calls) < len(cases):
        raise Unreadable(f"`{column}` mixes calls and standard input")
    if not name:
        raise Unreadable(f"`{column}`: calls without the name of a function")
    outputs = [value_in(case["output"]) for case in calls]
    # cases with a name of their own come from APPS and TACO, which wrap outputs; LiveCodeBench's do not
    wrapped = any(optional(case.get("fn_name")) for case in calls)
    return called_tests(
        name, [argument_list(case["input"]) for case in calls], unwrapped(outputs) if wrapped else outputs, starter
    )


def _kind(case: Mapping[str, Any]) -> str:
    kind = optional(case.get("type")) or optional(case.get("testtype"))
    if kind in ("stdin_stdout", "stdin", ""):
        return "call" if not kind and optional(case.get("fn_name")) else "stdin"
    if kind in ("function_call", "functional", "call_based"):
        return "call"
    raise Unreadable(f"a test of unknown kind {kind!r}; known are stdin_stdout, stdin, function_call and functional")


def _function(cases: list[dict[str, Any]]) -> str:
    for case in cases:
        metadata = case.get("metadata")
        inner = metadata.get("func_name") if isinstance(metadata, Mapping) else None
        name = optional(case.get("fn_name")) or optional(inner)
        if name:
            return name
    return ""


def _starter_in(statement: str) -> str:
    """The class Solution that a statement shows in a code block as what is to be completed; "" if it shows none."""
    for block in re.findall(r"```(?:python)?\n(.*?)```", statement, re.DOTALL):
        if "class Solution" in block:
            return block.strip("\n") + "\n"
    return ""
