"""The GRPO trainer: TRL's own results for equal groups, exact budgets for others, honest records of each rollout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from processes import ends_well, launch, torchrun
from stock_trainer import AS_TRL, LOSSES, differences, logged, train_stock
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer

from rlvr.budget.success_rates import Posterior
from rlvr.config import GRPORecipe, RecipeError
from rlvr.rollouts.records import drop_records, record_files
from rlvr.training.checkpoints import complete_checkpoints, read_state
from rlvr.training.grpo import success_rates, train_grpo
from rlvr.training.trl_methods import check_trl

STEPS, PROBLEMS, GROUP = 3, 6, 4


BETA = {"policy": "knapsack", "estimator": "beta"}
SMALL = {"problems_per_step": 3, "max_completion_length": 16}


def recipe(model: Path, problems: Path, out: Path, **changes) -> GRPORecipe:
    values = {
        "name": "test",
        "output_dir": str(out),
        "model": {"name_or_path": str(model)},
        "data": {"problems": str(problems)},
        "prompt": {"style": "plain"},
        "judge": {"workers": 2},
        "grpo": {
            "problems_per_step": PROBLEMS,
            "num_generations": GROUP,
            "per_device_train_batch_size": 12,
            "max_steps": STEPS,
            "max_completion_length": 32,
            "learning_rate": 1e-3,
            "save_steps": 100,
        },
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
    return GRPORecipe.model_validate(values)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("loss_type", LOSSES)
def test_equal_groups_give_the_stock_trainers_losses_and_weights_bit_for_bit(
    warm_model, problems_file, pipeline_set, tmp_path, loss_type
):
    ours = recipe(
        warm_model,
        problems_file,
        tmp_path / "ours",
        grpo={"loss_type": loss_type, "updates_per_step": 2, "epsilon": 0.1, **AS_TRL},
    )
    final = train_grpo(ours)
    stock, losses = train_stock(ours, pipeline_set, tmp_path / "stock")
    assert differences(final, stock, logged(tmp_path / "ours"), losses) == []
    start = weights(warm_model)
    changed = stock.state_dict()
    assert any(not torch.equal(tensor, changed[name]) for name, tensor in start.items())  # something was learnt from


@pytest.mark.slow
def test_two_processes_give_the_stock_trainers_losses_and_weights_bit_for_bit(warm_model, problems_file, tmp_path):
    ours = recipe(
        warm_model,
        problems_file,
        tmp_path / "run",
        judge={"workers": 1},
        grpo={"per_device_train_batch_size": 6, "updates_per_step": 2, "max_steps": 2, "epsilon": 0.1, **AS_TRL},
    )
    file = tmp_path / "recipe.json"
    file.write_text(ours.model_dump_json())
    program = Path(__file__).with_name("stock_trainer.py")
    ends_well(torchrun(program, str(file), str(tmp_path / "result.json")))
    found = json.loads((tmp_path / "result.json").read_text())
    assert found == {"processes": 2, "differ": {loss_type: [] for loss_type in LOSSES}}


@pytest.mark.slow
def test_processes_whose_repacked_micro_batches_differ_in_rows_learn_what_unpacked_ones_do(
    warm_model, problems_file, tmp_path
):
    ends = {}
    for name, savings in (("packed", {}), ("plain", {"skip_zero_signal": False, "pack_micro_batches": False})):
        section = {"per_device_train_batch_size": 6, "max_steps": 2, **savings}
        shaped = {"overlong_buffer": 18}  # lengths differ, so there is something to learn whatever passes
        ours = recipe(
            warm_model, problems_file, tmp_path / name, judge={"workers": 1}, reward=shaped, grpo=section, seed=1
        )
        ends_well(launch(ours))
        ends[name] = weights(tmp_path / name / "final")
    lines = [json.loads(line) for line in (tmp_path / "packed" / "metrics.jsonl").read_text().splitlines()]
    assert any(line["skipped_rollouts"] > 0 and line["grad_norm"] > 0 for line in lines)
    for name, tensor in ends["plain"].items():
        torch.testing.assert_close(ends["packed"][name], tensor, atol=1e-4, rtol=0)


def test_another_trl_is_refused_at_import_by_the_name_of_what_changed(monkeypatch):
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda self, inputs: None)
    with pytest.raises(ImportError, match=r"GRPOTrainer\._calculate_rewards has parameters \['self', 'inputs'\]"):
        check_trl()


def test_every_step_spends_its_budget_exactly_and_records_every_rollout(warm_model, problems_file, tmp_path):
    out = tmp_path / "run"
    run = recipe(
        warm_model,
        problems_file,
        out,
        budget={"policy": "knapsack", "estimator": "beta", "low": 2, "high": 12, "cost": "time", "hardware": "CPU"},
        curriculum={
            "measure_rollouts": 4,
            "keep_easy": 0.34,
            "phases": [{"steps": 2, "problems": 12}, {"steps": 1, "problems": 6}],
        },
    )
    final = train_grpo(run)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(0 <= line["budget/moved_by_cost"] < 1 for line in lines)
    timed = [line for line in lines if "budget/planned_s" in line]  # lengths are known from the first visit on
    assert timed and all(line["budget/planned_s"] > 0 and line["budget/planned_batch"] >= 1 for line in timed)
    assert all(0 < line["budget/value_kept"] <= 1 + 1e-9 for line in timed)
    sizes = set()
    for step in (1, 2, 3):
        rows = pq.read_table(out / "rollouts" / "stage1" / f"step-{step:06d}.parquet").to_pylist()
        assert len(rows) == PROBLEMS * GROUP
        for row in rows:
            group = [r for r in rows if r["group"] == row["group"]]
            assert len(group) == row["n_allocated"] >= 2
            assert {r["problem_id"] for r in group} == {row["problem_id"]}
            assert (row["reward"] == 1.0) == (row["verdict"] == "AC") == (row["passed"] == row["tests"])
            if len({r["reward"] for r in group}) == 1:
                assert row["advantage"] == 0.0
        sizes |= {row["n_allocated"] for row in rows}
    assert len(sizes) > 1  # the knapsack did make unequal groups
    state = read_state(final)
    assert [len(subset) for subset in state["schedule"]["subsets"]] == [12, 6]
    AutoModelForCausalLM.from_pretrained(final)


def test_a_killed_run_resumes_as_the_same_run(warm_model, problems_file, tmp_path):
    """Resuming from the middle checkpoint gives the weights, problems and allocations of the uninterrupted run."""
    import shutil

    settings = {
        "grpo": {"save_steps": 1, "save_total_limit": 10},
        "budget": {"policy": "knapsack", "estimator": "beta", "low": 2, "high": 12},
    }
    whole = train_grpo(recipe(warm_model, problems_file, tmp_path / "whole", **settings))
    # what a kill after the first step leaves: its checkpoint, and the start of a later one
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut, ignore=shutil.ignore_patterns("final", "checkpoint-[23]"))
    (cut / ".incomplete" / "checkpoint-2").mkdir(parents=True)
    (cut / "checkpoint-3").mkdir()  # without our state it does not count as a checkpoint
    assert [step for step, _ in complete_checkpoints(cut)] == [1]
    resumed = train_grpo(recipe(warm_model, problems_file, cut, **settings))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    for step in (2, 3):
        first, second = (
            pq.read_table(folder / "rollouts" / "stage1" / f"step-{step:06d}.parquet").to_pylist()
            for folder in (tmp_path / "whole", cut)
        )
        assert first == second
    steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    assert read_state(whole) == read_state(resumed)


def test_pass_rates_measured_by_curation_open_the_history_where_the_recipe_asks(problems_file, pipeline_set, tmp_path):
    tagged = {p.id: p.model_copy(update={"tags": ["pass-rate:0.250"]}) for p in pipeline_set[:2]}
    tagged |= {p.id: p for p in pipeline_set[2:]}
    run = recipe(tmp_path, problems_file, tmp_path, budget={**BETA, "prior_strength": 4})
    rates = success_rates(run, tagged)
    known = [rates.posterior(key) for key in tagged]
    assert known[0] == known[1] == Posterior(1.5, 3.5) and not any(known[2:])
    assert rates.window(pipeline_set[0].id) is None
    assert success_rates(recipe(tmp_path, problems_file, tmp_path), tagged).posterior(pipeline_set[0].id) is None
    with pytest.raises(RecipeError, match=r"prior_strength: no problem of .* has a pass rate measured by curation"):
        success_rates(run, {p.id: p for p in pipeline_set[2:]})
    with pytest.raises(ValueError, match=r"budget\.prior_strength is for policy knapsack with estimator beta"):
        recipe(tmp_path, problems_file, tmp_path, budget={"prior_strength": 4})


def test_solved_problems_retire_from_a_run_and_are_counted(warm_model, problems_file, tmp_path):
    out = tmp_path / "run"
    run = recipe(
        warm_model, problems_file, out, curriculum={"measure_rollouts": 4, "retire": {"above": 0.3, "min_rollouts": 3}}
    )
    train_grpo(run)
    measured = json.loads((out / "pre_grpo.json").read_text())
    solved = {key for key, group in measured.items() if any(group)}  # one pass of four has a posterior mean of a third
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["curriculum/retired"] == len(solved) > 0
    rows = pq.read_table(out / "rollouts" / "stage1" / "step-000001.parquet").to_pylist()
    assert not {row["problem_id"] for row in rows} & solved


def test_a_run_is_not_continued_with_other_data_another_seed_or_other_steps(warm_model, problems_file, tmp_path):
    first = recipe(warm_model, problems_file, tmp_path / "run", grpo={"save_steps": 1, "max_steps": 1})
    final = train_grpo(first)
    for file in final.iterdir():
        file.unlink()
    final.rmdir()
    with pytest.raises(RecipeError, match="seed"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "run", seed=5))
    two = recipe(warm_model, problems_file, tmp_path / "two", grpo={"save_steps": 1, "max_steps": 2, **SMALL})
    shutil.rmtree(train_grpo(two))
    with pytest.raises(RecipeError, match=r"two: 2 steps were made, this recipe makes 1; ask for at least"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "two", grpo={"max_steps": 1, **SMALL}))
    with pytest.raises(RecipeError, match=r"1 updates made 1 step\(s\), this recipe makes 2 a step"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "run", grpo={"updates_per_step": 2}))


def test_the_time_of_a_step_is_of_all_its_updates_and_no_card_is_written_that_knows_nothing(
    warm_model, problems_file, tmp_path
):
    train_grpo(recipe(warm_model, problems_file, tmp_path / "run", grpo={"updates_per_step": 2, "max_steps": 1}))
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    parts = sum(value for name, value in line.items() if name.startswith("time/"))
    assert line["step_time"] == pytest.approx(parts)
    assert line["tokens_per_second"] * line["step_time"] == pytest.approx(line["num_tokens"])
    assert not (tmp_path / "run" / "README.md").exists()


def test_a_resumed_run_has_the_learning_rate_of_its_recipe(warm_model, problems_file, tmp_path):
    few = {"problems_per_step": 3, "max_completion_length": 16, "save_steps": 1, "max_steps": 2, "warmup_steps": 4}
    out = tmp_path / "run"
    train_grpo(recipe(warm_model, problems_file, out, grpo={**few, "learning_rate": 1e-3}))
    rates = [json.loads(line)["learning_rate"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([0, 1e-3 / 4])
    for later in ("final", "checkpoint-2"):
        shutil.rmtree(out / later)
    with (out / "metrics.jsonl").open("r+b") as file:
        file.write(b"#")  # a line that is damaged takes no other with it
    with pytest.raises(RecipeError, match=r"holds a run with grpo\.weight_decay 0\.0, this recipe has 0\.5"):
        train_grpo(recipe(warm_model, problems_file, out, grpo={**few, "weight_decay": 0.5}))
    train_grpo(recipe(warm_model, problems_file, out, grpo={**few, "learning_rate": 4e-5}))
    (line,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert line["step"] == 2 and line["learning_rate"] == pytest.approx(1e-5)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_whose_bytes_are_others_is_named(trained_once, tmp_path, name):
    out = Path(shutil.copytree(Path(trained_once.output_dir), tmp_path / "run"))
    file = out / "checkpoint-1" / name
    file.write_bytes(b"\xff" * file.stat().st_size)
    run = trained_once.model_copy(update={"output_dir": str(out)})
    with pytest.raises(
        RecipeError, match=r"checkpoint-1: cannot be read \(.+; if it is damaged, move it away, and the"
    ):
        train_grpo(run)


def test_fewer_problems_than_the_caps_allow_are_refused_before_the_first_step(warm_model, problems_file, tmp_path):
    values = {"budget": {"policy": "knapsack", "high": 5}, "data": {"problems": str(problems_file), "limit": 3}}
    run = recipe(warm_model, problems_file, tmp_path / "run", **values)
    with pytest.raises(RecipeError, match=r"problems\.jsonl: 3 problem\(s\) take at most 3 x budget\.high 5 = 15 of"):
        train_grpo(run)


def test_files_of_steps_that_are_sampled_again_or_no_more_go_on_resume(tmp_path):
    for step in (1, 2, 10):
        (tmp_path / f"step-{step:06d}.parquet").touch()
    drop_records(tmp_path, beyond=2)
    drop_records(tmp_path / "not there", beyond=2)
    assert [step for step, _ in record_files(tmp_path)] == [1, 2]


@pytest.fixture(scope="module")
def trained_once(warm_model, problems_file, tmp_path_factory) -> GRPORecipe:
    few = {"problems_per_step": 3, "max_completion_length": 16, "save_steps": 1, "max_steps": 2}
    run = recipe(warm_model, problems_file, tmp_path_factory.mktemp("once") / "run", grpo=few)
    shutil.rmtree(train_grpo(run))
    shutil.rmtree(Path(run.output_dir) / "checkpoint-2")
    return run


def test_an_unknown_trl_field_is_refused_before_anything_is_loaded(problems_file, tmp_path):
    run = recipe(tmp_path / "no-model", problems_file, tmp_path / "run", grpo={"extra": {"lerning_rate": 1}})
    with pytest.raises(RecipeError, match=r"grpo\.extra\.lerning_rate"):
        train_grpo(run)


def test_a_step_that_skips_nearly_all_rollouts_says_no_entropy(tiny_model, warm_model, problems_file, tmp_path):
    for model, name in ((tiny_model, "knows nothing"), (warm_model, "knows something")):
        train_grpo(recipe(model, problems_file, tmp_path / name, grpo={"max_steps": 1, "max_completion_length": 16}))
    (nothing,), (something,) = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("knows nothing", "knows something")
    )
    assert nothing["skipped_rollouts"] > 0.9 and nothing.get("entropy") is None
    assert something["skipped_rollouts"] < 0.9 and something["entropy"] > 0
