"""Rollouts without a signal cost no forward and no backward pass."""

from __future__ import annotations

from typing import Any

import torch

# What a loss divides by. "items": the tokens of the whole generation batch, so leaving rows out changes nothing;
# "rows": the rows of the micro-batch; "tokens": the tokens of the micro-batch.
_DENOMINATOR = {
    "dapo": "items",
    "cispo": "items",
    "vespo": "items",
    "grpo": "rows",
    "sapo": "rows",
    "dr_grpo": "rows",
    "luspo": "rows",
    "bnpo": "tokens",
}


def without_zero_signal(inputs: dict[str, Any], loss_type: str) -> tuple[dict[str, Any], float]:
    """Returns (inputs without rows of advantage 0, factor for the loss computed on them).

    The policy loss of a row is linear in its advantage, so rows of advantage exactly 0 add nothing to loss and
    gradient but to the denominator; the factor restores that. Valid only where no other term (KL, entropy bonus,
    router balance) needs the rows. One row always stays, so that every process runs a forward and backward pass.
    Completion columns that only hold padding for the rows that stay are left out too; prompt columns are not, because
    a shift would change the positions that models with learned positions see.

    inputs: TRL's micro-batch; prompts [rows, prompt] padded on the left, completions [rows, completion] on the right.
    """
    advantages = inputs["advantages"]
    rows = advantages.shape[0]
    signal = (advantages != 0).reshape(rows, -1).any(dim=1)
    if not signal.any():
        signal[0] = True
    keep = signal.nonzero().squeeze(1)
    kept = {
        name: value.index_select(0, keep)
        if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == rows
        else value
        for name, value in inputs.items()
    }
    mask, kept_mask = inputs["completion_mask"], kept["completion_mask"]
    completion = max(1, int(kept_mask.sum(dim=1).max()))
    for name, value in kept.items():
        per_token = isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == mask.shape[1]
        if per_token and name not in ("prompt_ids", "prompt_mask"):
            kept[name] = value[:, :completion]
    denominator = _DENOMINATOR[loss_type]
    if denominator == "items":
        return kept, 1.0
    if denominator == "rows":
        return kept, len(keep) / rows
    return kept, int(kept_mask.sum()) / max(1, int(mask.sum()))
