"""A problem's own checker decides, in the sandbox; its failure is nobody's wrong answer."""

from __future__ import annotations

import pytest

import sandbox
import sandbox.scoring
from sandbox import TestCase, Verdict

# any two numbers whose sum is the input
SPLIT = """
import json, sys
case = json.load(sys.stdin)
try:
    a, b = map(int, case["output"].split())
except ValueError:
    sys.exit(1)
sys.exit(0 if a + b == int(case["input"]) else 1)
"""
TESTS = [TestCase(str(n), "any") for n in (3, 10, 7)]


def verdicts(judgement: sandbox.Judgement) -> str:
    return " ".join([judgement.verdict, ":", *(case.verdict for case in judgement.cases)])


def test_any_right_answer_is_accepted(any_level: sandbox.Judge) -> None:
    for code in ("n = int(input())\nprint(1, n - 1)", "n = int(input())\nprint(n)\nprint(0)"):
        assert verdicts(any_level.judge(code, TESTS, checker="python:" + SPLIT)) == "AC : AC AC AC"


def test_wrong_answers_stop_or_not_as_asked(judge: sandbox.Judge) -> None:
    code = "n = int(input())\nprint(1, n - 1 if n == 7 else n)"
    assert verdicts(judge.judge(code, TESTS, checker="python:" + SPLIT)) == "WA : WA SKIPPED SKIPPED"
    assert verdicts(judge.judge(code, TESTS, checker="python:" + SPLIT, stop="never")) == "WA : WA WA AC"


def test_a_failing_run_is_not_checked(judge: sandbox.Judge) -> None:
    code = "n = int(input())\nprint(1, n - 1)\nassert n != 10"
    assert verdicts(judge.judge(code, TESTS, checker="python:" + SPLIT)) == "RE : AC RE SKIPPED"


@pytest.mark.parametrize(
    "source", ["raise ValueError", "import sys\nsys.exit(7)", "import os\nos.abort()", "bytearray(1 << 40)"]
)
def test_a_checker_that_fails_is_an_infrastructure_error(judge: sandbox.Judge, source: str) -> None:
    assert judge.judge("print(1)", TESTS, checker="python:" + source).verdict is Verdict.IE


def test_an_exit_code_of_another_protocol_is_named(judge: sandbox.Judge) -> None:
    found = judge.judge("print(1)", TESTS, checker="python:import sys\nsys.exit(42)")
    assert found.verdict is Verdict.IE and "answers of the kattis protocol" in found.message, found


def test_a_checker_sees_returned_values_as_json(judge: sandbox.Judge) -> None:
    source = "import json, sys\nsys.exit(json.loads(json.load(sys.stdin)['output']) != [1, 2])"
    judgement = judge.judge("def f(): return (1, 2)", [TestCase("", "", call="f()")], checker="python:" + source)
    assert judgement.verdict is Verdict.AC, judgement


def test_a_checker_that_does_not_compile_is_refused_at_once(judge: sandbox.Judge) -> None:
    with pytest.raises(ValueError, match="does not compile"):
        judge.judge("print(1)", TESTS, checker="python:if")


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        (TestCase("[1", "1", call="f(*args)"), "test 2: input is no JSON list of arguments"),
        (TestCase("1", "1", call="f(*args)"), "test 2: input is no JSON list of arguments, but int"),
        (TestCase("[1]", "1", call="f(*args"), "test 2: call is no Python expression"),
        (TestCase("[1]", "1", call="import os"), "test 2: call is no Python expression"),
        (TestCase(3, "1"), "test 2: input is int, expected text"),  # type: ignore[arg-type]
        (TestCase("", None), "test 2: output is NoneType, expected text"),  # type: ignore[arg-type]
    ],
)
def test_tests_no_program_could_pass_are_refused(judge: sandbox.Judge, test: TestCase, complaint: str) -> None:
    good = TestCase("[1]", "1", call="f(*args)") if test.call else TestCase("", "")
    for _ in range(2):
        with pytest.raises(ValueError, match=complaint):
            judge.judge("def f(x): return x", [good, test])


@pytest.mark.parametrize("expected", ["", "not json", "[1"])
def test_expected_values_that_cannot_be_read_give_no_reward(judge: sandbox.Judge, expected: str) -> None:
    found = judge.judge("def f(x): return x", [TestCase("[1]", expected, call="f(*args)")])
    assert found.verdict is Verdict.IE and sandbox.scoring.all_pass(found) is None
