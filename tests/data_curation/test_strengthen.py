"""Strengthening: mutants of right programs, inputs in the shape of known ones, tests that catch what passed before."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation import Problem, Solution, Test
from data_curation.config import StrengthenOptions
from data_curation.stages import strengthen as stage
from data_curation.stages.input_mutation import mutated_inputs
from data_curation.stages.mutants import mutants
from data_curation.stages.result import Workplace
from data_curation.stages.stated_constraints import stated_constraints
from data_curation.stages.strengthen import strengthen

LARGEST = "n = int(input())\na = list(map(int, input().split()))\nprint(max(a))\n"
SORTING = "n = int(input())\nprint(sorted(map(int, input().split()))[-1])\n"
LAST = "input()\nprint(input().split()[-1])\n"  # right where the largest number is the last


@pytest.fixture
def work(tmp_path) -> Workplace:
    return Workplace(tmp_path / "stage")


def largest(*solutions: Solution, **fields) -> Problem:
    tests = [Test(input="3\n1 5 9\n", output="9\n"), Test(input="5\n2 2 4 4 8\n", output="8\n")]
    tests.append(Test(input="4\n-3 0 7 7\n", output="7\n"))
    values = {"id": "largest", "statement": "Print the largest of n numbers.", "tests": tests}
    return Problem(**{**values, "solutions": list(solutions), **fields})


# mutants


def test_mutants_differ_in_one_place_compile_and_are_the_same_every_time():
    code = "def f(a, n):\n    s = 0\n    for i in range(1, n):\n        if a[i] < a[i - 1] and s >= 0:\n"
    code += "            s += a[i]\n    return max(s, 0)\n"
    found = mutants(code, 100)
    assert found == mutants(code, 100) and len(found) == len(set(found)) > 12
    original = ast.unparse(ast.parse(code)).splitlines()
    for mutant in found:
        ast.parse(mutant)
        lines = mutant.splitlines()
        assert len(lines) == len(original)
        assert sum(a != b for a, b in zip(lines, original, strict=True)) == 1
    assert mutants(code, 5) == found[:5]
    assert mutants(code, 100, seed=1) != found


@pytest.mark.parametrize("code", ["", "int main() { return 0; }", "print('hello')", '"""only a text"""'])
def test_what_offers_no_slip_has_few_or_no_mutants(code):
    assert len(mutants(code, 10)) <= 1


# inputs

CALLS = [([3, 1, 2], 3, "abc"), ([9, 4], 2, "ca"), ([1, 7, 7, 5], 4, "b")]


def test_call_arguments_keep_their_ranges_and_the_length_that_a_number_counts():
    tests = [Test(input=json.dumps(list(values)), output="0", call="Solution().f(*args)") for values in CALLS]
    made = mutated_inputs(tests, 60)
    assert len(made) == 60 and len({test.input for test in made}) == 60
    for test in made:
        numbers, count, text = json.loads(test.input)
        assert count == len(numbers) and 2 <= len(numbers) <= 4
        assert all(1 <= number <= 9 for number in numbers)
        assert 1 <= len(text) <= 3 and set(text) <= set("abc")
        assert test.call == "Solution().f(*args)" and test.output == ""


def test_sorted_distinct_and_permuted_lists_stay_so():
    rows = [([1, 3, 8], [2, 1, 3]), ([2, 5, 9, 11], [1, 2, 4, 3]), ([4, 6], [2, 1])]
    tests = [Test(call=f"f({a}, {b})", output="0") for a, b in rows]
    made = [ast.literal_eval(test.call[1:]) for test in mutated_inputs(tests, 40)]
    assert made
    for increasing, permutation in made:
        assert increasing == sorted(set(increasing))
        assert sorted(permutation) == list(range(1, len(increasing) + 1))


def test_lines_keep_their_counts():
    tests = [Test(input="2\n3\n1 5 9\n4\n7 7 2 1\n"), Test(input="1\n5\n1 2 3 4 6\n")]
    made = mutated_inputs(tests, 40)
    assert len(made) > 10
    for test in made:
        lines = [list(map(int, line.split())) for line in test.input.splitlines()]
        assert lines[0] == [(len(lines) - 1) // 2]
        for (count,), numbers in zip(lines[1::2], lines[2::2], strict=True):
            assert count == len(numbers) and all(1 <= number <= 9 for number in numbers)


@settings(max_examples=60)
@given(st.lists(st.text(max_size=40), max_size=4), st.integers(0, 5))
def test_any_text_can_be_an_input(texts, seed):
    tests = [Test(input=text) for text in texts]
    made = mutated_inputs(tests, 5, seed)
    assert made == mutated_inputs(tests, 5, seed)
    assert not {" ".join(t.input.split()) for t in made} & {" ".join(t.input.split()) for t in tests}


def test_calls_that_are_no_data_are_left_alone():
    assert mutated_inputs([Test(call="bool(f(1) and g(2))"), Test(call="[exec('x'), f(1)][1]")], 5) == []


def test_calls_inside_an_expression_are_varied_and_the_expression_kept():
    truth = "[v == 1 if type(v) is int and v in (0, 1) else v for v in [{}]][0]"
    tests = [Test(call=truth.format(f"is_low({n}, 9)"), output="true") for n in (2, 5)]
    made = mutated_inputs(tests, 6)
    assert made
    for test in made:
        before, _, after = test.call.partition("is_low(")
        assert before == truth.partition("{")[0] and re.fullmatch(r"[1-5], [1-9]\)\]\]\[0\]", after)
    assert mutated_inputs([Test(call="bool(f(3) == [1, 2])", output="true")], 5) == []  # the wanted value is inside


def test_tuples_sets_and_dicts_keep_their_types_and_records_their_fields():
    calls = [
        "f([('ann', 3), ('bob', 5), ('cyd', 1)], {1, 2}, {'a': 1, 'b': 4})",
        "f([('dan', 9), ('eve', 2)], {7}, {'c': 3})",
    ]
    made = [ast.literal_eval(test.call[1:]) for test in mutated_inputs([Test(call=c, output="0") for c in calls], 60)]
    assert len(made) > 30
    for records, numbers, table in made:
        assert all(type(row) is tuple and [type(cell) for cell in row] == [str, int] for row in records)
        assert type(numbers) is set and all(type(number) is int for number in numbers)
        assert set(table) in ({"a", "b"}, {"c"}) and all(type(value) is int for value in table.values())


def test_counts_may_be_smaller_than_any_known_one_but_not_below_one():
    made = {int(test.call[2:-1]) for test in mutated_inputs([Test(call=f"f({n})") for n in (7, 9, 10)], 40)}
    assert made == {1, 2, 3, 4, 5, 6, 8}


# constraints that the statement states

STATED = """Given nums, edges and a text, count.

Example 1:

Input: nums = [1]

Constraints:

n == nums.length
2 <= n <= 10^3
-10^4 <= nums[i] <= 104
0 <= edges.length <= 4
edges[i] = [ai, bi]
0 <= ai < bi < n
text consists of lowercase English letters.
text.length is even.
All the values of nums are unique.
Some of the points are of great beauty.
"""
NAMES = ("nums", "edges", "text")
VALID = ([3, -7, 4], [[0, 1], [1, 2]], "ab")


def test_stated_constraints_are_read_and_what_is_not_read_is_kept():
    found = stated_constraints(STATED, NAMES, [VALID])
    assert found is not None
    assert found.unread == ["Some of the points are of great beauty"]
    assert found.lengths["nums", 0] == [2, 1000] and found.numbers["nums", 1] == [-10000, 104]
    assert found.letters["text", 0] == set("abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize(
    "values",
    [
        ([3], [], "ab"),
        ([3, 105], [], "ab"),
        ([3, 3], [], "ab"),
        ([3, 4], [[1, 0]], "ab"),
        ([3, 4], [[0, 2]], "ab"),
        ([3, 4], [[0, 1]] * 5, "ab"),
        ([3, 4], [], "aB"),
        ([3, 4], [], "abc"),
        (3, [], "ab"),
    ],
)
def test_arguments_that_break_a_stated_constraint_are_told_apart(values):
    found = stated_constraints(STATED, NAMES, [VALID])
    assert found is not None and found.hold(VALID) and not found.hold(values)


def test_an_exponent_that_lost_its_height_is_read_where_known_arguments_show_it():
    text = "Constraints:\n\n1 <= k <= 109\n"
    assert stated_constraints(text, ["k"], [[50]]).numbers["k", 0] == [1, 109]
    assert stated_constraints(text, ["k"], [[5000]]).numbers["k", 0] == [1, 10**9]
    assert stated_constraints("Constraints:\n\n1 <= k <= 9\n", ["k"], [[5000]]).unread == ["1 <= k <= 9"]
    assert stated_constraints("Count them.", ["k"]) is None


@settings(max_examples=60)
@given(st.text(max_size=60), st.lists(st.sampled_from(["nums", "k", "s"]), max_size=3, unique=True))
def test_any_line_can_be_a_constraint(line, names):
    found = stated_constraints(f"Constraints:\n\n{line}\n1 <= k\n", names, [])
    assert found is None or isinstance(found.unread, list)


def test_inputs_use_the_whole_stated_range_and_keep_every_stated_line():
    text = STATED.replace("Some of the points are of great beauty.\n", "")
    known = [VALID, ([9, 2], [[0, 1]], "cd")]
    tests = [Test(input=json.dumps(row), call="Solution().f(*args)", output="0") for row in known]
    found = stated_constraints(text, NAMES, known)
    assert found is not None and not found.unread
    made = [json.loads(test.input) for test in mutated_inputs(tests, 80, stated=found)]
    assert len(made) > 40 and all(found.hold(row) for row in made)
    assert max(len(row[0]) for row in made) > 3 and min(number for row in made for number in row[0]) < -7
    assert any(set(row[2]) - set("abcd") for row in made)


# the stage


def test_tests_are_added_that_catch_a_wrong_solution_and_mutants(work):
    wrong = Solution(code=LAST, verdict="wrong_answer")
    problem = largest(Solution(code=LARGEST), Solution(code=SORTING), wrong)
    result = strengthen([problem], StrengthenOptions(enabled=True), work)
    (stronger,) = result.problems
    row = result.rows[0]
    assert row["references"] == 2 and row["accepted_before"] >= 1
    assert row["accepted_after"] < row["accepted_before"]
    assert row["added"] == len(stronger.tests) - 3 >= 1
    assert stronger.tags == [f"tests-added:{row['added']}-by-2"]
    for test in stronger.tests[3:]:
        count, numbers = test.input.splitlines()
        assert len(numbers.split()) == int(count) and int(test.output) == max(map(int, numbers.split()))
    assert any(test.input.split()[-1] != test.output.strip() for test in stronger.tests[3:])
    assert result.figures["false-positive rate after"] < result.figures["false-positive rate before"]


def test_an_output_on_which_accepted_programs_differ_is_never_taken(work):
    # both right on the tests at hand, but one of them only where the largest number comes last
    problem = largest(Solution(code=LARGEST), Solution(code=LAST))
    result = strengthen([problem], StrengthenOptions(enabled=True), work)
    for test in result.problems[0].tests:
        assert test.input.split()[-1] == test.output.strip() == str(max(map(int, test.input.split()[1:])))
    assert 0 < result.rows[0]["inputs_agreed"] < result.rows[0]["inputs_tried"] or not result.rows[0]["accepted_before"]


def test_one_accepted_program_is_trusted_only_when_asked(work):
    problem = largest(Solution(code=LARGEST), Solution(code=LAST, verdict="wrong_answer"))
    result = strengthen([problem], StrengthenOptions(enabled=True), work)
    assert result.problems == [problem]
    assert result.rows[0]["skipped"] == "1 accepted programs, 2 must agree"
    result = strengthen([problem], StrengthenOptions(enabled=True, agreeing=1), work)
    assert result.problems[0].tags[0].endswith("-by-1")


def test_functions_are_strengthened_by_calls(work):
    code = "def biggest(a):\n    best = a[0]\n    for x in a:\n        if x > best: best = x\n    return best\n"
    tests = [Test(call="biggest([1, 4, 9])", output="9"), Test(call="biggest([2, 3])", output="3")]
    wrong = Solution(code="def biggest(a):\n    return a[-1]", verdict="wrong_answer")
    problem = largest(Solution(code=code), wrong, tests=tests)
    result = strengthen([problem], StrengthenOptions(enabled=True, agreeing=1), work)
    added = result.problems[0].tests[2:]
    assert result.rows[0]["added"] == len(added)
    for test in added:
        assert int(test.output) == max(ast.literal_eval(test.call.partition("(")[2][:-1]))


def test_a_finished_problem_is_not_done_again(work, monkeypatch):
    problem = largest(Solution(code=LARGEST), Solution(code=SORTING), Solution(code=LAST, verdict="wrong_answer"))
    first = strengthen([problem], StrengthenOptions(enabled=True), work)
    monkeypatch.setattr(stage, "strengthened", failing)
    assert strengthen([problem], StrengthenOptions(enabled=True), work) == first


def failing(*args, **options):
    raise AssertionError("computed again")


def test_the_stage_does_nothing_unless_it_is_asked_for(work):
    problem = largest(Solution(code=LARGEST))
    assert strengthen([problem], StrengthenOptions(), work).problems == [problem]


SUM = "def total(a, k):\n    s = 0\n    for x in a:\n        if x >= k: s += x\n    return s\n"


@pytest.mark.parametrize(
    "line, reason",
    [
        ("a.length is odd", ""),
        ("a is beautiful", "one accepted program, and inputs may break: a is beautiful"),
        ("1 <= k <= 9\nIt is guaranteed that a has a peak.", "one accepted program, and inputs may break: It is"),
    ],
)
def test_a_single_program_gives_outputs_only_where_every_stated_line_is_kept(work, line, reason):
    tests = [Test(input="[[7, 5, 9], 3]", output="21", call="total(*args)", sample=True)]
    statement = f"Add up what is at least k.\n\nConstraints:\n\n1 <= a.length <= 100\n1 <= a[i], k <= 50\n{line}\n"
    problem = Problem(
        id="total", statement=statement, starter_code="def total(a, k):\n", tests=tests, solutions=[Solution(code=SUM)]
    )
    result = strengthen([problem], StrengthenOptions(enabled=True, agreeing=1), work)
    (row,) = result.rows
    assert row["skipped"].startswith(reason) and bool(row["skipped"]) == bool(reason)
    assert bool(row["added"]) == (not reason)
    for test in result.problems[0].tests[1:]:
        numbers, least = json.loads(test.input)
        assert len(numbers) % 2 == 1 and all(1 <= n <= 50 for n in [*numbers, least])
        assert int(test.output) == sum(n for n in numbers if n >= least)


def test_outputs_that_json_cannot_write_are_taken_in_the_judges_form(work):
    code = "def table(a):\n    d = {}\n    for x in a:\n        if x > 3: d[x] = {x, x + 1}\n    return d, set(a)\n"
    tests = [Test(call="table([1, 1, 0])", output='[{}, {"__set__": [0, 1]}]')]
    tests.append(Test(call="table([9])", output='[{"__dict__": [[9, {"__set__": [9, 10]}]]}, {"__set__": [9]}]'))
    problem = Problem(id="table", statement="Make the table of a.", tests=tests, solutions=[Solution(code=code)])
    result = strengthen([problem], StrengthenOptions(enabled=True, agreeing=1), work)
    assert result.rows[0]["inputs_agreed"] == result.rows[0]["inputs_tried"] > 5
    assert result.rows[0]["added"] >= 1


SLOW = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"


def test_a_problem_over_its_cpu_budget_stays_as_it_is_and_holds_up_no_other(work):
    wrong = Solution(code=LAST, verdict="wrong_answer")
    slow = largest(Solution(code=SLOW + LARGEST), Solution(code=SLOW + SORTING), wrong, id="slow")
    quick = largest(Solution(code=LARGEST), Solution(code=SORTING), wrong)
    options = StrengthenOptions(enabled=True, cpu_budget_s=2.0, mutants=2, inputs=8)
    result = strengthen([slow, quick], options, work)
    assert result.problems[0] == slow and len(result.problems[1].tests) > len(quick.tests)
    assert result.rows[0]["skipped"] == "its programs take more than 2 CPU seconds"
    assert not result.rows[1]["skipped"]
    counted = ("wrong", "unseen", "accepted_before", "unseen_accepted_before", "inputs_tried", "added")
    assert not any(result.rows[0][name] for name in counted)  # half-done counts would differ from run to run


def test_an_input_on_which_programs_differ_says_nothing_of_the_inputs_after_it(work):
    other = "n = int(input())\na = list(map(int, input().split()))\nprint(max(a) + (n == 4))\n"
    tests = [Test(input=f"{n}\n{' '.join(map(str, range(n)))}\n", output=f"{n - 1}\n") for n in (3, 5, 6, 8)]
    problem = largest(Solution(code=LARGEST), Solution(code=other), tests=tests)
    inputs = [Test(input=f"{n}\n{'5 ' * n}\n") for n in (3, 4, 5)]
    agreed = stage._agreed(problem, problem.solutions, inputs, stage.CpuBudget(60.0))
    assert [test.input[0] for test in agreed] == ["3", "5"]


KILLED = """
import sys
from pathlib import Path
from data_curation.config import StrengthenOptions
from data_curation.schema import Problem
from data_curation.stages.result import Workplace
from data_curation.stages.strengthen import strengthen

problems = [Problem.model_validate_json(line) for line in Path(sys.argv[1]).read_text().splitlines()]
strengthen(problems, StrengthenOptions(enabled=True, mutants=2, inputs=4), Workplace(Path(sys.argv[2])))
"""


def test_a_run_killed_outright_loses_only_the_problems_under_way(work, tmp_path, monkeypatch):
    wrong = Solution(code=LAST, verdict="wrong_answer")
    quick = largest(Solution(code=LARGEST), Solution(code=SORTING), wrong)
    endless = largest(Solution(code="while True: pass"), wrong, id="endless", cpu_s=60.0)
    file = tmp_path / "problems.jsonl"
    file.write_text(quick.model_dump_json() + "\n" + endless.model_dump_json() + "\n")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(file), str(work.folder)])
    made = work.folder / "made"
    while not list(made.glob("*.json")):
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.05)
    process.kill()
    process.wait()
    again = []

    def compute(problem, options, languages):
        again.append(problem.id)
        return [], stage.Strength(problem.id)

    monkeypatch.setattr(stage, "strengthened", compute)
    result = strengthen([quick, endless], StrengthenOptions(enabled=True, mutants=2, inputs=4), work)
    assert again == ["endless"] and result.rows[0]["wrong"] > 0
