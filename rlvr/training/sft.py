"""SFT from a recipe, on TRL's SFTTrainer: loss on the completion only, resumable, checkpoints published whole."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from rlvr.config import RecipeError, SFTRecipe, require_own_folder, require_same_run, write_resolved
from rlvr.config.inputs import extra_faults, require_adapter
from rlvr.fingerprints import write_texts
from rlvr.moe.training import PolicyRouting, supervised_routing
from rlvr.provenance import name_trackers, read_environment, write_environment
from rlvr.rollouts.prompts import chat_text
from rlvr.rollouts.prompts import completion_text as said
from rlvr.training.callbacks import EndsWhereNothingIsLeft, MetricsFile, NothingLeft, ProgressBar
from rlvr.training.checkpoints import finished_run, latest_checkpoint, name_cpu_plainly, read_state
from rlvr.training.demonstrations import load_demonstrations
from rlvr.training.faults import StopOnSignal
from rlvr.training.loading import load_policy, taken_by_trl, trl_config
from rlvr.training.lora import KeepsAdapter, check_adapter, lora_config
from rlvr.training.publishing import PublishesWhole
from rlvr.training.restore import RestoresExperts


class AtomicSFTTrainer(PublishesWhole, KeepsAdapter, RestoresExperts, SFTTrainer):
    """SFTTrainer whose checkpoints appear in one rename, and which counts and balances the load of experts."""

    routing: PolicyRouting | None = None  # of a mixture of experts

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        if self.routing is not None:
            self.routing.session.flush()
        return super().compute_loss(*arguments, **options)

    def own_state(self) -> dict[str, Any]:
        routing = {} if self.routing is None else self.routing.settled_state()
        return {"step": self.state.global_step, "stage": "sft", "num_tokens": self._total_train_tokens, **routing}


def train_sft(recipe: SFTRecipe) -> Path:
    """Trains on demonstrations and returns the folder of the final checkpoint (plain Hugging Face format).

    Continues from the newest complete checkpoint; a finished run is returned as it is. Raises RecipeError where the
    folder holds a run of another recipe, Preempted when a signal ended it.
    """
    folder = Path(recipe.output_dir)
    require_own_folder(recipe, folder)
    if (final := finished_run(recipe, folder)) is not None:
        return final
    require_adapter(recipe)
    checkpoint = latest_checkpoint(folder)
    check_adapter(checkpoint, recipe.lora)
    if checkpoint is not None:
        kept = [f"sft.{name}" for name in ("weight_decay", "adam_beta1", "adam_beta2")]  # by the optimizer's state
        require_same_run(recipe, folder, of=["seed", "model", "data", "limit", "arena", "prompt", *kept])
    section = recipe.sft
    if unknown := extra_faults(recipe):
        raise RecipeError(unknown[0])
    set_seed(recipe.seed)
    name_trackers(recipe.tracking.project, recipe.tracking.entity)
    dataset = load_demonstrations(recipe.data, recipe.limit, recipe.prompt, recipe.arena)
    values = section.model_dump(exclude={"extra", "group_by_length"})
    values.update(
        output_dir=recipe.output_dir,
        run_name=recipe.name,
        project=recipe.tracking.project,
        seed=recipe.seed,
        train_sampling_strategy="group_by_length" if section.group_by_length else "random",
        completion_only_loss=True,
        save_strategy="steps",
        report_to=list(recipe.tracking.report_to) or "none",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        log_level="error",
    )
    config = trl_config(SFTConfig, values, "sft", section.extra)
    name_cpu_plainly(config)
    batch = section.per_device_train_batch_size * section.gradient_accumulation_steps * config.world_size
    if checkpoint is not None and (earlier := read_environment(folder).get("batch", batch)) != batch:
        raise RecipeError(
            f"{folder}: holds a run in batches of {earlier} (sft.per_device_train_batch_size x"
            f" gradient_accumulation_steps x processes), this one has {batch}; continue with the same, or choose"
            " another output_dir"
        )
    model, tokenizer = load_policy(recipe.model)
    if not isinstance(dataset[0]["prompt"], str):
        chat_text(dataset[0]["prompt"], tokenizer)  # says what is wrong where it has no template
    routing = supervised_routing(model, recipe.moe)
    with taken_by_trl("sft", section.extra):
        trainer = AtomicSFTTrainer(
            model=model,
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora_config(model, recipe.lora),
        )
    trainer.routing = routing
    if trainer.accelerator.is_main_process:
        write_resolved(recipe, folder)
        write_environment(folder, seed=recipe.seed, demonstrations=len(dataset), batch=batch)
        write_texts(
            folder, ((f"demonstration {row}", "", said(prompt)) for row, prompt in enumerate(dataset["prompt"]))
        )
        length = f"{section.max_steps:,} steps" if section.max_steps > 0 else f"{section.num_train_epochs:g} epochs"
        print(f"sft: {len(dataset):,} demonstrations, {length} in batches of {batch}", flush=True)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if checkpoint is not None:
        state = read_state(checkpoint)
        trainer._total_train_tokens = state.get("num_tokens", 0)
    if routing is not None:
        if checkpoint is not None:
            routing.load_state_dict(state)
        for own in routing.callbacks(folder):
            trainer.add_callback(own)
    trainer.add_callback(MetricsFile(folder / "metrics.jsonl", "sft"))
    with contextlib.closing(ProgressBar("sft", {"loss": "loss", "mean_token_accuracy": "token accuracy"})) as bar:
        trainer.add_callback(bar)
        trainer.add_callback(EndsWhereNothingIsLeft())
        with contextlib.suppress(NothingLeft), StopOnSignal().heeded(trainer):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer.save_final(tokenizer, {"step": trainer.state.global_step, "stage": "sft"})
