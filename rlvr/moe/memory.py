"""The memory of training a mixture-of-experts policy, from its configuration alone."""

from __future__ import annotations

from rlvr.config.memory import MemoryPlan
from rlvr.moe.facts import inspect_model


def expert_memory_plan(
    model: str, *, dtype: str, sharded_over: int = 1, sequences: int = 1, length: int = 1
) -> MemoryPlan | None:
    """Returns the plan of `rlvr.config.memory.memory_plan` for a model that `rlvr moe inspect` knows; None for another.

    All experts are counted, as gradients and optimizer states of all of them are kept.
    """
    try:
        facts = inspect_model(model)
    except (FileNotFoundError, ValueError):
        return None
    width = 2 if dtype in ("bfloat16", "float16") else 4
    share = -(-facts.parameters // sharded_over)
    return MemoryPlan(
        parameters=facts.parameters,
        weights=share * width,
        gradients=share * width,
        optimizer=share * 2 * width,
        kv_cache=int(sequences * facts.kv_bytes(length, width)),
    )
