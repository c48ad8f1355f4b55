"""Where the experts of a model are: found in its modules, so no family needs code of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "num_experts_per_token", "moe_top_k")
GROUPS = ("n_group", "num_expert_group", "num_group")
BIAS = re.compile(r"(e_score_correction_bias|expert_bias|balancing_biases)$")


class UnknownRouter(ValueError):
    """A model whose routing cannot be read or replayed; the message is one line with the reason."""


@dataclass(frozen=True)
class ExpertBlock:
    """The experts of one decoder layer.

    `block` is the module whose forward holds both the router and the call of the experts; `classes` is what the router
    chooses among: the experts, and for a few families some "experts" that compute nothing.
    """

    layer: int
    name: str
    block: Any
    experts_name: str
    experts: int
    classes: int
    top_k: int
    bias_name: str | None  # the selection bias, None where the family has none
    bias_kind: str  # none | buffer | parameter
    grouped: bool  # the router first makes a top-k within groups, of three dimensions


def read(config: Any, names: tuple[str, ...]) -> int | None:
    """Returns the first of `names` that a configuration holds as a positive integer."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, list) and value and len(set(value)) == 1:  # hunyuan: one entry a layer
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def text_config(config: Any) -> Any:
    """Returns the configuration of the language model inside a multimodal one, or the configuration itself."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def expert_parameters(block: ExpertBlock) -> Iterator[tuple[str, Any]]:
    """Yields (name, parameter) of a block's routed experts: every parameter with one slice an expert."""
    module = block.block.get_submodule(block.experts_name)
    for name, parameter in module.named_parameters():
        if parameter.shape[0] in (block.experts, block.classes) and parameter.dim() >= 2:
            yield f"{block.name}.{block.experts_name}.{name}", parameter


def expert_blocks(model: Any) -> list[ExpertBlock]:
    """Returns the expert block of every MoE layer, in layer order; empty for a dense model.

    Raises UnknownRouter where a layer has more than one block or the configuration does not name its top-k.
    """
    config = text_config(model.config)
    experts = read(config, EXPERTS)
    if experts is None:
        return []
    found: dict[int, ExpertBlock] = {}
    for name, module in model.named_modules():
        parent_name, _, last = name.rpartition(".")
        if last != "experts" or not any(p.dim() >= 3 and p.shape[0] == experts for p in module.parameters()):
            continue
        layer = layer_of(name)
        if layer is None:
            continue
        parent = model.get_submodule(parent_name)
        if layer in found:
            raise UnknownRouter(f"{config.model_type}: layer {layer} has more than one set of experts")
        top_k = read(config, TOP_K)
        if top_k is None:
            raise UnknownRouter(
                f"{config.model_type}: the configuration names no top-k (looked for {', '.join(TOP_K)})"
            )
        bias_name, kind, width = _selection_bias(parent)
        extra = getattr(config, "zero_expert_num", None) or 0
        classes = max(experts + extra, width if width and width >= experts else 0)
        found[layer] = ExpertBlock(
            layer=layer,
            name=parent_name,
            block=parent,
            experts_name=last,
            experts=experts,
            classes=classes,
            top_k=top_k,
            bias_name=bias_name,
            bias_kind=kind,
            grouped=any(hasattr(config, group) for group in GROUPS),
        )
    return [found[layer] for layer in sorted(found)]


def layer_of(name: str) -> int | None:
    """Returns the decoder layer a module or parameter name lies in, None outside of the layers."""
    match = re.search(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)(?:\.|$)", name)
    return int(match[1]) if match else None


def _selection_bias(block: Any) -> tuple[str | None, str, int]:
    for kind, named in (("buffer", block.named_buffers()), ("parameter", block.named_parameters())):
        for name, tensor in named:
            if BIAS.search(name):
                return name, kind, tensor.shape[-1]
    return None, "none", 0
