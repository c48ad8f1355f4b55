"""The routing of one training run: what is recorded, what is replayed, what is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr.config.moe import MoESection
from rlvr.moe.families import SCORES
from rlvr.moe.layout import expert_blocks, text_config
from rlvr.moe.routes import RouteShape
from rlvr.moe.statistics import TOTAL, ExpertLoad, all_reduced, pair_layers
from rlvr.moe.tap import RoutingError, RoutingTap

# Keys of a micro-batch: routes [rows, positions, MoE layers, k] as `small` makes them, whole or in the two halves that
# are padded and cut apart.
ROUTES, PROMPT_ROUTES, COMPLETION_ROUTES = "routes", "prompt_routes", "completion_routes"


class RoutingSession:
    """Hooks of a trainer on the routing of its policy.

    The trainer calls `scoring(batch)` around the pass in which the sampling policy scores a micro-batch (R2 records
    there), and `before_update(batch)` before each forward pass of an update. Loads are counted in update passes only,
    on real tokens, once a token however often it is recomputed.
    """

    def __init__(self, model: Any, section: MoESection, *, updates_per_rollout: int = 1) -> None:
        self.section = section
        self.tap = RoutingTap(model)
        self.tap.observers.append(self._observe)
        # One update on fresh rollouts is made by the policy that sampled them: the recorded routes would be its own.
        several = section.replay == "auto" and (updates_per_rollout > 1 or section.keep_routes)
        self.records_scoring = section.replay == "r2" or several
        self.load = ExpertLoad(self.tap.layers, self.tap.experts)  # since the last `take_metrics`
        self.run_load = ExpertLoad(self.tap.layers, self.tap.experts)
        self._kinds: Tensor | None = None  # bool [rows], True = passed
        self._pending: list[tuple[Tensor, Tensor | None]] = []
        self._replayed = self._updates = 0
        self._fresh = np.zeros((len(self.tap.layers), self.tap.experts), dtype=np.int64)  # since `take_counts`
        self._pair_layers = pair_layers(self.tap.layers) if section.log_load and self.tap.top_k > 1 else ()
        self.tap.keep_scores = section.aux_loss_coef > 0
        self.probabilities = SCORES.get(text_config(model.config).model_type) == "softmax"
        if section.freeze_router:
            freeze_routers(model)

    @property
    def shape(self) -> RouteShape:
        """How routes of this policy look when an engine returns them."""
        depth = text_config(self.tap.model.config).num_hidden_layers
        return RouteShape(self.tap.experts, self.tap.top_k, self.tap.layers, depth)

    # -- hooks ----------------------------------------------------------------------------------------------------

    @contextmanager
    def scoring(self, batch: dict[str, Any]) -> Iterator[None]:
        """Records the routes of the passes in the body, row after row, as `batch["routes"]`; one that has routes
        already is scored with them."""
        routes = routes_of(batch)
        if routes is not None:
            with self.tap.replaying(unpacked(routes)):
                yield
            return
        self.tap.disarm()
        if not self.records_scoring:
            yield
            return
        with self.tap.recording() as passes:
            yield
        if passes:
            batch[ROUTES] = small(torch.cat(passes), self.tap.classes)

    def before_update(self, batch: Mapping[str, Any]) -> None:
        """Arms the routes of a micro-batch, or lets the routers choose where it has none."""
        self.flush()
        advantages = batch.get("advantages")
        if isinstance(advantages, Tensor) and advantages.dim() == 1:
            self._kinds = advantages > 0
        else:
            self._kinds = None
        routes = routes_of(batch)
        self._updates += 1
        if routes is None:
            if self.section.replay == "r3" and self.section.strict:
                raise RoutingError("moe.replay is r3 and a micro-batch has no routes; moe.strict=false lets it choose")
            self.tap.disarm()
            return
        self._replayed += 1
        self.tap.arm(unpacked(routes))

    # -- counting -------------------------------------------------------------------------------------------------

    def _observe(self, routes: Tensor, mask: Tensor | None) -> None:
        if not torch.is_grad_enabled():
            return
        self._pending.append((routes, mask))

    def flush(self) -> None:
        """Counts the update passes seen since the last call."""
        for routes, mask in self._pending:
            valid = fed_tokens(mask if mask is not None else routes.new_ones(routes.shape[:2]))
            counts = count(routes, valid, self.tap.experts)
            self.load.add(counts, [TOTAL])
            for layer in self._pair_layers:
                position = self.tap.layers.index(layer)
                self.load.add_pairs(layer, count_pairs(routes[:, :, position], valid, self.tap.experts))
            self._fresh += counts
            if self._kinds is not None and len(self._kinds) == len(routes):
                for name, rows in (("advantage_up", self._kinds), ("advantage_down", ~self._kinds)):
                    part = count(routes, valid & rows.to(valid.device)[:, None], self.tap.experts)
                    self.load.add(part, [name], batch=False)
        self._pending = []

    def take_counts(self) -> np.ndarray:
        """Returns the counts [MoE layers, experts] of every process since the last call, in one all-reduce."""
        self.flush()
        counts, self._fresh = self._fresh, np.zeros_like(self._fresh)
        return summed_over_ranks(counts)

    def aux_loss(self) -> Tensor:
        """Returns E sum_e f_e P_e, averaged over layers: 1 for even load (arXiv 2408.15664, equation 2).

        f is the share of the recorded choices of the pass just made, replayed ones included, P the live mean
        probability, so the gradient reaches the router. Only for families without a selection bias. Raises
        RoutingError where no pass was made or the family has a bias.
        """
        if any(site.block.bias_name for site in self.tap.sites):
            raise RoutingError("the auxiliary loss is for routers without a selection bias; use moe.balance")
        if not self._pending:
            raise RoutingError("no update pass to take an auxiliary loss of")
        routes, mask = self._pending[-1]
        valid = fed_tokens(mask if mask is not None else routes.new_ones(routes.shape[:2]))
        losses = []
        for site in self.tap.sites:
            if site.scores is None:
                raise RoutingError(f"layer {site.block.layer}: no live scores; aux_loss_coef was 0 when the run began")
            scores = site.scores.reshape(*routes.shape[:2], -1)[valid]
            live = scores if self.probabilities else torch.softmax(scores.float(), dim=-1)
            share = torch.bincount(routes[:, :, site.position][valid].ravel(), minlength=live.shape[-1])
            losses.append(live.shape[-1] * (share / share.sum() * live.mean(dim=0)).sum())
        return torch.stack(losses).mean()

    def take_metrics(self) -> dict[str, float]:
        """Returns the figures of the window just ended and opens the next; every process must call it."""
        self.flush()
        window = all_reduced(self.load)
        self.run_load = self.run_load.merge(window)
        self.load = ExpertLoad(self.tap.layers, self.tap.experts)
        figures = window.metrics(ranks=self.section.ranks) if self.section.log_load else {}
        if self._updates:
            figures["moe/replayed"] = self._replayed / self._updates
        self._replayed = self._updates = 0
        return figures


def routes_of(batch: Mapping[str, Any]) -> Tensor | None:
    """Returns a micro-batch's routes [rows, positions, MoE layers, k] as stored, None where it has none."""
    if ROUTES in batch:
        whole: Tensor = batch[ROUTES]
        return whole
    if PROMPT_ROUTES in batch:
        return torch.cat([batch[PROMPT_ROUTES], batch[COMPLETION_ROUTES]], dim=1)
    return None


def small(routes: Tensor, classes: int) -> Tensor:
    """Returns routes in the smallest dtype with room for -1: uint8 with 255 for it up to 255 experts, else int16."""
    if classes < 256:
        return routes.to(torch.int16).masked_fill(routes < 0, 255).to(torch.uint8)
    return routes.to(torch.int16)


def unpacked(routes: Tensor) -> Tensor:
    """Returns int64 routes with -1 from what `small` made."""
    wide = routes.long()
    return wide.masked_fill(wide == 255, -1) if routes.dtype == torch.uint8 else wide


def fed_tokens(mask: Tensor) -> Tensor:
    """Returns bool [batch, positions]: real tokens but each sequence's last, which feeds nothing."""
    real = mask.bool()
    later = real.long().flip(1).cumsum(1).flip(1)
    return real & (later > 1)


def count(routes: Tensor, valid: Tensor, experts: int) -> np.ndarray:
    """Returns int64 [layers, experts] of routes [batch, positions, layers, k] over valid tokens, made on the device."""
    layers = routes.shape[2]
    chosen = routes[valid.to(routes.device)]  # [tokens, layers, k]
    offsets = torch.arange(layers, device=routes.device)[None, :, None] * experts
    known = (chosen >= 0) & (chosen < experts)
    flat = (chosen + offsets)[known]
    return torch.bincount(flat, minlength=layers * experts).reshape(layers, experts).cpu().numpy()


def summed_over_ranks(counts: np.ndarray) -> np.ndarray:
    """Returns the sum over the default process group, one collective; the counts themselves on one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return counts
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.from_numpy(np.ascontiguousarray(counts)).to(device)
    torch.distributed.all_reduce(total)
    return total.cpu().numpy()


def freeze_routers(model: Any) -> list[str]:
    """Stops the training of every router of a model and returns the parameters' names."""
    frozen = []
    for block in expert_blocks(model):
        for name, parameter in block.block.named_parameters():
            if name.split(".")[0] in ("gate", "router", "moe_gate"):
                parameter.requires_grad_(False)
                frozen.append(f"{block.name}.{name}")
    return frozen


def count_pairs(routes: Tensor, valid: Tensor, experts: int) -> np.ndarray:
    """Returns int64 [experts, experts] of one layer's routes [batch, positions, k]: valid tokens that chose both, made
    on the device."""
    chosen = routes[valid.to(routes.device)].long()  # [tokens, k]
    chosen = chosen[(chosen >= 0).all(dim=-1)]
    both = torch.bincount((chosen[:, :, None] * experts + chosen[:, None, :]).ravel(), minlength=experts * experts)
    return both.reshape(experts, experts).cpu().numpy()
