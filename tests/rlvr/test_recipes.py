"""Recipes: every mistake is one clear line before a model is loaded."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from rlvr.config import (
    EvaluationRecipe,
    GRPORecipe,
    QuickstartRecipe,
    RecipeError,
    SFTRecipe,
    load_recipe,
    require_folder,
    require_own_folder,
    write_resolved,
)
from rlvr.config.inputs import extra_faults, missing_inputs
from rlvr.config.quickstart import MODELS
from rlvr.config.sections import LRSchedule, ModelSection
from rlvr.sole_use import sole_use

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = ["name=x", "model.name_or_path=m", "data.problems=p"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.learning_rat=1", "grpo.learning_rat: unknown key; did you mean learning_rate?"),
        ("modle.dtype=float32", "override 'modle.dtype=float32': modle: unknown key; did you mean model?"),
        (".=3", "override '.=3': expected key=value"),
        ("grpo.max_steps=true", "override 'grpo.max_steps=true': grpo: max_steps: a number is wanted (got true)"),
        ("grpo.lr_scheduler_type=cosin", "grpo.lr_scheduler_type: Input should be 'linear', 'cosine'"),
        ("model.attn_implementation=spda", "unknown attention 'spda'; did you mean sdpa?"),
        ("grpo.vllm_url=localhost:8000", "grpo.vllm_url: an address as in http://127.0.0.1:8000 is wanted"),
        ("stage=../x", "stage: a name for a folder, without / (got '../x')"),
        ("prompt.style=plain prompt.system=hi", "with style plain put it into prompt.template"),
        ("grpo.num_generations=many", "grpo.num_generations: Input should be a valid integer"),
        ("grpo.num_generations=1", "greater than or equal to 2"),
        ("grpo.problems_per_step=3 grpo.per_device_train_batch_size=7", "3 x 8 = 24 rollouts do not divide"),
        ("grpo.updates_per_step=3", "updates_per_step (3) must divide"),
        ("grpo.max_length=100 grpo.max_completion_length=100", "must be below grpo.max_length"),
        ("budget.policy=knapsack grpo.num_generations=8 budget.high=4", "must lie between"),
        ("budget.low=1", "budget.low"),
        ("prompt.template=hello", "{statement}"),
        ("prompt.language=brainfuck", "prompt.language: unknown language 'brainfuck': known are"),
        ("curriculum.phases=[{problems: 5, steps: 1}, {problems: 9, steps: 1}]", "sizes must not grow"),
        ("seed", "expected key=value"),
        ("reward.overlong_buffer=512", "reward.overlong_buffer"),
        ("grpo.learning_rate=inf", "grpo.learning_rate: Input should be a finite number"),
        ("seed=true", "seed: a number is wanted (got true)"),
        ("name=../x", "override 'name=../x': name: a name for a folder, without / (got '../x')"),
        ("grpo=5", "grpo: a section with keys of its own is wanted (got 5)"),
        ("seed=abc", "override 'seed=abc': seed:"),
        ("grpo.advantage_clip=-1", "grpo.advantage_clip: a number above 0, auto or null is wanted (got -1)"),
    ],
)
def test_a_mistake_is_named_with_its_key(override, message):
    overrides = [override] if "[" in override else override.split(" ")
    with pytest.raises(RecipeError) as error:
        load_recipe(GRPORecipe, None, [*BASE, *overrides])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage1.grpo.problems_per_step=15", "stage1: grpo.problems_per_step x grpo.num_generations = 15 x 8 = 120"),
        ("stage2.curriculum.plateau={window: 9}", "stage2: curriculum.phases: phase 1 has 15 steps, fewer than"),
        ("curation.pipelines.stag1=3", "curation.pipelines.stag1: unknown key; did you mean stage1?"),
        ("evaluation.k=[9]", "evaluation.k: pass@9 needs evaluation.n >= 9"),
        ("model.heads=3", "model: heads 3: hidden 128 must be an even multiple of it, such as 126"),
        ("model={family: glm4_moe, top_k: 9}", "model: top_k 9: at most as many as experts (8)"),
    ],
)
def test_the_quickstart_refuses_what_a_later_stage_cannot_do_before_the_first(override, message):
    with pytest.raises(RecipeError) as error:
        load_recipe(QuickstartRecipe, CONFIGS / "quickstart.yaml", [override])
    (line,) = str(error.value).splitlines()
    assert message in line


def test_a_phase_too_small_for_the_caps_of_its_rollouts_is_refused():
    phases = "curriculum.phases=[{problems: 99, steps: 1}, {problems: 3, steps: 1}]"
    with pytest.raises(RecipeError) as error:
        load_recipe(GRPORecipe, None, [*BASE, "budget.policy=knapsack", "budget.high=9", phases])
    assert (
        "curriculum.phases: phase 2: 3 problem(s) take at most 3 x budget.high 9 = 27 of a step's 256 rollouts;"
        " raise budget.high to 86"
    ) in str(error.value)


def test_the_learning_rate_schedules_are_those_of_transformers_that_need_no_evaluation():
    from transformers.trainer_utils import SchedulerType

    assert set(get_args(LRSchedule)) == {kind.value for kind in SchedulerType} - {"reduce_lr_on_plateau", "greedy"}


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ({"learning_rate": 1.0}, "grpo.extra.learning_rate: follows from grpo.learning_rate; set that"),
        ({"steps_per_generation": 2}, "grpo.extra.steps_per_generation: follows from grpo.problems_per_step"),
        ({"seed": 2}, "grpo.extra.seed: follows from seed; set that"),
        (
            {"hub_token": "secret"},
            "grpo.extra.hub_token: runs are not uploaded; hf upload OWNER/NAME RUN/final does it",
        ),
        ({"vllm_gpu_memory_utilisation": 1}, "has no such field; did you mean vllm_gpu_memory_utilization?"),
    ],
)
def test_extra_holds_only_fields_of_trl_that_the_recipe_does_not_set(extra, line):
    recipe = load_recipe(GRPORecipe, None, BASE)
    (fault,) = extra_faults(recipe.model_copy(update={"grpo": recipe.grpo.model_copy(update={"extra": extra})}))
    assert line in fault


def test_a_value_that_trl_refuses_is_one_line():
    from rlvr.training.grpo import grpo_config

    with pytest.raises(RecipeError, match=r'^grpo\.extra \{"optim": "foo"\}: TRL refuses it: foo is not a valid Optim'):
        grpo_config(load_recipe(GRPORecipe, None, [*BASE, "grpo.extra={optim: foo}"]), 1)


@pytest.mark.parametrize(
    "fault", ["no weights", "cut short", "no tokenizer", "other shapes", "a layer more", "flash_attention_2"]
)
def test_a_model_that_cannot_be_loaded_is_one_line(tiny_model, tmp_path, fault):
    from rlvr.training.loading import load_policy

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights, config = folder / "model.safetensors", folder / "config.json"
    attention = None
    if fault == "no weights":
        weights.unlink()
    elif fault == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif fault == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif fault == "other shapes":
        config.write_text(config.read_text().replace('"vocab_size": ', '"vocab_size": 1'))
    elif fault == "a layer more":
        config.write_text(re.sub(r'"num_hidden_layers": \d', '"num_hidden_layers": 9', config.read_text()))
    elif importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("flash-attn is installed")
    else:
        attention = fault
    with pytest.raises(
        RecipeError, match=r"^model .*/model: (cannot be loaded[^\n]*: |\d+ of the weights|model.embed)[^\n]+$"
    ):
        load_policy(ModelSection(name_or_path=str(folder), attn_implementation=attention))


def test_curation_in_the_quickstart_has_its_seed_unless_it_names_its_own(tmp_path):
    recipe = load_recipe(QuickstartRecipe, CONFIGS / "quickstart.yaml", ["seed=3"])
    assert recipe.curation.seed == 3
    again = load_recipe(QuickstartRecipe, write_resolved(recipe, tmp_path))
    assert again == recipe
    own = load_recipe(QuickstartRecipe, CONFIGS / "quickstart.yaml", ["seed=3", "curation.seed=5"])
    assert (own.seed, own.curation.seed) == (3, 5)


def test_a_missing_required_key_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"model: required key is missing"):
        load_recipe(GRPORecipe, None, ["name=x", "data.problems=p"])
    with pytest.raises(RecipeError, match=r"nope\.yaml: no such recipe file"):
        load_recipe(GRPORecipe, tmp_path / "nope.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\nb")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(GRPORecipe, broken)


def test_a_section_that_is_off_is_switched_on_by_one_of_its_keys(tmp_path):
    off = tmp_path / "recipe.yaml"
    off.write_text("name: a\nmodel: {name_or_path: m}\ndata: d\nlora: null\n")
    recipe = load_recipe(SFTRecipe, off, ["lora.rank=4"])
    assert recipe.lora is not None and recipe.lora.rank == 4


def test_a_folder_that_cannot_be_made_is_refused_by_its_key():
    with pytest.raises(RecipeError, match=r"output_dir: .* in /proc"):
        require_folder("output_dir", "/proc/foo/run")


def test_overrides_win_and_numbers_in_scientific_notation_are_numbers():
    recipe = load_recipe(GRPORecipe, None, [*BASE, "grpo.learning_rate=3e-5", "--grpo.num_generations=4"])
    assert recipe.grpo.learning_rate == 3e-5 and recipe.grpo.num_generations == 4


@pytest.mark.parametrize(
    ("overrides", "bound"),
    [
        ([], None),
        (["budget.policy=knapsack"], 5.0),
        (["budget.policy=knapsack", "grpo.advantage_clip=3"], 3.0),
        (["budget.policy=knapsack", "grpo.advantage_clip=null"], None),
        (["budget.policy=dynamic_sampling", "grpo.advantage_clip=2"], 2.0),
    ],
)
def test_advantages_are_clipped_with_knapsack_unless_the_recipe_says_otherwise(overrides, bound):
    assert load_recipe(GRPORecipe, None, [*BASE, *overrides]).advantage_clip == bound


def test_the_arithmetic_of_a_batch():
    recipe = load_recipe(GRPORecipe, None, [*BASE, "grpo.problems_per_step=16", "grpo.updates_per_step=2"])
    plan = recipe.arithmetic(2)
    assert (plan.rollouts_per_step, plan.micro_batches, plan.gradient_accumulation_steps) == (128, 8, 4)


def _recipe_class(path: Path):
    return {"quickstart": QuickstartRecipe, "sft": SFTRecipe, "rl": GRPORecipe, "evaluation": EvaluationRecipe}.get(
        path.parent.name if path.parent.name != "configs" else path.stem.split("-")[0]
    )


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_shipped_recipe_is_valid(path):
    recipe = _recipe_class(path)
    if recipe is not None:
        load_recipe(recipe, path)


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("rl/*.yaml")) + sorted(CONFIGS.glob("sft/*.yaml")), ids=lambda p: p.stem
)
def test_every_training_recipe_names_hardware_memory_and_whether_it_was_run(path):
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for wanted in ("Hardware: ", "Memory", "Run: "):
        assert any(wanted in line for line in comments), wanted


def test_the_recipes_of_drive_hold_the_papers_values():
    """DRIVE, section 3 and table 5; what the paper leaves open is not looked at."""

    def loaded(kind, name):
        return load_recipe(kind, CONFIGS / ("sft" if kind is SFTRecipe else "rl") / f"drive-{name}.yaml")

    sft = loaded(SFTRecipe, "qwen2.5-32b")
    batch = sft.sft.per_device_train_batch_size * sft.sft.gradient_accumulation_steps * 256  # GPUs
    assert (sft.model.name_or_path, sft.sft.max_length, batch) == ("Qwen/Qwen2.5-32B-Instruct", 32768, 512)
    assert (sft.sft.num_train_epochs, sft.sft.learning_rate) == (3, 1e-5)
    assert sft.arena is not None and (sft.arena.teach, sft.arena.hard_repeat) == ("hard_ids", 2)

    one, two = (loaded(GRPORecipe, f"qwen2.5-32b-stage{n}") for n in (1, 2))
    assert (one.grpo.num_generations, one.grpo.max_length, one.steps) == (8, 24 * 1024, 32)
    assert 281 <= one.grpo.problems_per_step <= 288 and one.budget.policy == "uniform"
    assert (two.grpo.num_generations, two.grpo.max_length, two.steps) == (64, 32 * 1024, 128)
    assert [(phase.problems, phase.steps) for phase in two.curriculum.phases] == [(72, 64), (50, 32), (25, 32)]
    assert two.budget.high >= 256 and two.curriculum.measure_rollouts > 0

    one, two = (loaded(GRPORecipe, f"moe-30b-a3b-stage{n}") for n in (1, 2))
    assert (one.grpo.problems_per_step, one.grpo.num_generations, one.grpo.max_length) == (512, 16, 32 * 1024)
    assert one.steps == 30
    assert (two.grpo.problems_per_step, two.grpo.num_generations, two.grpo.max_length) == (128, 64, 64 * 1024)
    assert [phase.steps for phase in two.curriculum.phases] == [20, 20, 10]


def test_a_window_beyond_the_models_positions_is_missed_at_once(tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 256}')
    values = [
        "name=x",
        f"model.name_or_path={tmp_path}",
        "data.problems=builtin:contest",
        "grpo.max_completion_length=64",
    ]
    assert missing_inputs(load_recipe(GRPORecipe, None, [*values, "grpo.max_length=256"])) == []
    (line,) = missing_inputs(load_recipe(GRPORecipe, None, [*values, "grpo.max_length=300"]))
    assert line.startswith(f"grpo.max_length 300: {tmp_path} has 256 positions")
    (line,) = missing_inputs(load_recipe(GRPORecipe, None, [*values, "grpo.max_completion_length=300"]))
    assert line.startswith(f"grpo.max_completion_length 300: {tmp_path} has 256 positions")


def test_a_folder_that_holds_something_else_is_not_written_over(tmp_path):
    train = load_recipe(GRPORecipe, None, BASE)
    require_own_folder(train, tmp_path / "not there")
    (tmp_path / "notes.txt").write_text("mine")
    require_own_folder(train, tmp_path)
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(RecipeError, match=r"holds metrics\.jsonl but no config\.resolved\.yaml"):
        require_own_folder(train, tmp_path)
    write_resolved(train, tmp_path)
    require_own_folder(train, tmp_path)
    sft = load_recipe(SFTRecipe, None, ["name=x", "model.name_or_path=m", "data=d"])
    with pytest.raises(RecipeError, match=r"its config\.resolved\.yaml is of a run of `rlvr train`; choose another"):
        require_own_folder(sft, tmp_path)
    (tmp_path / "config.resolved.yaml").write_text("mine: 1")
    with pytest.raises(RecipeError, match=r"its config\.resolved\.yaml is of something else; choose another"):
        require_own_folder(sft, tmp_path)


def test_help_of_every_verb_needs_no_training_stack():
    code = (
        "import sys\n"
        "from rlvr.cli import cli\n"
        "for verb in [[], *[[name] for name in cli.commands]]:\n"
        "    cli.main([*verb, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'trl', 'vllm', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout


def test_what_a_recipe_reads_is_missed_at_once_and_only_named_by_a_dry_run(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: x\nmodel: {{name_or_path: {tmp_path}/model}}\ndata: {{problems: {tmp_path}/p.parquet}}\n")
    command = [sys.executable, "-m", "rlvr.cli", "train", "--config", str(recipe), f"output_dir={tmp_path}/run"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and not (tmp_path / "run").exists()
    assert [line.partition(":")[2].strip() for line in refused.stderr.splitlines()] == [
        f"model {tmp_path}/model: no such folder; give a folder, a hub id (owner/name) or one of smollm2-135m,"
        " qwen2.5-coder-0.5b",
        f"{tmp_path}/p.parquet: no such file or folder",
    ]
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert dry.returncode == 0 and dry.stderr.count("# not there yet:") == 2


def test_a_recipe_of_another_verb_a_file_for_a_folder_and_an_unknown_suite_are_one_line_each(tmp_path):
    with pytest.raises(RecipeError, match="a recipe of `rlvr train`, which this verb does not read"):
        load_recipe(SFTRecipe, CONFIGS / "rl" / "smollm2-135m-mbpp.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match=f"output_dir: {tmp_path}/file is a file; name a folder"):
        require_folder("output_dir", tmp_path / "file" / "run")
    require_folder("output_dir", tmp_path / "to" / "come")
    recipe = load_recipe(GRPORecipe, None, [*BASE, "evaluation.suite=humanevil"])
    assert any("did you mean humaneval" in line for line in missing_inputs(recipe))


def test_a_folder_has_one_run_at_a_time_and_a_killed_one_keeps_nobody_out(tmp_path):
    run = tmp_path / "run"
    hold = "import time\nfrom rlvr.sole_use import sole_use\n"
    hold += f"with sole_use({str(run)!r}):\n    print('in', flush=True)\n    time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(RecipeError, match=f"{run}: process {other.pid} is running here"), sole_use(run):
            pass
        other.kill()
    with sole_use(run), pytest.raises(RecipeError, match="is running here"), sole_use(run):
        pass
    assert not any(run.iterdir())
    with sole_use(tmp_path / "refused"):
        pass
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(("model", "family"), [("tiny-moe", "qwen3_moe"), ("tiny-moe-glm4", "glm4_moe")])
def test_the_quickstarts_with_experts_differ_in_family_and_folder_alone(model: str, family: str) -> None:
    recipe = load_recipe(QuickstartRecipe, CONFIGS / "quickstart.yaml", MODELS[model])
    assert recipe.model.family == family and recipe.moe.replay == "r2" and recipe.stage2.grpo.updates_per_step == 2
    assert MODELS[model] != MODELS["tiny"] == () and recipe.output_dir != "runs/quickstart"
