"""Rejecting what the sampler's policy would hardly have written, and tokens that drive entropy down.

What is rejected leaves the loss and its denominator; what Clip-Cov chooses leaves the loss only. Shapes are [rows,
tokens]; `sampled` are the sampler's log-probabilities, `trained` those of the policy at the start of the update.
"""

from __future__ import annotations

from typing import Any

import torch

_LONGEST_LOG_RATIO = 20.0


def geometric_rejection(
    sampled: torch.Tensor, trained: torch.Tensor, mask: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """Rows to keep, [rows] bool: those whose geometric mean ratio exp(mean log(trained / sampled)) is in [low, high].

    Geo-RS; unlike a product of ratios it does not depend on length. Tokens the sampler gave no number for (NaN) count
    as equal. A row without tokens is kept.
    """
    log_ratio = torch.nan_to_num(trained - sampled, nan=0.0).clamp(-_LONGEST_LOG_RATIO, _LONGEST_LOG_RATIO)
    mean = (log_ratio * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    ratio = torch.exp(mean)
    return (ratio >= low) & (ratio <= high)


def leave_out(output: dict[str, Any], rows: torch.Tensor, ratio: torch.Tensor | None = None) -> float:
    """Takes rows and tokens out of TRL's inputs, out of what losses divide by too; returns the share of tokens gone.

    rows: those to keep, [rows] bool. ratio: TRL's importance ratio after masking (MIS), [rows, tokens] or, of whole
    sequences, [rows, 1]; 0 where it masked. TRL itself multiplies these by 0 and goes on dividing by their number.
    """
    before = loss_mask(output).sum()
    if ratio is not None and ratio.shape[1] == 1:
        rows = rows & (ratio[:, 0] != 0)
    elif ratio is not None:  # through the loss's own mask: attention still sees these tokens
        tokens = output.get("tool_mask", torch.ones_like(output["completion_mask"]))
        output["tool_mask"] = tokens * (ratio != 0)
    output["completion_mask"] = output["completion_mask"] * rows[:, None]
    output["rejected"] = ~rows
    return 1.0 - (loss_mask(output).sum() / before.clamp(min=1)).item()


def loss_mask(batch: dict[str, Any]) -> torch.Tensor:
    """The tokens of TRL's inputs that a loss counts: [rows, completion]."""
    mask: torch.Tensor = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


def covariance(logps: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(A - mean A) (log p - mean log p) of every token, means over the tokens of the mask; 0 outside it.

    Its mean is what one update takes from the entropy (Cui et al., "The Entropy Mechanism of RL").
    """
    token_advantages = advantages.reshape(len(advantages), -1).expand_as(logps)
    count = mask.sum().clamp(min=1)
    centred = [(x - (x * mask).sum() / count) * mask for x in (token_advantages, logps)]
    return centred[0] * centred[1]


def clip_cov_mask(
    logps: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    share: float,
    low: float,
    high: float,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Tokens that stay in the loss, [rows, tokens] bool. Clip-Cov.

    All but a random `share` of the tokens, drawn from those whose covariance lies in (low, high).
    """
    inside = covariance(logps, advantages, mask)
    candidates = ((inside > low) & (inside < high) & mask.bool()).flatten().nonzero().squeeze(1)
    count = min(len(candidates), max(1, int(share * int(mask.sum()))))
    kept = torch.ones(mask.numel(), dtype=torch.bool, device=mask.device)
    if len(candidates):
        order = torch.randperm(len(candidates), generator=generator)[:count].to(candidates.device)
        kept[candidates[order]] = False
    return kept.reshape(mask.shape)


def kl_cov_penalty(
    logps: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, *, share: float
) -> torch.Tensor:
    """|log p - log p_old| of the `share` of tokens with the largest covariance, 0 elsewhere: [rows, tokens]. KL-Cov."""
    inside = covariance(logps.detach(), advantages, mask).masked_fill(~mask.bool(), -torch.inf)
    count = max(1, int(share * int(mask.sum())))
    chosen = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    chosen[inside.flatten().topk(min(count, mask.numel())).indices] = True
    return (logps - old).abs() * (chosen.reshape(mask.shape) & mask.bool())
