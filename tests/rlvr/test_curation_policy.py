"""A policy named in a curation recipe: sampled by evaluation's engines, judged, kept as pass rates."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from data_curation import CurationConfig, Problem, Solution, Test, curate, save_problems
from rlvr.cli import cli
from rlvr.config.load import RecipeError
from rlvr.evaluation.curation_policy import policy_recipe, policy_sampler

POLICY = {"prompt": {"style": "plain"}, "sampling": {"max_completion_length": 8, "batch_size": 3}}


def problems(folder: Path) -> Path:
    rows = [
        Problem(
            id=f"p{n}",
            statement=f"Read a number from the line and print it plus the constant {word}.",
            tests=[Test(input="1\n", output=f"{n + 8}\n")],
            solutions=[Solution(code=f"print(int(input()) + {n + 7})", verdict="accepted")],
        )
        for n, word in enumerate(("seven", "eight"))
    ]
    save_problems(rows, folder / "p.jsonl")
    return folder / "p.jsonl"


def test_a_recipe_s_policy_is_sampled_and_its_rates_are_kept(tiny_model: Path, tmp_path: Path) -> None:
    policy = {**POLICY, "model": {"name_or_path": str(tiny_model)}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"sources: [{str(problems(tmp_path))!r}]\ndifficulty: {{rollouts: 4, policy: {policy!r}}}\n".replace("'", '"')
    )
    command = ["curate", "--config", str(recipe), "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(cli, command)
    assert first.exit_code == 0, first.output
    rows = pq.read_table(tmp_path / "out" / "difficulty.parquet").to_pylist()
    assert [(row["id"], row["samples"]) for row in rows] == [("p0", 4), ("p1", 4)]
    again = CliRunner().invoke(cli, command)
    assert "difficulty: 2 in, 0 removed, 2 out (from the last run)" in again.output


def test_samples_follow_from_the_seed_and_the_weights_name_the_policy(tiny_model: Path, tmp_path: Path) -> None:
    config = CurationConfig.model_validate(
        {"difficulty": {"rollouts": 4, "policy": {**POLICY, "model": {"name_or_path": str(tiny_model)}}}}
    )
    recipe = policy_recipe(config)
    assert recipe is not None
    asked = [Problem(id=name, statement="Print one.") for name in "ab"]
    (first, name), (second, same) = policy_sampler(recipe), policy_sampler(recipe)
    found = list(first(asked, 4))
    assert [len(programs) for programs in found] == [4, 4] and list(second(asked, 4)) == found
    assert name == same and name.startswith(str(tiny_model))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"modell": {}}, "difficulty.policy.modell: unknown key; known are model, "),
        ({}, "difficulty.policy: give exactly one of model, endpoint and samples"),
        ({"model": {"name_or_path": "x"}, "engine": "sglang"}, "difficulty.policy.engine: Input should be"),
    ],
)
def test_a_bad_policy_is_one_line(policy: dict, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        policy_recipe(CurationConfig.model_validate({"difficulty": {"policy": policy}}))


def test_python_must_pass_the_sampler(tmp_path: Path) -> None:
    config = CurationConfig.model_validate({"sources": [str(problems(tmp_path))], "difficulty": {"policy": {}}})
    with pytest.raises(ValueError, match="sampled from by `rlvr curate`"):
        curate(config, tmp_path / "out", show_progress=False)
    assert not (tmp_path / "out").exists()
