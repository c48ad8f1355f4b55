"""Masks TRL lacks: what is rejected, which tokens are held back."""

from __future__ import annotations

import math

import pytest
import torch

from rlvr.algorithms.correction import clip_cov_mask, covariance, geometric_rejection, kl_cov_penalty


def test_rejection_looks_at_the_mean_ratio_so_length_does_not_matter():
    ratio = math.log(1.1)
    sampled = torch.zeros(4, 100)
    trained = torch.zeros(4, 100)
    trained[0, :10], trained[1] = ratio, ratio  # 1.1 on every token of 10, and of 100
    trained[2] = math.log(1.005)
    mask = torch.ones(4, 100, dtype=torch.long)
    mask[0, 10:] = 0
    mask[3] = 0
    assert geometric_rejection(sampled, trained, mask, 0.99, 1.01).tolist() == [False, False, True, True]
    assert geometric_rejection(sampled, trained, mask, 0.99, 1.11).all()


def test_a_token_the_sampler_gave_no_number_for_counts_as_equal():
    sampled = torch.tensor([[float("nan"), -1.0]])
    assert geometric_rejection(sampled, torch.tensor([[-9.0, -1.0]]), torch.ones(1, 2), 0.99, 1.01).all()


def test_covariance_is_the_products_of_the_centred_values_over_the_mask():
    logps = torch.tensor([[-1.0, -2.0], [-3.0, -50.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    found = covariance(logps, torch.tensor([3.0, -3.0]), mask)
    expected = torch.tensor([[2.0 * 1.0, 2.0 * 0.0], [-4.0 * -1.0, 0.0]])
    torch.testing.assert_close(found, expected)


def test_clip_cov_leaves_out_its_share_from_the_range_only():
    generator = torch.Generator().manual_seed(0)
    logps = torch.randn(8, 50, generator=generator)
    advantages = torch.randn(8, generator=generator)
    mask = torch.ones(8, 50, dtype=torch.long)
    inside = covariance(logps, advantages, mask)
    kept = clip_cov_mask(logps, advantages, mask, share=0.02, low=0.5, high=2.0, generator=generator)
    assert int((~kept).sum()) == 8
    assert ((inside[~kept] > 0.5) & (inside[~kept] < 2.0)).all()
    assert clip_cov_mask(logps, advantages, mask, share=0.02, low=1e6, high=2e6).all()


def test_kl_cov_holds_back_the_tokens_of_highest_covariance():
    logps = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    old = logps.detach() - 0.5
    mask = torch.ones(2, 2, dtype=torch.long)
    penalty = kl_cov_penalty(logps, old, torch.tensor([1.0, -1.0]), mask, share=0.25)
    assert penalty.tolist() == [[0.5, 0.0], [0.0, 0.0]] or penalty.tolist() == [[0.0, 0.0], [0.0, 0.5]]
    penalty.sum().backward()
    assert logps.grad is not None and int((logps.grad != 0).sum()) == 1


@pytest.mark.parametrize("bounds", [(1.5, 2.0), (0.5, 0.9)])
def test_a_range_that_does_not_hold_1_is_refused(bounds):
    from rlvr.config import GRPORecipe, RecipeError, load_recipe

    with pytest.raises(RecipeError, match="must enclose 1"):
        load_recipe(
            GRPORecipe,
            None,
            ["name=x", "model.name_or_path=m", "data.problems=p", f"grpo.geometric_rejection={list(bounds)}"],
        )
