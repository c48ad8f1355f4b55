"""Low-rank adapters: put on by recipe, kept in checkpoints beside the merged model, merged for engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from safetensors.torch import load_file
from transformers import Trainer

from rlvr.config import RecipeError
from rlvr.config.lora import LoRASection
from rlvr.moe.layout import expert_blocks

ADAPTER = "adapter"  # folder of a checkpoint
_NAME = "default"  # PEFT's for the only adapter


def lora_config(model: Any, section: LoRASection | None) -> Any:
    """Returns PEFT's configuration for `model`, None without a section; RecipeError names the layer that cannot be."""
    if section is None:
        return None
    from peft import LoraConfig

    if expert_blocks(model):
        raise RecipeError("lora: not supported for a mixture of experts; leave `lora` out")
    modules = dict(model.named_modules())
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tied = ends[1] is not None and ends[0].weight is ends[1].weight
    targets = [] if section.target_modules == "all-linear" else section.target_modules
    linear = sorted({name.rpartition(".")[2] for name, part in modules.items() if isinstance(part, torch.nn.Linear)})
    for key, names in (("target_modules", targets), ("modules_to_save", section.modules_to_save)):
        for name in names:
            found = [path for path in modules if _named(path, name)]
            if not found:
                known = ", ".join(linear)
                raise RecipeError(f"lora.{key}: the model has no layer {name}; its linear layers are {known}")
            at_an_end = any(modules[path] is end for path in found for end in ends)
            if key == "target_modules" and at_an_end:
                raise RecipeError(
                    f"lora.target_modules: {name} holds the embeddings or the output head, which the loss reads"
                    " directly; train it whole under lora.modules_to_save"
                )
            if key == "modules_to_save" and at_an_end and tied:
                raise RecipeError(
                    f"lora.modules_to_save: {name} is one tensor with the other end of the model, and an export could"
                    " not hold two; leave it out"
                )
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.target_modules,
        # whole paths, since PEFT would take every layer whose name ends so: norm, and post_attention_layernorm too
        modules_to_save=[path for path in modules for name in section.modules_to_save if _named(path, name)] or None,
    )


def check_adapter(checkpoint: Path | None, section: LoRASection | None) -> None:
    """Raises RecipeError where a checkpoint to be continued holds another adapter than the recipe's."""
    if checkpoint is None:
        return
    path = checkpoint / ADAPTER / "adapter_config.json"
    if path.is_file() != (section is not None):
        held, wanted = ("an adapter", "no lora") if section is None else ("no adapter", "lora")
        raise RecipeError(
            f"{checkpoint}: holds {held}, this recipe has {wanted};"
            " continue with the same, or choose another output_dir"
        )
    if section is None:
        return
    kept = json.loads(path.read_text())
    asked: dict[str, tuple[Any, Any]] = {
        "rank": (kept["r"], section.rank),
        "alpha": (kept["lora_alpha"], section.alpha),
    }
    paths, names = kept["modules_to_save"] or [], section.modules_to_save
    if not all(any(_named(p, n) for p in paths) for n in names) or not all(
        any(_named(p, n) for n in names) for p in paths
    ):
        asked["modules_to_save"] = (paths, names)
    if section.target_modules != "all-linear":
        asked["target_modules"] = (sorted(kept["target_modules"]), sorted(section.target_modules))
    for name, (before, now) in asked.items():
        if before != now:
            raise RecipeError(
                f"{checkpoint}: was trained with lora.{name} {before}, this recipe has {now};"
                " continue with the same, or choose another output_dir"
            )


def _named(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


@torch.no_grad()
def merged_tensors(policy: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the tensors of a PEFT model as the plain model has them, adapter merged, under Hugging Face names.

    The policy's own weights are not touched: adding a product in place and subtracting it again would leave its
    rounding behind in them, update after update. Sums are made in float32, whatever the weights' type.
    """
    plain = policy.get_base_model()
    layers = {name: part for name, part in plain.named_modules() if hasattr(part, "get_delta_weight")}
    for key, tensor in plain.state_dict().items():
        owner, _, part = key.rpartition(".base_layer.")
        if owner in layers and part == "weight":
            delta = layers[owner].get_delta_weight(_NAME)
            yield f"{owner}.weight", (tensor.float() + delta.float()).to(tensor.dtype)
        elif owner:
            yield f"{owner}.{part}", tensor
        elif f".modules_to_save.{_NAME}." in key:
            yield key.replace(f".modules_to_save.{_NAME}.", "."), tensor
        elif ".original_module." not in key and f".{policy.prefix}" not in key:
            yield key, tensor


class KeepsAdapter(Trainer):
    """A Trainer whose checkpoints of a PEFT model are the merged model in plain format, with the adapter in a folder.

    Runs continue from the adapter: what is merged is rounded, and cannot be taken apart again.
    """

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        policy: Any = self.accelerator.unwrap_model(self.model)
        if not is_peft_model(policy):
            return super()._save(output_dir, state_dict)
        folder = Path(output_dir if output_dir is not None else str(self.args.output_dir))
        policy.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
        policy.get_base_model().save_pretrained(folder, state_dict=dict(merged_tensors(policy)))
        tokenizer: Any = self.processing_class
        tokenizer.save_pretrained(folder)
        torch.save(self.args, folder / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        policy: Any = self.model if model is None else model
        if not is_peft_model(policy):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        from peft import set_peft_model_state_dict

        path = Path(resume_from_checkpoint) / ADAPTER / "adapter_model.safetensors"
        found: Any = set_peft_model_state_dict(policy, load_file(path), adapter_name=_NAME)
        missing = [key for key in found.missing_keys if policy.prefix in key or ".modules_to_save." in key]
        if missing or found.unexpected_keys:
            raise RecipeError(
                f"{path}: does not fit lora.target_modules and modules_to_save of this recipe"
                f" ({(missing or found.unexpected_keys)[0]}); continue with the same, or choose another output_dir"
            )
