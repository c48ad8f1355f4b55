"""Recipe section of low-rank adaptation (LoRA, arXiv 2106.09685), and what it cannot be joined with."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from rlvr.config.load import Strict

EXPERT_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts")
_SHARDING = ("fsdp", "fsdp_config", "deepspeed")  # of TrainingArguments


class LoRASection(Strict):
    """Trains two thin matrices beside each chosen linear layer and leaves the checkpoint's own weights as they are.

    A layer's weight becomes W + alpha / rank x B A, with B [out, rank] and A [rank, in].
    """

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)  # of what goes into A, in updates only
    target_modules: Literal["all-linear"] | list[str] = "all-linear"  # all but the output head; or names of layers
    modules_to_save: list[str] = Field(default_factory=list)  # trained whole beside the adapter

    @field_validator("target_modules")
    @classmethod
    def _some(cls, names: str | list[str]) -> str | list[str]:
        if not names:
            raise ValueError('name at least one layer, as in [q_proj, v_proj], or write "all-linear"')
        return names


def lora_faults(section: LoRASection | None, model: Path, extra: Mapping[str, Any]) -> list[str]:
    """Returns a line for each reason why this machine, launch or model cannot train the section; empty without one.

    `model`: its folder, if there is one. `extra`: the recipe's further fields of TRL's configuration.
    """
    if section is None:
        return []
    faults = []
    if importlib.util.find_spec("peft") is None:
        faults.append("lora: needs the library peft, which is not installed; pip install 'rlvr[lora]'")
    launched = [
        name
        for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"))
        if os.environ.get(variable) == "true"
    ] + [name for name in _SHARDING if extra.get(name)]
    if launched:
        faults.append(
            f"lora: not supported with {launched[0]}; gradients and optimizer states of an adapter are small: launch"
            " with configs/accelerate/ddp.yaml, or leave `lora` out"
        )
    if extra.get("sync_ref_model"):
        faults.append("lora: the KL reference is the model without the adapter; leave sync_ref_model out")
    if (model / "config.json").is_file():
        config = json.loads((model / "config.json").read_text())
        if any(config.get(name) for name in EXPERT_COUNTS):
            faults.append(
                f"lora: not supported for a mixture of experts ({config.get('model_type')}): neither routing replay nor"
                " the export of experts knows adapters; leave `lora` out"
            )
    return faults
