"""Group advantages keyed by problem, for groups of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from trl.trainer.utils import nanstd


def group_advantages(
    rewards: torch.Tensor,
    groups: Sequence[int] | torch.Tensor,
    *,
    scale: str = "group",
    clip: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (advantages [rollouts], mixed [rollouts]); `mixed` marks rollouts of groups whose rewards differ.

    A_ij = (r_ij - mean_i) / (std_i + 1e-4) with the sample standard deviation of problem i's own group (`scale`:
    "group"), of the whole batch ("batch"), or no division ("none"; Dr. GRPO). NaN rewards (unscorable rollouts) stay
    out of mean and std and get advantage 0, as does a group of one; so does, exactly, a group of equal rewards. With
    equal groups every other float operation is the one TRL's GRPOTrainer makes, so the results agree bit for bit.

    rewards: [rollouts] float. groups: [rollouts] integer keys in any order. clip: bound on |A| (Knapsack RL: 5).
    """
    keys = torch.as_tensor(groups, device=rewards.device)
    if keys.shape != rewards.shape:
        raise ValueError(f"every reward needs a group key: {keys.numel()} keys, {rewards.numel()} rewards")
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"scale must be group, batch or none, not {scale!r}")
    _, index, sizes = torch.unique(keys, return_inverse=True, return_counts=True)
    # [groups, largest group], padded with NaN: column = how many of the same group came before
    order = torch.argsort(index, stable=True)
    starts = torch.cumsum(sizes, 0) - sizes
    column = torch.empty_like(index)
    column[order] = torch.arange(len(keys), device=keys.device) - starts[index[order]]
    table = rewards.new_full((len(sizes), int(sizes.max())), torch.nan)
    table[index, column] = rewards

    mean = torch.nanmean(table, dim=1)[index]
    if scale == "batch":
        std = nanstd(rewards).expand_as(rewards) if rewards.numel() > 1 else torch.zeros_like(rewards)
    else:
        std = nanstd(table, dim=1)[index]
    advantages = rewards - mean
    if scale != "none":
        advantages = advantages / (std + 1e-4)
    advantages = torch.nan_to_num(advantages, nan=0.0)
    lone = (~torch.isnan(table)).sum(dim=1)[index] < 2
    advantages = torch.where(lone, torch.zeros_like(advantages), advantages)
    if clip is not None:
        advantages = advantages.clamp(-clip, clip)
    # exact equality over the group, not std against 0: float noise in std is not a signal
    low = torch.where(torch.isnan(table), torch.inf, table).amin(dim=1)
    high = torch.where(torch.isnan(table), -torch.inf, table).amax(dim=1)
    mixed = (high > low)[index] & ~torch.isnan(rewards)
    # a mean of equal rewards may be off by an ulp, which would cost the group its forward and backward for noise
    advantages = torch.where((high > low)[index], advantages, torch.zeros_like(advantages))
    return advantages, mixed
