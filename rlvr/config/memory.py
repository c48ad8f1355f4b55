"""A memory estimate from a checkpoint's config.json alone, for the plan printed before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the fullest device during training; `parameters` counts weights, embeddings once where tied."""

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    kv_cache: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.kv_cache

    def __str__(self) -> str:
        gib = 2**30
        cache = f" + KV cache while sampling {self.kv_cache / gib:.2f}" if self.kv_cache else ""
        return (
            f"{self.parameters / 1e6:,.1f} M parameters; a device holds weights {self.weights / gib:.2f} GiB"
            f" + gradients {self.gradients / gib:.2f} + AdamW {self.optimizer / gib:.2f}{cache}"
            f" = {self.total / gib:.2f} GiB, activations not counted"
        )


def memory_plan(
    model: Path, *, dtype: str, sharded_over: int = 1, sequences: int = 1, length: int = 1
) -> MemoryPlan | None:
    """Returns the plan for a local checkpoint folder of a dense decoder, None where its config does not tell.

    `sharded_over`: devices that share weights, gradients and optimizer states (FSDP2, ZeRO-3). `sequences` x `length`:
    tokens in the KV cache of one device while sampling; 0 where another engine samples, with a cache of its own.
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
    if config.get("num_experts") or config.get("n_routed_experts") or config.get("num_local_experts"):
        return None  # expert layers differ by family
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    attention = hidden * head * (2 * heads + 2 * kv_heads)
    embeddings = vocab * hidden * (1 if config.get("tie_word_embeddings") else 2)
    parameters = embeddings + layers * (attention + 3 * hidden * mlp + 2 * hidden) + hidden
    width = 2 if dtype in ("bfloat16", "float16") else 4
    share = -(-parameters // sharded_over)
    return MemoryPlan(
        parameters=parameters,
        weights=share * width,
        gradients=share * width,
        optimizer=share * 2 * width,
        kv_cache=2 * layers * kv_heads * head * width * sequences * length,
    )
