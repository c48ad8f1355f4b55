"""Verification's second look: limits, comparisons, programs that change their mind, and test sets too large."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_curation import Problem, Solution, Test
from data_curation.config import VerifyOptions
from data_curation.schema import NEEDS_CHECKER
from data_curation.stages.result import Workplace
from data_curation.stages.second_look import Speed, has_many_answers, may_change, raised_limit
from data_curation.stages.thinning import thinned
from data_curation.stages.verify import verify

DIVISORS = "n = int(input())\nprint(*[d for d in range(1, n + 1) if n % d == 0])\n"
BACKWARDS = DIVISORS.replace("range(1, n + 1)", "range(n, 0, -1)")


@pytest.fixture
def work(tmp_path) -> Workplace:
    return Workplace(tmp_path / "stage")


def divisors(*solutions: Solution, **fields) -> Problem:
    tests = [Test(input="6\n", output="1 2 3 6\n"), Test(input="9\n", output="1 3 9\n")]
    values = {"id": "p", "statement": "Print all divisors of n.", "tests": tests, "solutions": list(solutions)}
    return Problem(**{**values, **fields})


def test_answers_in_another_order_get_a_checker_that_allows_it(work):
    wrong = Solution(code="n = int(input())\nprint(1, n)", verdict="wrong_answer")
    result = verify([divisors(Solution(code=DIVISORS), Solution(code=BACKWARDS), wrong)], VerifyOptions(), work)
    assert [(p.checker, p.tags) for p in result.problems] == [("unordered_tokens", ["repaired:checker"])]
    assert result.rows[0]["repair"] == "checker unordered_tokens instead of tokens"
    assert result.rows[0]["true_positive_rate"] == 0.5
    assert result.figures["problems repaired (limit or checker)"] == 1


def test_no_checker_is_taken_that_lets_a_wrong_solution_pass(work):
    wrong = Solution(code=BACKWARDS + "#", verdict="wrong_answer")
    result = verify([divisors(Solution(code=DIVISORS), Solution(code=BACKWARDS), wrong)], VerifyOptions(), work)
    assert [d.reason for d in result.dropped] == ["accepted solution fails"]


def test_nothing_is_repaired_when_that_is_not_wanted(work):
    result = verify([divisors(Solution(code=BACKWARDS))], VerifyOptions(repair=False), work)
    assert [d.reason for d in result.dropped] == ["accepted solution fails"]


def test_a_statement_that_allows_many_answers_names_the_cause(work):
    other = Solution(code="print(3)")
    problem = divisors(other, statement="Print a divisor of n. If there are several, print any of them.")
    result = verify([problem], VerifyOptions(), work)
    assert [d.reason for d in result.dropped] == ["accepted solution fails: several answers are right"]


def test_a_crash_is_told_and_a_missing_module_says_nothing_about_the_tests(work):
    crashing = divisors(Solution(code="n = int(input())\nprint(1 // (n - n))"))
    elsewhere = divisors(Solution(code="import absent_library\nprint(1)"), id="q")
    result = verify([crashing, elsewhere], VerifyOptions(), work)
    assert [(d.id, d.detail.partition(":")[2].split(":")[-2].strip()) for d in result.dropped] == [
        ("p", "ZeroDivisionError")
    ]
    assert [p.id for p in result.problems] == ["q"]
    assert [(r["accepted"], r["not_run"], r["missing_module"]) for r in result.rows] == [
        (1, 0, ""),
        (0, 1, "absent_library"),
    ]
    strict = verify([elsewhere], VerifyOptions(drop_unverified=True), work)
    assert [d.reason for d in strict.dropped] == ["no accepted solution could be run"]


def test_a_program_that_changes_its_mind_is_found(work):
    # the clock decides; no comparison, however lenient, is passed forty times by luck
    code = "import time\nn = int(input())\nprint(n if time.time_ns() % 2 else -1)"
    problem = divisors(Solution(code=code), tests=[Test(input=f"{n}\n", output=f"{n}\n") for n in range(40)])
    result = verify([problem], VerifyOptions(), work)
    assert len(result.dropped) == 1
    assert may_change(problem.solutions[0]) and not may_change(Solution(code=DIVISORS))
    assert may_change(Solution(code="int main() {}", language="cpp"))


def test_a_limit_too_tight_for_accepted_solutions_is_widened(work):
    busy = "from time import process_time as t\nn = int(input())\nend = t() + 0.6\nwhile t() < end: pass\nprint(n)"
    problem = divisors(Solution(code=busy), cpu_s=0.05, tests=[Test(input="6\n", output="6\n")])
    result = verify([problem], VerifyOptions(limit_stretch=40.0, repeat=False), work)
    assert result.rows[0]["repair"].startswith("limit 0.05 s to ")
    assert 0.2 <= result.problems[0].cpu_s <= 1.6  # 0.6 s of Python twice over, at five times the limit for C++
    (speed,) = result.rows[0]["speeds"]
    assert speed["language"] == "python" and speed["slowest_s"] > 0.5


@given(st.floats(0.01, 10), st.floats(0.001, 100))
def test_a_raised_limit_grants_the_estimate_and_is_never_lower(limit, estimate):
    raised = raised_limit(divisors(cpu_s=limit), [Speed("python", estimate / 2, 5 * limit, estimate)])
    assert raised.cpu_s >= limit
    assert 5 * raised.cpu_s >= estimate * 0.999


def test_a_checker_that_is_not_at_hand_is_needed_unless_a_tolerance_does():
    def needs(checker: str, output: str) -> bool:
        tests = [Test(input="1\n", output=output)]
        return has_many_answers(divisors(tests=tests, checker=checker, tags=[NEEDS_CHECKER]))

    assert needs("tokens", "Case #1: 3\n")
    assert needs("floats:1e-6", "Case #1: 0.5 0.25\n")
    assert not needs("floats:1e-6", "Case #1: 0.5\nCase #2: 1.5e-3\n")
    assert not needs("python:print(1)", "Case #1: 3\n")


@pytest.mark.parametrize(
    ("statement", "several"),
    [
        ("If there are multiple answers, print any of them.", True),
        ("Output any valid answer.", True),
        ("Print the edges in any order.", True),
        ("The cows stand in any order. Print their number.", False),
        ("If there are several answers, you may output any one of them.", True),
        ("This is only one of many valid answers.", True),
        ("Any valid answer will be accepted.", True),
        ("If there are several answers, print the smallest.", False),
        ("Return the largest sum of any valid subset.", False),
        ("The owner can walk to any of them.", False),
        ("Print the answer. There is exactly one.", False),
        ("In any case print the number of ways.", False),
    ],
)
def test_statements_say_whether_several_answers_are_right(statement, several):
    assert has_many_answers(divisors(statement=statement)) is several
    assert not has_many_answers(divisors(statement=statement, checker="python:print(1)"))


sizes = st.lists(st.tuples(st.integers(0, 500), st.booleans(), st.sampled_from(["", "a", "b"])), max_size=40)


@given(sizes, st.integers(1, 12), st.integers(0, 2000))
def test_thinning_keeps_order_samples_groups_and_limits(shapes, most, most_bytes):
    tests = [
        Test(input="x" * size, output=str(number), sample=sample, group=group)
        for number, (size, sample, group) in enumerate(shapes)
    ]
    kept = thinned(tests, most, most_bytes)
    assert [test for test in tests if test in kept] == kept  # outputs make them distinct
    assert len(kept) <= most and bool(kept) == bool(tests)
    held = sum(len(test.input) + len(test.output) for test in kept)
    assert held <= most_bytes or len(kept) == 1
    if len(tests) <= most and sum(len(t.input) + len(t.output) for t in tests) <= most_bytes:
        assert kept == tests
    if most_bytes >= 25_000:
        assert {t.group for t in kept} == {t.group for t in tests} or most < 6


def test_thinning_takes_small_and_large_tests_alike():
    tests = [Test(input="x" * n, sample=n == 7) for n in range(1000)]
    kept = thinned(tests, 20, 10**9)
    assert len(kept) == 20 and tests[7] in kept and tests[999] in kept
    lengths = [len(test.input) for test in kept]
    assert max(b - a for a, b in itertools.pairwise(lengths)) < 120


def test_thinned_problems_are_marked(work):
    tests = [Test(input=f"{n}\n", output=f"{n}\n") for n in range(30)]
    result = verify([divisors(Solution(code="print(input())"), tests=tests)], VerifyOptions(maximum_tests=10), work)
    assert len(result.problems[0].tests) == 10
    assert result.problems[0].tags == ["tests-thinned:30"]
    assert result.rows[0]["thinned"] == 20
