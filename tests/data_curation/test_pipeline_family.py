"""The generated family: statements, programs, tests, split and demonstrations."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings

import pytest

from data_curation.builtin.operations import LIST_OPERATIONS, PRINT_OPERATIONS, evaluator
from data_curation.builtin.pipelines import (
    OPENINGS,
    READING_LINES,
    pipeline_demonstrations,
    pipeline_problems,
    program_text,
    run_steps,
)
from data_curation.families import is_heldout
from data_curation.schema import Problem

DEPTHS = (0, 1, 1, 2, 2, 3)


@pytest.fixture(scope="module")
def train() -> list[Problem]:
    return pipeline_problems(60, (1, 2, 3), 0, split="train")


@pytest.fixture(scope="module")
def demonstrations() -> list[dict]:
    return pipeline_demonstrations(3000, DEPTHS, 0)


def output_of(program: str, text: str) -> str | None:
    """What the program prints, run as Python text; the family's programs are our own."""
    lines = iter(text.splitlines())
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(compile(program, "program", "exec"), {"input": lambda: next(lines)})
        except Exception:
            return None
    return printed.getvalue()


def test_there_are_57_operations_of_which_20_take_a_constant():
    operations = [*LIST_OPERATIONS, *PRINT_OPERATIONS]
    assert (len(LIST_OPERATIONS), len(PRINT_OPERATIONS)) == (39, 18)
    assert sum(bool(operation.constants) for operation in operations) == 20
    assert len({operation.name for operation in operations}) == 57


@pytest.mark.parametrize("operation", [*LIST_OPERATIONS, *PRINT_OPERATIONS], ids=lambda operation: operation.name)
def test_every_operation_has_plausible_wrong_forms_that_differ_from_the_right_one(operation):
    assert 1 <= len(operation.wrong) <= 2
    assert 0.1 <= operation.bug_rate <= 0.6
    samples = [
        [],
        [1],
        [0],
        [-7, 12, 3, 3, 0, -7, 28],
        [5, 4, 5],
        [9, -9, 2, 2, 8, 7],
        [2, 1],
        [11, 4, 6],
        [1, 2, 2],
        [-3, -8],
    ]
    for constant in operation.constants or (0,):
        step = (operation.right.replace("{k}", str(constant)), operation.prints)
        planted = [*samples, [constant], [constant, constant + 1, 0, constant, -constant]]
        for text in operation.wrong:
            wrong = (text.replace("{k}", str(constant)), operation.prints)
            assert any(value_of(step, a) != value_of(wrong, a) for a in planted), text


def value_of(step, numbers):
    try:
        return evaluator(*step)(list(numbers))
    except Exception:
        return "raises"


def test_a_statement_is_an_opening_and_one_sentence_a_step(train):
    for problem in train:
        opening = next(text for text in OPENINGS if problem.statement.startswith(text + " "))
        steps = problem.statement[len(opening) + 1 :]
        first, *later = steps.removesuffix(".").split(". ")
        assert first[0].isupper()
        assert all(sentence.startswith(("Then ", "Next ", "Afterwards ")) for sentence in later)
        assert problem.difficulty == f"depth {len(later)}"
        assert problem.family.count(" > ") == len(later)


def test_a_program_is_two_reading_lines_and_one_line_a_step(train):
    for problem in train:
        lines = problem.solutions[0].code.split("\n")
        assert tuple(lines[:2]) == READING_LINES
        assert len(lines) == 2 + len(problem.family.split(" > "))


def test_expected_outputs_are_what_the_program_text_prints(train):
    for problem in train:
        for test in problem.tests:
            assert output_of(problem.solutions[0].code, test.input) == test.output


def test_every_wrong_solution_fails_a_test(train):
    for problem in train:
        wrong = problem.solutions[1:]
        assert 1 <= len(wrong) <= 2
        for solution in wrong:
            assert solution.verdict == "wrong_answer"
            assert any(output_of(solution.code, test.input) != test.output for test in problem.tests)


def test_tests_notice_every_missing_list_line(train):
    for problem in train:
        lines = problem.solutions[0].code.split("\n")
        for index in range(2, len(lines) - 1):
            shorter = "\n".join(lines[:index] + lines[index + 1 :])
            assert any(output_of(shorter, test.input) != test.output for test in problem.tests)


def test_tests_show_different_outputs(train):
    for problem in train:
        outputs = {test.output for test in problem.tests}
        assert len(problem.tests) == 10
        assert len(outputs) >= (2 if outputs <= {"YES\n", "NO\n"} else 3)


def test_the_same_seed_gives_the_same_problems_and_another_seed_others(train):
    assert pipeline_problems(60, (1, 2, 3), 0, split="train") == train
    assert pipeline_problems(60, (1, 2, 3), 1, split="train") != train


def test_more_problems_begin_with_the_same_problems(train):
    assert pipeline_problems(80, (1, 2, 3), 0, split="train")[:60] == train


def test_held_out_families_are_in_neither_training_problems_nor_demonstrations(train, demonstrations):
    heldout = pipeline_problems(60, (1, 2, 3), 0, split="heldout")
    assert all(is_heldout(problem.family) for problem in heldout)
    seen = {problem.family for problem in train} | {row["family"] for row in demonstrations}
    assert not seen & {problem.family for problem in heldout}
    assert not any(is_heldout(family) for family in seen)


def test_excluded_statements_and_programs_do_not_occur(train):
    statements = {problem.statement for problem in train}
    programs = {problem.solutions[0].code for problem in train}
    others = pipeline_problems(60, (1, 2, 3), 0, split="train", exclude_statements=statements)
    assert not statements & {problem.statement for problem in others}
    others = pipeline_problems(60, (1, 2, 3), 0, split="train", exclude_programs=programs)
    assert not programs & {problem.solutions[0].code for problem in others}


def test_demonstrations_have_the_depths_asked_for_and_may_repeat_at_depth_0(demonstrations):
    depths = [row["family"].count(" > ") for row in demonstrations]
    assert depths == [DEPTHS[index % 6] for index in range(3000)]
    assert len({row["statement"] for row in demonstrations}) < 3000


def test_demonstrations_are_of_mixed_quality_falling_with_depth(demonstrations):
    def passing(depth: int) -> float:
        rows = [row["passes"] for row in demonstrations if row["family"].count(" > ") == depth]
        return sum(rows) / len(rows)

    assert 0.25 < passing(3) < passing(2) < passing(1) < passing(0) < 0.85


def test_demonstrations_are_the_same_for_the_same_seed(demonstrations):
    assert pipeline_demonstrations(300, DEPTHS, 0) == demonstrations[:300]
    assert pipeline_demonstrations(300, DEPTHS, 1) != demonstrations[:300]


def test_an_exhausted_depth_is_an_error_not_an_endless_loop():
    with pytest.raises(ValueError, match="no new problem of depth 0"):
        pipeline_problems(100_000, (0,), 0, split="heldout")


@pytest.mark.parametrize("depths", [(), (-1,), (1, -2)])
def test_impossible_depths_are_refused(depths):
    with pytest.raises(ValueError, match="depths"):
        pipeline_problems(1, depths, 0, split=None)
    with pytest.raises(ValueError, match="depths"):
        pipeline_demonstrations(1, depths, 0)


def test_a_raising_step_has_no_output():
    assert run_steps([("a[0]", True)], []) is None
    assert run_steps([("a[1:]", False), ("*a", True)], [1, 2, 3]) == "2 3"
    assert program_text([("*a", True)]).endswith("\nprint(*a)")


def test_numbers_stay_printable():
    limit = sys.get_int_max_str_digits()
    problems = pipeline_problems(30, (4,), 0, split=None)
    assert all(len(test.output) < limit for problem in problems for test in problem.tests)
