"""What a problem hands to the judge: preamble, tests, limits and checker."""

from __future__ import annotations

import pytest

import sandbox
from data_curation import Problem, Test
from data_curation.schema import with_preamble

PREAMBLE = "from typing import *\nimport math\n"
PROBLEM = Problem(
    id="a", statement="s", preamble=PREAMBLE, tests=[Test(input="[4]", output="2", call="Solution().root(*args)")]
)


def test_a_program_may_use_what_the_preamble_brings():
    program = "class Solution:\n    def root(self, n: Optional[int]) -> int:\n        return math.isqrt(n)\n"
    with sandbox.Judge(workers=1) as judge:
        assert judge.judge_batch([PROBLEM.submission(program)])[0].accepted
        bare = PROBLEM.model_copy(update={"preamble": ""})
        assert judge.judge_batch([bare.submission(program)])[0].verdict is sandbox.Verdict.RE


def test_future_imports_stay_first():
    code = with_preamble(PREAMBLE, '"""Doc."""\nfrom __future__ import annotations\nx: Undefined = 1\n')
    namespace: dict = {}
    exec(compile(code, "program", "exec", dont_inherit=True), namespace)
    assert namespace["x"] == 1 and "math" in namespace


@pytest.mark.parametrize(
    ("language", "preamble", "program"),
    [("cpp", PREAMBLE, "int x;"), ("python", "", "x = 1"), ("python", PREAMBLE, " \n")],
)
def test_other_languages_and_empty_programs_stay_as_they_are(language, preamble, program):
    assert PROBLEM.model_copy(update={"preamble": preamble}).submission(program, language).code == program


def test_the_preamble_is_part_of_what_a_reward_depends_on():
    assert PROBLEM.fingerprint != PROBLEM.model_copy(update={"preamble": ""}).fingerprint
