"""A memory estimate from a checkpoint's config.json alone, for the plan printed before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.config.lora import EXPERT_COUNTS, LoRASection


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the fullest device during training; `parameters` counts weights, embeddings once where tied.

    `adapter`: trained parameters where only those of a LoRA section are, None where all are.
    """

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    kv_cache: int
    adapter: int | None = None

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.kv_cache

    def __str__(self) -> str:
        gib = 2**30
        trained = "" if self.adapter is None else f", {self.adapter / 1e6:,.2f} M more of an adapter are trained"
        cache = f" + KV cache while sampling {self.kv_cache / gib:.2f}" if self.kv_cache else ""
        return (
            f"{self.parameters / 1e6:,.1f} M parameters{trained}; a device holds weights {self.weights / gib:.2f} GiB"
            f" + gradients {self.gradients / gib:.2f} + AdamW {self.optimizer / gib:.2f}{cache}"
            f" = {self.total / gib:.2f} GiB, activations not counted"
        )


def memory_plan(
    model: Path,
    *,
    dtype: str,
    sharded_over: int = 1,
    sequences: int = 1,
    length: int = 1,
    lora: LoRASection | None = None,
) -> MemoryPlan | None:
    """Returns the plan for a local checkpoint folder of a dense decoder, None where its config does not tell.

    `sharded_over`: devices that share weights, gradients and optimizer states (FSDP2, ZeRO-3). `sequences` x `length`:
    tokens in the KV cache of one device while sampling; 0 where another engine samples, with a cache of its own.
    `lora`: gradients and AdamW's states are the adapter's only, in float32; the plan is None where it names layers
    whose shapes the config does not tell.
    """
    path = model / "config.json"
    if not path.is_file():
        return None
    config: dict[str, Any] = json.loads(path.read_text())
    try:
        hidden, layers, vocab = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
        heads, mlp = config["num_attention_heads"], config["intermediate_size"]
    except KeyError:
        return None
    if any(config.get(name) for name in EXPERT_COUNTS):
        return None  # expert layers differ by family
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    attention = hidden * head * (2 * heads + 2 * kv_heads)
    embeddings = vocab * hidden * (1 if config.get("tie_word_embeddings") else 2)
    parameters = embeddings + layers * (attention + 3 * hidden * mlp + 2 * hidden) + hidden
    width = 2 if dtype in ("bfloat16", "float16") else 4
    share = -(-parameters // sharded_over)
    cache = 2 * layers * kv_heads * head * width * sequences * length
    if lora is not None:
        shapes = {
            "q_proj": (hidden, heads * head),
            "k_proj": (hidden, kv_heads * head),
            "v_proj": (hidden, kv_heads * head),
            "o_proj": (heads * head, hidden),
            "gate_proj": (hidden, mlp),
            "up_proj": (hidden, mlp),
            "down_proj": (mlp, hidden),
        }
        targets = shapes if lora.target_modules == "all-linear" else lora.target_modules
        whole = {"embed_tokens": vocab * hidden, "lm_head": vocab * hidden, "norm": hidden}
        if not set(targets) <= set(shapes) or not set(lora.modules_to_save) <= set(whole):
            return None
        trained = layers * lora.rank * sum(sum(shapes[name]) for name in targets)
        trained += sum(whole[name] for name in lora.modules_to_save)
        return MemoryPlan(
            parameters=parameters,
            weights=share * width + trained * 4,
            gradients=trained * 4,
            optimizer=trained * 2 * 4,
            kv_cache=cache,
            adapter=trained,
        )
    return MemoryPlan(
        parameters=parameters,
        weights=share * width,
        gradients=share * width,
        optimizer=share * 2 * width,
        kv_cache=cache,
    )
