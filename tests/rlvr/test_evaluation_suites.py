"""Definitions of suites: those that ship, one's own, and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sums import PROBLEMS, own_suite, recipe_for, write_rows

from data_curation import save_problems
from rlvr.config import RecipeError
from rlvr.evaluation.problems import suite_problems
from rlvr.evaluation.suites import load_suites, shipped_suites, suite_recipe


def test_every_shipped_suite_is_valid_and_says_what_it_needs() -> None:
    assert {"humaneval", "mbpp", "drive", "drive-livecode-v6"} <= set(shipped_suites())
    for name in shipped_suites():
        for suite in load_suites(name):
            assert suite.description and suite.column
            recipe = suite_recipe(suite, "out", data="/data", model={"name_or_path": "m"})
            assert "{data}" not in recipe.data.problems
    assert [suite.column for suite in load_suites("drive")] == ["LC 08-11", "V5", "V6", "LeetCode", "Codeforces"]
    assert all((suite.sampling.n, suite.sampling.k) == (10, [1, 10]) for suite in load_suites("drive"))
    excluded = {item.id for item in load_suites("drive-livecode-v6")[0].data.exclude}
    assert {"abc311_c", "abc337_e", "most-frequent-ids"} <= excluded


def test_the_mbpp_test_suite_is_tasks_11_to_510(tmp_path: Path) -> None:
    file = tmp_path / "mbpp.jsonl"
    row = {"text": "Add one.", "code": "def f(x):\n    return x + 1\n", "test_list": ["assert f(1) == 2"]}
    write_rows(file, [{"task_id": n, **row, "text": f"Add {n}."} for n in (9, 10, 11, 12, 510, 511, 601)])
    (suite,) = load_suites("mbpp-test")
    recipe = suite_recipe(
        suite, tmp_path / "out", data=str(file), overrides=["data.expected=3"], model={"name_or_path": "m"}
    )
    assert [problem.id for problem in suite_problems(recipe)] == ["mbpp-11", "mbpp-12", "mbpp-510"]
    assert suite.data.expected == 500


def test_suites_and_their_mistakes() -> None:
    with pytest.raises(RecipeError, match="did you mean humaneval"):
        load_suites("humanevl")
    (suite,) = load_suites("humaneval")
    with pytest.raises(RecipeError, match="say with --data where"):
        suite_recipe(suite, "out", model={"name_or_path": "m"})
    with pytest.raises(RecipeError, match="exactly one of model, endpoint and samples"):
        suite_recipe(suite, "out", data="x")
    with pytest.raises(RecipeError, match="sampling"):
        suite_recipe(suite, "out", data="x", model={"name_or_path": "m"}, overrides=["sampling.n=0"])


@pytest.mark.parametrize(
    ("data", "left", "message"),
    [
        ({"after": "2025-02-01", "before": "2025-04-01"}, 3, None),
        (
            {"exclude": [{"id": "sum/1", "reason": "wrong tests"}, {"id": "sum-and-2", "reason": "interactive"}]},
            3,
            None,
        ),
        ({"difficulties": ["hard"]}, 2, None),
        ({"expected": 4}, 0, "5 problems, but suite own is made of 4"),
        ({"after": "2026-01-01"}, 0, "none of its 5 problems is left to evaluate \\(5 outside the window of dates\\)"),
    ],
)
def test_suites_are_cut_to_their_window_and_exclusions(
    sums_file: Path, tmp_path: Path, data: dict[str, Any], left: int, message: str | None
) -> None:
    (suite,) = load_suites(str(own_suite(tmp_path, **data)))
    recipe = suite_recipe(suite, tmp_path / "out", data=str(sums_file), model={"name_or_path": "m"})
    if message is not None:
        with pytest.raises(RecipeError, match=message):
            suite_problems(recipe)
    else:
        assert len(suite_problems(recipe)) == left


def test_a_suite_without_tests_is_refused(tmp_path: Path) -> None:
    sums_file = tmp_path / "none.jsonl"
    save_problems([p.model_copy(update={"tests": []}) for p in PROBLEMS], sums_file)
    with pytest.raises(RecipeError, match="none of its 5 problems is left to evaluate \\(5 without tests\\)"):
        suite_problems(recipe_for(sums_file, tmp_path / "out", model={"name_or_path": "m"}))
