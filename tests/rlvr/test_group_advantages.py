"""Advantages of keyed groups: right for any group size, TRL's own floats for equal ones."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.trainer.utils import nanstd

from rlvr.algorithms.advantages import group_advantages

rewards_and_groups = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.none(), st.sampled_from([0.0, 1.0, 0.25, -0.5]))), min_size=1, max_size=60
)


def by_hand(rows):
    """The formula in plain Python, one group at a time."""
    expected = []
    for group, reward in rows:
        known = [r for g, r in rows if g == group and r is not None]
        if reward is None or len(known) < 2:
            expected.append(0.0)
        else:
            expected.append((reward - statistics.fmean(known)) / (statistics.stdev(known) + 1e-4))
    return expected


@given(rewards_and_groups)
@settings(max_examples=150, deadline=None)
def test_every_group_is_normalised_by_its_own_mean_and_deviation(rows):
    rewards = torch.tensor([math.nan if r is None else r for _, r in rows])
    advantages, _ = group_advantages(rewards, [g for g, _ in rows])
    assert advantages.tolist() == pytest.approx(by_hand(rows), abs=2e-4)


@given(rewards_and_groups)
@settings(max_examples=100, deadline=None)
def test_mixed_means_that_scored_rewards_of_the_group_differ(rows):
    rewards = torch.tensor([math.nan if r is None else r for _, r in rows])
    _, mixed = group_advantages(rewards, [g for g, _ in rows])
    for (group, reward), flag in zip(rows, mixed.tolist(), strict=True):
        values = {r for g, r in rows if g == group and r is not None}
        assert flag == (reward is not None and len(values) > 1)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_groups_agree_with_trl_bit_for_bit(scale):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randint(0, 2, (48,), generator=generator).float()
    rewards[5] = torch.nan
    grouped = rewards.view(-1, 8)
    mean = torch.nanmean(grouped, dim=1).repeat_interleave(8)
    std = nanstd(grouped, dim=1).repeat_interleave(8) if scale != "batch" else nanstd(rewards).expand_as(rewards)
    trl = rewards - mean
    if scale != "none":
        trl = trl / (std + 1e-4)
    ours, _ = group_advantages(rewards, torch.arange(6).repeat_interleave(8), scale=scale)
    assert torch.equal(ours, torch.nan_to_num(trl, nan=0.0))


def test_a_lone_rollout_and_an_unscorable_one_have_no_advantage():
    advantages, mixed = group_advantages(torch.tensor([1.0, torch.nan, 0.0, 1.0]), [7, 8, 9, 9])
    assert advantages[:2].tolist() == [0.0, 0.0]
    assert mixed.tolist() == [False, False, True, True]


@given(st.floats(-2, 2, width=32), st.integers(2, 130))
@settings(max_examples=100, deadline=None)
def test_a_group_of_equal_rewards_has_advantages_of_exactly_zero(reward, size):
    advantages, mixed = group_advantages(torch.full((size,), reward), [0] * size)
    assert not advantages.any() and not mixed.any()


def test_the_clip_bounds_a_single_success_among_many():
    rewards = torch.tensor([1.0] + [0.0] * 63)
    free, _ = group_advantages(rewards, [0] * 64)
    clipped, _ = group_advantages(rewards, [0] * 64, clip=5.0)
    assert free[0] > 7 and clipped[0] == 5.0


def test_a_wrong_number_of_keys_is_refused():
    with pytest.raises(ValueError, match="2 keys"):
        group_advantages(torch.zeros(3), [0, 1])
