"""One tap on every router of a stock Hugging Face model: record which experts were chosen, choose for it, or tilt it.

The forward of each MoE block runs under a TorchFunctionMode that answers the router's own top-k call. So nothing of a
family's code is copied, and only the choice is touched: the weights of the chosen experts are still gathered from the
live scores, so gradients reach the router as if it had chosen itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rlvr.moe.families import UNTAPPABLE
from rlvr.moe.layout import ExpertBlock, UnknownRouter, expert_blocks, text_config


class RoutingError(RuntimeError):
    """Routes that do not fit the forward pass they were armed for, or a router that did not behave as one."""


@dataclass
class _Site:
    """State of one layer's router during a forward pass."""

    block: ExpertBlock
    position: int  # among the MoE layers
    calls: int = 0
    chosen: Tensor | None = None  # [rows, k], of the forward pass under way
    planned: Tensor | None = None  # [rows, k], -1 = choose freely
    bias: Tensor | None = None  # [classes]
    scores: Tensor | None = None  # [rows, classes] with their graph, where asked for


class _AnswerTopK(TorchFunctionMode):
    """Answers the first top-k of `k` over `classes`; every other call goes through untouched."""

    def __init__(self, site: _Site, answer: Callable[[_Site, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.site = site
        self.answer = answer
        self.hits = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.topk, Tensor.topk):
            return func(*args, **kwargs)
        scores = args[0] if args else kwargs["input"]
        k = args[1] if len(args) > 1 else kwargs.get("k")
        dim = args[2] if len(args) > 2 else kwargs.get("dim", -1)
        block = self.site.block
        last = dim in (-1, scores.dim() - 1)
        if self.hits or k != block.top_k or not last or scores.shape[-1] not in (block.experts, block.classes):
            return func(*args, **kwargs)
        if scores.dim() != 2 and block.grouped:
            return func(*args, **kwargs)
        self.hits += 1
        result = func(*args, **kwargs)
        values, ids = self.answer(self.site, scores, result[0], result[1])
        return torch.return_types.topk((values, ids))


class RoutingTap:
    """Records, replays and tilts the routing of `model`; installed on construction, removed by `remove()`.

    Routes are int64 tensors [batch, positions, MoE layers, k] with positions as in `input_ids`; -1 lets the router
    choose. `arm(routes)` applies them to the next forward passes, row after row, and keeps the last pass's in force
    for recomputation under gradient checkpointing, until `disarm()` or the next `arm`. Works under DDP (tap the module
    inside), FSDP2 and torch.compile (MoE blocks then run eagerly; fullgraph=True is refused by torch).

    Raises UnknownRouter for a dense model and for families whose router makes no single top-k call.
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, torch._dynamo.eval_frame.OptimizedModule):
            raise UnknownRouter("tap the model before torch.compile, not the compiled wrapper")
        kind = text_config(model.config).model_type
        if kind in UNTAPPABLE:
            raise UnknownRouter(f"{kind}: routing cannot be recorded or replayed: {UNTAPPABLE[kind]}")
        blocks = expert_blocks(model)
        if not blocks:
            raise UnknownRouter(f"{kind}: a dense model, there is no routing to record")
        self.model = model
        self.sites = [_Site(block, position) for position, block in enumerate(blocks)]
        self.layers = tuple(block.layer for block in blocks)
        self.experts = blocks[0].experts
        self.classes = blocks[0].classes
        self.top_k = blocks[0].top_k
        self.observers: list[Callable[[Tensor, Tensor | None], None]] = []
        self.keep_scores = False
        self._armed: Tensor | None = None
        self._cursor = 0
        self._inside = False
        self._untapped: set[int] = set()  # layers whose router is a table, found in the first pass
        self._passes = 0
        self._mask: Tensor | None = None
        self._shape: tuple[int, int] = (0, 0)
        self._handles = [
            model.register_forward_pre_hook(self._enter, with_kwargs=True),
            model.register_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]
        for site in self.sites:
            self._wrap(site)

    # -- what callers do ------------------------------------------------------------------------------------------

    def arm(self, routes: Tensor) -> None:
        """Replays `routes` [batch, positions, MoE layers, k] in the next forward passes; -1 lets the router choose."""
        if routes.dim() != 4 or routes.shape[2] != len(self.sites) or routes.shape[3] != self.top_k:
            raise RoutingError(
                f"routes of shape {list(routes.shape)} do not fit: expected [batch, positions, {len(self.sites)} MoE"
                f" layers, {self.top_k} experts a token]"
            )
        if routes.numel() and int(routes.max()) >= self.classes:
            raise RoutingError(
                f"routes name expert {int(routes.max())}, the model has {self.classes}: they are another model's"
            )
        self._armed = routes.long() if routes.dtype != torch.int64 else routes
        self._cursor = 0

    def disarm(self) -> None:
        """Lets the routers choose again."""
        self._armed = None
        for site in self.sites:
            site.planned = None

    @contextmanager
    def replaying(self, routes: Tensor) -> Iterator[None]:
        """Arms `routes` for the body and insists that every one of them was used."""
        self.arm(routes)
        try:
            yield
            if self._cursor != routes.shape[0]:
                raise RoutingError(f"{routes.shape[0]} rows of routes were armed, {self._cursor} were used")
        finally:
            self.disarm()

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """Yields a list that receives the routes [batch, positions, MoE layers, k] of each forward pass of the body."""
        passes: list[Tensor] = []

        def keep(routes: Tensor, mask: Tensor | None) -> None:
            passes.append(routes)

        self.observers.append(keep)
        try:
            yield passes
        finally:
            self.observers.remove(keep)

    def set_bias(self, biases: Mapping[int, Tensor] | None) -> None:
        """Adds a bias [classes] to the selection scores of each layer named, never to the weights; None removes all.

        For families without a bias of their own. vLLM does not apply it: the sampler then routes differently.
        """
        for site in self.sites:
            site.bias = None if biases is None else biases.get(site.block.layer)

    def own_bias(self, layer: int) -> Tensor | None:
        """Returns the family's own selection bias of a layer, None where it has none."""
        block = self.sites[self.layers.index(layer)].block
        if block.bias_name is None:
            return None
        tensor: Any = block.block
        for part in block.bias_name.split("."):
            tensor = getattr(tensor, part)
        return tensor

    def remove(self) -> None:
        """Restores the model."""
        for handle in self._handles:
            handle.remove()
        for site in self.sites:
            site.block.block.__dict__.pop("forward", None)

    def __enter__(self) -> RoutingTap:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    # -- inside a forward pass ------------------------------------------------------------------------------------

    def _wrap(self, site: _Site) -> None:
        block = site.block.block
        if "forward" in block.__dict__ and getattr(block.__dict__["forward"], "_routing_tap", False):
            raise RoutingError("the model already has a routing tap; remove() it first")
        inner = block.forward

        @functools.wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._inside and site.calls and site.block.layer not in self._untapped:
                raise RoutingError(f"the router of layer {site.block.layer} ran twice in one forward pass")
            with _AnswerTopK(site, self._answer) as mode:
                result = inner(*args, **kwargs)
            if self._inside:
                site.calls += mode.hits
                if not mode.hits:
                    self._untapped.add(site.block.layer)
            return result

        forward._routing_tap = True  # type: ignore[attr-defined]
        block.forward = torch.compiler.disable(forward)
        block.forward._routing_tap = True

    def _enter(self, module: Any, args: Any, kwargs: Any) -> None:
        self._inside = True
        tokens = kwargs.get("input_ids")
        if tokens is None:
            tokens = args[0] if args else kwargs.get("inputs_embeds")
        if tokens is None:
            raise RoutingError("the forward pass has neither input_ids nor inputs_embeds")
        self._shape = (int(tokens.shape[0]), int(tokens.shape[1]))
        mask = kwargs.get("attention_mask")
        usable = isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[1] >= self._shape[1]
        self._mask = mask[:, -self._shape[1] :] if usable else None
        for site in self.sites:
            site.calls, site.chosen, site.scores = 0, None, None
        if self._armed is None:
            return
        rows = self._armed[self._cursor : self._cursor + self._shape[0]]
        if rows.shape[:2] != self._shape:
            left = self._armed.shape[0] - self._cursor
            raise RoutingError(
                f"the forward pass has {self._shape[0]} rows of {self._shape[1]} positions, the armed routes"
                f" {left} rows of {self._armed.shape[1]}"
            )
        self._cursor += self._shape[0]
        flat = rows.reshape(-1, len(self.sites), self.top_k)
        for site in self.sites:
            site.planned = flat[:, site.position]

    def _leave(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if not self._inside:
            return
        self._inside = False
        chosen = [site.chosen for site in self.sites]
        if output is None:  # the pass raised
            return
        missing = [site.block.layer for site in self.sites if site.chosen is None]
        if len(missing) == len(self.sites):
            raise UnknownRouter(
                f"{text_config(self.model.config).model_type}: no router made a top-{self.top_k} call over"
                f" {self.experts} experts, so its routing cannot be recorded or replayed"
            )
        self._passes += 1
        if not self.observers:
            return
        rows = self._shape[0] * self._shape[1]
        filled = [
            ids
            if ids is not None
            else torch.full((rows, self.top_k), -1, device=next(i for i in chosen if i is not None).device)
            for ids in chosen
        ]
        routes = torch.stack(filled, dim=1).reshape(*self._shape, len(self.sites), self.top_k)
        for observer in list(self.observers):
            observer(routes, self._mask)

    def _answer(self, site: _Site, scores: Tensor, values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        changed = False
        if site.bias is not None:
            ids = torch.topk(scores + site.bias.to(scores), site.block.top_k, dim=-1).indices
            changed = True
        if site.planned is not None:
            planned = site.planned.to(ids.device)
            if planned.shape[0] * planned.shape[1] != ids.numel():
                raise RoutingError(
                    f"layer {site.block.layer}: the router chose for {ids.numel() // self.top_k} tokens, routes are"
                    f" armed for {planned.shape[0]}"
                )
            planned = planned.reshape(ids.shape)
            ids = torch.where(planned >= 0, planned, ids)
            changed = True
        if self._inside and self.keep_scores:
            site.scores = scores
        if self._inside:
            site.chosen = ids.detach().reshape(-1, site.block.top_k)
        return (scores.gather(-1, ids) if changed else values), ids
