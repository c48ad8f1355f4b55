"""One GRPO stage from a recipe: build, resume, train, save."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import GRPOConfig

from data_curation import Problem
from data_curation.stages.difficulty import measured_rate
from rlvr.budget import AllocationPolicy, DynamicSampling, Knapsack, SuccessRates, TimeModel, Uniform
from rlvr.config import GRPORecipe, RecipeError, require_own_folder, require_same_run, write_resolved
from rlvr.config.inputs import extra_faults, require_adapter
from rlvr.curriculum import ProblemSchedule
from rlvr.fingerprints import write_fingerprints
from rlvr.moe.facts import facts_of
from rlvr.moe.training import policy_routing, probe_tokens
from rlvr.provenance import data_fingerprint, name_trackers, read_environment, write_environment
from rlvr.rewards import ProgramGrader
from rlvr.rollouts.records import drop_records
from rlvr.serving.cost import PlannedCosts, planned_costs
from rlvr.serving.hardware import parse_hardware
from rlvr.training.callbacks import EndsEarly, MetricsFile, ProgressBar
from rlvr.training.checkpoints import finished_run, latest_checkpoint, name_cpu_plainly, read_state, require_steps
from rlvr.training.faults import StopOnSignal
from rlvr.training.grpo_trainer import GroupedGRPOTrainer
from rlvr.training.loading import (
    load_policy,
    load_training_problems,
    prompt_lengths,
    render_prompts,
    taken_by_trl,
    trl_config,
)
from rlvr.training.lora import check_adapter, lora_config
from rlvr.training.padding_free import why_padding_stays
from rlvr.training.periodic_evaluation import PeriodicEvaluation

# What the optimizer keeps in a checkpoint and would go on with, whatever the recipe says; not the learning rate.
OPTIMIZER = ("grpo.weight_decay", "grpo.adam_beta1", "grpo.adam_beta2")


def grpo_config(recipe: GRPORecipe, processes: int) -> GRPOConfig:
    """Returns TRL's configuration for a recipe; raises RecipeError naming a key of `grpo.extra` TRL does not know."""
    if unknown := extra_faults(recipe):
        raise RecipeError(unknown[0])
    try:
        arithmetic = recipe.arithmetic(processes)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    grpo = recipe.grpo
    own = {
        "problems_per_step", "updates_per_step", "max_steps", "max_length", "save_steps", "extra",
        "advantage_clip", "prompt_weighting", "skip_zero_signal", "pack_micro_batches", "padding_free", "fast_sampling",
        "sampling_threads", "geometric_rejection", "clip_cov", "clip_cov_range", "kl_cov", "kl_cov_coef",
        "vllm_url", "vllm_token_file",
    }  # fmt: skip
    values: dict[str, Any] = {name: value for name, value in grpo.model_dump().items() if name not in own}
    if grpo.use_vllm and grpo.vllm_mode == "colocate":  # else the cache must have room for all the model's positions
        values.update(vllm_max_model_length=grpo.max_length)
    if grpo.vllm_mode == "file":  # an engine of ours: TRL is told when the trainer stands
        values.update(use_vllm=False, vllm_mode="colocate")
    updates = grpo.updates_per_step * grpo.num_iterations
    values.update(
        output_dir=recipe.output_dir,
        run_name=recipe.name,
        project=recipe.tracking.project,
        seed=recipe.seed,
        max_steps=recipe.steps * updates,
        gradient_accumulation_steps=arithmetic.gradient_accumulation_steps,
        steps_per_generation=arithmetic.micro_batches,
        logging_steps=updates,
        save_strategy="steps",
        save_steps=grpo.save_steps * updates,
        report_to=list(recipe.tracking.report_to) or "none",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        shuffle_dataset=False,  # the schedule decides the order
        log_level="error",
        router_aux_loss_coef=0.0,  # TRL would take the checkpoint's; ours is moe.aux_loss_coef
    )
    return trl_config(GRPOConfig, values, "grpo", grpo.extra)


def allocation_policy(recipe: GRPORecipe, time: TimeModel | None = None) -> AllocationPolicy:
    """Returns the recipe's allocation policy; `time` is what sampling costs, for `budget.cost: time`."""
    budget = recipe.budget
    if budget.policy == "uniform":
        return Uniform()
    if budget.policy == "dynamic_sampling":
        return DynamicSampling(budget.max_rounds)
    return Knapsack(
        estimator=budget.estimator,
        low=budget.low,
        high=budget.high,
        confidence=budget.confidence,
        fallback=budget.fallback,
        cost=budget.cost,
        time=time,
    )


def sampling_time(
    recipe: GRPORecipe, model_config: Any, prompts: Mapping[str, Any], tokenizer: Any
) -> PlannedCosts | None:
    """Returns what rollouts of this model cost on the recipe's hardware by the roofline, None where time is not the
    cost.

    Raises RecipeError where the model does not fit the hardware or its size cannot be told.
    """
    budget = recipe.budget
    if budget.policy != "knapsack" or budget.cost != "time" or budget.hardware is None:
        return None
    try:
        return planned_costs(
            facts_of(model_config, name=recipe.model.name_or_path),
            parse_hardware(budget.hardware),
            prompt_lengths(prompts, tokenizer),
            completion=recipe.grpo.max_completion_length,
            rollouts=recipe.arithmetic(1).rollouts_per_step,
            skew=budget.skew,
            colocate=recipe.grpo.vllm_mode == "colocate",
        )
    except ValueError as error:
        raise RecipeError(f"budget.hardware: {error}") from None


def success_rates(recipe: GRPORecipe, problems: Mapping[str, Problem]) -> SuccessRates:
    """Returns an empty history with the recipe's estimators, and curation's pass rates as priors where it asks."""
    budget = recipe.budget
    rates = SuccessRates(window=budget.window, min_rollouts=budget.min_rollouts, half_life=budget.half_life)
    if budget.prior_strength:
        if not any(measured_rate(problem) is not None for problem in problems.values()):
            raise RecipeError(
                f"budget.prior_strength: no problem of {recipe.data.problems} has a pass rate measured by curation;"
                " set it to 0, or measure (difficulty.policy of a curation recipe)"
            )
        for key, problem in problems.items():
            measured = measured_rate(problem)
            if measured is not None:
                rates.set_prior(key, measured, budget.prior_strength)
    return rates


def train_grpo(recipe: GRPORecipe, model: Any = None, tokenizer: Any = None) -> Path:
    """Trains one stage and returns the folder of its final checkpoint (plain Hugging Face format).

    Continues from the newest complete checkpoint of `recipe.output_dir`; a finished stage is returned as it is.
    `model` and `tokenizer` replace what the recipe names, for callers that hold them already.
    """
    folder = Path(recipe.output_dir)
    require_own_folder(recipe, folder)
    if (final := finished_run(recipe, folder)) is not None:
        return final
    require_adapter(recipe)
    checkpoint = latest_checkpoint(folder)
    check_adapter(checkpoint, recipe.lora)
    config = grpo_config(recipe, int(os.environ.get("WORLD_SIZE", "1")))
    name_cpu_plainly(config)
    main = config.process_index == 0
    problems = load_training_problems(recipe.data, recipe.prompt)
    check_unchanged(folder, checkpoint, recipe, problems)
    set_seed(recipe.seed)
    name_trackers(recipe.tracking.project, recipe.tracking.entity)
    if model is None:
        model, tokenizer = load_policy(recipe.model)
    window = recipe.grpo.max_length or getattr(model.config.get_text_config(), "max_position_embeddings", None)
    room = window - recipe.grpo.max_completion_length if window else None
    prompts = render_prompts(problems, recipe.prompt, tokenizer, room)
    by_id = {problem.id: problem for problem in problems if problem.id in prompts}
    curriculum = recipe.curriculum
    schedule = ProblemSchedule(
        list(by_id),
        recipe.grpo.problems_per_step,
        curriculum.phases,
        seed=recipe.seed,
        keep_easy=curriculum.keep_easy,
        min_rate=curriculum.min_pass_rate,
        max_rate=curriculum.max_pass_rate,
        plateau=curriculum.plateau,
        retire=curriculum.retire,
    )
    for number, size in enumerate(schedule.step_sizes(), 1):
        try:
            recipe.check_room(f"phase {number}" if curriculum.phases else recipe.data.problems, size)
        except ValueError as error:
            raise RecipeError(str(error)) from None
    rates = success_rates(recipe, by_id)
    seconds = sampling_time(recipe, model.config, {key: prompts[key] for key in by_id}, tokenizer)
    updates = recipe.grpo.updates_per_step * recipe.grpo.num_iterations
    probe = probe_tokens(tokenizer, list(prompts.values()))
    routing = policy_routing(
        model, recipe.moe, updates_per_rollout=updates, probe=probe if recipe.moe.balance.kl_budget else None
    )
    if recipe.grpo.padding_free and (why := why_padding_stays(model, experts=routing is not None)):
        raise RecipeError(f"grpo.padding_free: this model has {why}; leave it false")
    if main:  # nothing is written before it is known that the recipe can be run
        drop_records(folder / "rollouts" / recipe.stage, read_state(checkpoint)["step"] if checkpoint else 0)
        write_resolved(recipe, folder)
        write_environment(folder, seed=recipe.seed, problems=len(by_id), data_fingerprint=data_fingerprint(problems))
        write_fingerprints(folder, by_id.values())
        print(f"{recipe.stage}: {recipe.arithmetic(config.world_size)}; {len(by_id)} problems", flush=True)
    with ProgramGrader(recipe.prompt, recipe.reward, recipe.judge) as grader:
        if checkpoint is not None:
            state = read_state(checkpoint)
            rates.load_state_dict(state["success_rates"])
            schedule.load_state_dict(state["schedule"])
            if routing is not None:
                routing.load_state_dict(state)
        last = recipe.steps
        if checkpoint is not None and schedule.finished(state["step"], rates):  # all that is missing is `final`
            last = state["step"]
            config.max_steps = last * updates
        # one epoch that holds every step: resuming skips batches, and no epoch boundary touches the RNG
        slots = last * recipe.grpo.problems_per_step
        dataset = Dataset.from_dict({"prompt": ["" for _ in range(slots)]})
        with taken_by_trl("grpo", recipe.grpo.extra):
            trainer = GroupedGRPOTrainer(
                recipe=recipe,
                problems=by_id,
                prompts=prompts,
                schedule=schedule,
                policy=allocation_policy(recipe, seconds),
                rates=rates,
                grader=grader,
                state_extras=routing.state_dict if routing is not None else None,
                probe=probe,
                routing=routing.session if routing is not None else None,
                model=model,
                processing_class=tokenizer,
                args=config,
                train_dataset=dataset,
                peft_config=lora_config(model, recipe.lora),
            )
        shown = {"group_pass_rate": "pass", "effective_gradient_ratio": "signal", "time/grade": "grade s"}
        trainer.metrics_file = MetricsFile(folder / "metrics.jsonl", recipe.stage, updates)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        if routing is not None:
            for own in routing.callbacks(folder):
                trainer.add_callback(own)
        trainer.add_callback(trainer.metrics_file)
        if curriculum.plateau is not None:
            trainer.add_callback(EndsEarly(lambda step: schedule.finished(step, rates), updates))
        if recipe.evaluation is not None:
            save = lambda path: trainer.save_model(str(path))  # noqa: E731
            wait = trainer.accelerator.wait_for_everyone
            trainer.add_callback(PeriodicEvaluation(recipe, tokenizer, trainer.metrics_file, save, wait, updates))
        with contextlib.closing(ProgressBar(recipe.stage, shown, updates)) as bar:
            trainer.add_callback(bar)
            with StopOnSignal(updates).heeded(trainer):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trainer.save_final(tokenizer, trainer.own_state())


def check_unchanged(folder: Path, checkpoint: Path | None, recipe: GRPORecipe, problems: list[Problem]) -> None:
    """Raises RecipeError where `folder` holds a run of another model, stage, data, seed or updates a step, or of
    another optimizer, whose settings lie in the checkpoint."""
    if checkpoint is None:
        return
    earlier = read_environment(folder)
    require_same_run(recipe, folder, of=["model", "stage", "curriculum.measure_rollouts", *OPTIMIZER])
    for name, now in (("seed", recipe.seed), ("data_fingerprint", data_fingerprint(problems))):
        if earlier.get(name, now) != now:
            raise RecipeError(
                f"{folder}: holds a run with {name} {earlier[name]}, this recipe has {now};"
                " continue with the same, or choose another output_dir"
            )
    updates, steps = int(checkpoint.name.rpartition("-")[2]), read_state(checkpoint)["step"]
    require_steps(folder, steps, recipe.steps)
    now = recipe.grpo.updates_per_step * recipe.grpo.num_iterations
    if updates != steps * now:
        raise RecipeError(
            f"{checkpoint}: its {updates} updates made {steps} step(s), this recipe makes {now} a step; continue with"
            " the same grpo.updates_per_step and num_iterations, or choose another output_dir"
        )
