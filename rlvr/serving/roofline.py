"""How long a forward pass takes at best: bytes over bandwidth against arithmetic over FLOP/s, experts as touched.

A decode step reads every weight it uses once, whatever the batch. Of E experts of which a token uses k, a batch of B
touches E (1 - (1 - k/E)^B) in each layer under even routing, so a token of a mixture-of-experts model is dear in a
small batch and cheap in a full one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rlvr.moe.facts import ModelFacts
from rlvr.serving.hardware import Hardware


@dataclass(frozen=True)
class Efficiency:
    """Shares of the published peaks that are reached, and a fixed cost of a step in seconds.

    The defaults are assumptions; `fitted` puts measured steps in their place.
    """

    bandwidth: float = 0.8
    flops: float = 0.5
    link: float = 0.6
    overhead: float = 0.0


ASSUMED = Efficiency()


def experts_touched(experts: int, top_k: int, tokens: float) -> float:
    """Returns the expected number of distinct experts of a layer that `tokens` tokens touch under even routing."""
    if not experts:
        return 0.0
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


@dataclass(frozen=True)
class StepModel:
    """Time of forward passes of one model replica spread over `tp` devices with `ep` expert-parallel ranks.

    `skew` is busiest over mean rank load (1 = even): it multiplies the expert term where experts are spread.
    `weight_bytes`, `kv_bytes`: bytes an element.
    """

    facts: ModelFacts
    hardware: Hardware
    tp: int = 1
    ep: int = 1
    skew: float = 1.0
    weight_bytes: int = 2
    kv_bytes: int = 2
    efficiency: Efficiency = ASSUMED

    @property
    def always_read(self) -> int:
        """Parameters every decode step reads: all but routed experts and the input embedding (a few rows of it)."""
        facts = self.facts
        table = facts.vocabulary * facts.hidden
        tied = facts.embedding_parameters <= table
        return facts.parameters - facts.expert_parameters - (0 if tied else table)

    def decode_bytes(self, batch: float, context: float) -> float:
        """Bytes a decode step of `batch` sequences of `context` tokens reads on all devices of the replica."""
        facts = self.facts
        touched = experts_touched(facts.experts, facts.top_k, batch) * len(facts.moe_layers)
        experts = touched * facts.parameters_per_expert
        cache = batch * facts.kv_bytes(int(context), self.kv_bytes)
        return (self.always_read + experts) * self.weight_bytes + cache

    def decode_step(self, batch: float, context: float) -> float:
        """Seconds of one decode step: each of `batch` sequences of `context` tokens gains a token.

        Where experts are spread over more devices than attention (`ep` > `tp`), `batch` is one attention group's and
        the experts see the tokens of all `ep / tp` groups.
        """
        facts, device, share = self.facts, self.hardware.device, self.efficiency
        groups = max(1, self.ep // self.tp)
        touched = experts_touched(facts.experts, facts.top_k, batch * groups) * len(facts.moe_layers)
        spread = max(self.tp, self.ep)
        expert_bytes = touched * facts.parameters_per_expert * self.weight_bytes / spread
        other_bytes = self.always_read * self.weight_bytes / self.tp
        other_bytes += batch * facts.kv_bytes(int(context), self.kv_bytes) / self.tp
        active_experts = facts.parameters_per_expert * facts.top_k * len(facts.moe_layers)
        expert_flops = 2 * batch * groups * active_experts / spread
        other_flops = 2 * batch * self.always_read / self.tp
        other_flops += 4 * batch * context * facts.hidden * facts.layers / self.tp
        skew = self.skew if self.ep > 1 else 1.0
        reads = (other_bytes + expert_bytes * skew) / (device.bandwidth * share.bandwidth)
        computes = (other_flops + expert_flops * skew) / (device.flops * share.flops)
        return max(reads, computes) + self.communication(batch) + share.overhead

    def communication(self, tokens: float) -> float:
        """Seconds a pass of `tokens` tokens spends between devices: two all-reduces a layer under TP, a dispatch and a
        combine a MoE layer under EP."""
        facts, device = self.facts, self.hardware.device
        link = device.link * self.efficiency.link if device.link else 12e9  # PCIe, both ways through the host
        seconds = 0.0
        if self.tp > 1:
            ring = 2 * (self.tp - 1) / self.tp
            seconds += 2 * facts.layers * ring * tokens * facts.hidden * 2 / link
        if self.ep > 1 and facts.experts:
            away = (self.ep - 1) / self.ep
            seconds += 2 * len(facts.moe_layers) * away * tokens * min(facts.top_k, self.ep) * facts.hidden * 2 / link
        return seconds

    def prefill(self, tokens: float) -> float:
        """Seconds to read a prompt of `tokens` tokens alone."""
        facts, device, share = self.facts, self.hardware.device, self.efficiency
        touched = experts_touched(facts.experts, facts.top_k, tokens) * len(facts.moe_layers)
        reads = (self.always_read + touched * facts.parameters_per_expert) * self.weight_bytes / self.tp
        active = self.always_read + facts.parameters_per_expert * facts.top_k * len(facts.moe_layers)
        flops = 2 * tokens * active + 2 * tokens * tokens * facts.hidden * facts.layers
        bound = max(reads / (device.bandwidth * share.bandwidth), flops / self.tp / (device.flops * share.flops))
        return bound + self.communication(tokens) + share.overhead

    def token_time(self, batch: float, context: float) -> float:
        """Seconds of the replica's time a token costs in a batch of `batch`: step time over batch."""
        return self.decode_step(batch, context) / batch


def fitted(model: StepModel, measured: list[tuple[int, int, float]]) -> Efficiency:
    """Returns the efficiency under which `model` fits measured decode steps (batch, context, seconds) best.

    Least squares of the relative error in the shares of bandwidth and FLOP/s and in the fixed cost of a step. A share
    that none of the steps is bound by stays as it was. Raises ValueError for steps at fewer than two batch sizes.
    """
    import numpy as np
    from scipy.optimize import least_squares

    if len({(batch, context) for batch, context, _ in measured}) < 2:
        raise ValueError("fitting needs measured steps at two batch sizes at least")
    shortest = min(seconds for *_, seconds in measured)

    given = [math.log2(model.efficiency.bandwidth), math.log2(model.efficiency.flops)]

    def efficiency(point: np.ndarray) -> Efficiency:
        bandwidth, flops, overhead = map(float, point)
        return replace(model.efficiency, bandwidth=2.0**bandwidth, flops=2.0**flops, overhead=overhead * shortest)

    def errors(point: np.ndarray) -> np.ndarray:
        candidate = replace(model, efficiency=efficiency(point))
        return np.array([candidate.decode_step(batch, context) / seconds - 1.0 for batch, context, seconds in measured])

    starts = [(given[0] - low, given[1] - less, 0.1) for low in (0, 2, 4) for less in (0, 2, 4)]
    bounds = ([-20, -20, 0], [0, 0, 1])
    found = [least_squares(errors, start, bounds=bounds, xtol=1e-12, ftol=1e-12) for start in starts]
    point = min(found, key=lambda one: one.cost).x
    for share, assumed in enumerate(given):
        other = point.copy()
        other[share] = assumed
        if np.allclose(errors(other), errors(point), atol=1e-9):
            point = other
    return efficiency(point)
