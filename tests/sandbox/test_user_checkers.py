"""A problem's own checker decides, in the sandbox; its failure is nobody's wrong answer."""

from __future__ import annotations

import pytest

import sandbox
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


def test_a_checker_sees_returned_values_as_json(judge: sandbox.Judge) -> None:
    source = "import json, sys\nsys.exit(json.loads(json.load(sys.stdin)['output']) != [1, 2])"
    judgement = judge.judge("def f(): return (1, 2)", [TestCase("", "", call="f()")], checker="python:" + source)
    assert judgement.verdict is Verdict.AC, judgement


def test_a_checker_that_does_not_compile_is_refused_at_once(judge: sandbox.Judge) -> None:
    with pytest.raises(ValueError, match="does not compile"):
        judge.judge("print(1)", TESTS, checker="python:if")
