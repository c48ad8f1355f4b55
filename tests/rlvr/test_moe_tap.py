"""The routing tap on stock models of every family: record, replay, gradients, checkpointing, compile, bias."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr.moe.layout import UnknownRouter
from rlvr.moe.tap import RoutingError, RoutingTap
from tests.rlvr.moe_families import FAMILIES, REFUSED, tiny_config


def built(family: str, **overrides: Any) -> Any:
    """The family's tiny model with weights large enough for routing to matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def tokens(rows: int = 2, length: int = 9) -> torch.Tensor:
    return torch.randint(3, 300, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_replaying_recorded_routes_changes_nothing_and_other_routes_do(family: str) -> None:
    model, ids = built(family), tokens()
    with torch.no_grad():
        bare = model(ids).logits
        with RoutingTap(model) as tap:
            with tap.recording() as passes:
                recorded = model(ids).logits
            assert torch.equal(bare, recorded)
            routes = passes[0]
            assert routes.shape == (2, 9, len(tap.layers), tap.top_k)
            free = (routes < 0).all(dim=(0, 1, 3))
            assert free.tolist() == [family == "deepseek_v4" and layer == 0 for layer in tap.layers]
            with tap.replaying(routes):
                assert torch.equal(model(ids).logits, bare)
            with tap.replaying(torch.where(routes >= 0, (routes + 1) % tap.experts, routes)), tap.recording() as forced:
                assert not torch.equal(model(ids).logits, bare)
            assert torch.equal(forced[0], torch.where(routes >= 0, (routes + 1) % tap.experts, routes))
        assert torch.equal(model(ids).logits, bare)


@pytest.mark.parametrize("family", [name for name in REFUSED if name != "doge"])
def test_routers_without_one_top_k_are_refused(family: str) -> None:
    with pytest.raises(UnknownRouter, match=family):
        RoutingTap(built(family))


def test_a_dense_model_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with pytest.raises(UnknownRouter, match="dense"):
        RoutingTap(
            LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=64, intermediate_size=16, num_hidden_layers=1))
        )


def gradients(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits = model(ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3", "gpt_oss"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_under_replay_are_bit_identical(family: str, checkpointing: bool) -> None:
    model, ids = built(family).train(), tokens()
    plain = gradients(model, ids)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with RoutingTap(model) as tap:
        with tap.recording() as passes:
            recorded = gradients(model, ids)
        assert len(passes) == 1, "recomputation is not recorded again"
        tap.arm(passes[0])
        replayed = gradients(model, ids)
        tap.arm((passes[0] + 1) % tap.experts)
        other = gradients(model, ids)
    for name, value in plain.items():
        assert torch.equal(value, recorded[name]), name
        assert torch.equal(value, replayed[name]), name
    routers = [name for name in plain if name.endswith(("gate.weight", "router.weight"))]
    assert routers
    assert all(replayed[name].abs().sum() > 0 for name in routers), "router gradients are live"
    assert any(not torch.equal(other[name], plain[name]) for name in routers)


def test_forced_routes_survive_recomputation() -> None:
    ids = tokens()
    results = []
    for checkpointing in (False, True):
        model = built("qwen3_moe").train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with RoutingTap(model) as tap:
            with torch.no_grad(), tap.recording() as passes:
                model(ids)
            tap.arm((passes[0] + 3) % tap.experts)
            results.append(gradients(model, ids))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_minus_one_lets_the_router_choose_token_by_token() -> None:
    model, ids = built("glm4_moe"), tokens()
    with torch.no_grad(), RoutingTap(model) as tap:
        with tap.recording() as passes:
            model(ids)
        routes = passes[0].clone()
        routes[:, 4:] = -1
        with tap.replaying(routes), tap.recording() as replayed:
            model(ids)
    assert torch.equal(replayed[0], passes[0])


def test_rows_are_used_in_order_over_several_passes_and_each_once() -> None:
    model, ids = built("qwen3_moe"), tokens(rows=4)
    with torch.no_grad(), RoutingTap(model) as tap:
        with tap.recording() as passes:
            model(ids)
        routes = (passes[0] + 1) % tap.experts
        with tap.replaying(routes), tap.recording() as replayed:
            model(ids[:1])
            model(ids[1:])
        assert torch.equal(torch.cat(replayed), routes)
        with pytest.raises(RoutingError, match="4 rows of routes were armed, 1 were used"), tap.replaying(routes):
            model(ids[:1])


def test_routes_of_the_wrong_shape_or_model_are_refused() -> None:
    model, ids = built("qwen3_moe"), tokens()
    with torch.no_grad(), RoutingTap(model) as tap:
        with pytest.raises(RoutingError, match="3 MoE layers, 2 experts"):
            tap.arm(torch.zeros(2, 9, 4, 2, dtype=torch.long))
        with pytest.raises(RoutingError, match="another model"):
            tap.arm(torch.full((2, 9, 3, 2), 8))
        tap.arm(torch.zeros(2, 8, 3, 2, dtype=torch.long))
        with pytest.raises(RoutingError, match="2 rows of 9 positions, the armed routes 2 rows of 8"):
            model(ids)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_an_injected_bias_moves_the_choice_and_not_the_weights(family: str) -> None:
    model, ids = built(family), tokens()
    with torch.no_grad(), RoutingTap(model) as tap:
        bare = model(ids).logits
        tap.set_bias({layer: torch.zeros(tap.experts) for layer in tap.layers})
        assert torch.equal(model(ids).logits, bare)
        push = torch.zeros(tap.experts)
        push[5] = 100.0
        tap.set_bias({layer: push for layer in tap.layers})
        with tap.recording() as biased:
            tilted = model(ids).logits
        assert (biased[0] == 5).any(dim=-1).all(), "the favoured expert is chosen everywhere"
        tap.set_bias(None)
        with tap.replaying(biased[0]):
            replayed = model(ids).logits
        assert torch.equal(replayed, tilted), "given the same choice the bias has no further effect"


def test_generation_is_recorded_pass_by_pass() -> None:
    model, ids = built("qwen3_moe"), tokens()
    with RoutingTap(model) as tap, tap.recording() as passes:
        model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    assert [tuple(p.shape[:2]) for p in passes] == [(2, 9), (2, 1), (2, 1), (2, 1)]


@pytest.mark.slow
def test_a_compiled_model_records_and_replays_as_the_eager_one() -> None:
    model, ids = built("qwen3_moe", num_hidden_layers=1), tokens()
    with torch.no_grad(), RoutingTap(model) as tap:
        with tap.recording() as passes:
            bare = model(ids).logits
        compiled = torch.compile(model, backend="eager")
        with tap.recording() as again:
            assert torch.equal(compiled(ids).logits, bare)
        assert torch.equal(again[0], passes[0])
        with tap.replaying((passes[0] + 1) % tap.experts):
            assert not torch.equal(compiled(ids).logits, bare)
        with pytest.raises(UnknownRouter, match="compiled wrapper"):
            RoutingTap(compiled)


def test_one_tap_a_model() -> None:
    model = built("qwen3_moe")
    with RoutingTap(model), pytest.raises(RoutingError, match="already has a routing tap"):
        RoutingTap(model)
    RoutingTap(model).remove()
