"""Expert load: counts by layer, expert and kind of token, and the figures read from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOTAL = "all"
PAIR_LAYERS = 4  # layers whose pairs a run counts; experts x experts each, in every checkpoint


def pair_layers(layers: Sequence[int], most: int = PAIR_LAYERS) -> tuple[int, ...]:
    """Returns at most `most` of the layers, evenly spaced from the first to the last."""
    if len(layers) <= most:
        return tuple(layers)
    return tuple(layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most))


def max_violation(counts: np.ndarray) -> np.ndarray:
    """Returns MaxVio [layers] = busiest expert over mean, minus one (arXiv 2408.15664); NaN without load."""
    mean = counts.mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean > 0, counts.max(axis=-1) / mean - 1.0, np.nan)


def load_entropy(counts: np.ndarray) -> np.ndarray:
    """Returns [layers] the entropy of the load over its greatest possible: 1 = even, 0 = one expert does everything."""
    total = counts.sum(axis=-1, keepdims=True)
    share = counts / np.maximum(total, 1)
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(axis=-1)
    return np.where(total[..., 0] > 0, entropy / math.log(counts.shape[-1]), np.nan)


def dead_experts(counts: np.ndarray) -> np.ndarray:
    """Returns [layers] the number of experts that were never chosen."""
    return (counts == 0).sum(axis=-1)


def rank_skew(counts: np.ndarray, ranks: int) -> np.ndarray:
    """Returns [layers] busiest rank over mean rank for experts placed in order on `ranks` ranks.

    Raises ValueError where the ranks do not divide the experts.
    """
    layers, experts = counts.shape
    if experts % ranks:
        raise ValueError(f"{ranks} ranks do not divide {experts} experts")
    loads = counts.reshape(layers, ranks, -1).sum(axis=-1)
    mean = loads.mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean > 0, loads.max(axis=-1) / mean, np.nan)


def coactivation(routes: np.ndarray, experts: int) -> np.ndarray:
    """Returns int64 [layers, experts, experts]: how many tokens chose both experts, the diagonal each expert's load.

    routes: [tokens, layers, k]; a token with an id of -1 in a layer is not known there and left out.
    """
    layers = routes.shape[1]
    result = np.zeros((layers, experts * experts), dtype=np.int64)
    for layer in range(layers):
        chosen = routes[:, layer].astype(np.int64)
        chosen = chosen[(chosen >= 0).all(axis=-1)]
        pairs = chosen[:, :, None] * experts + chosen[:, None, :]
        result[layer] = np.bincount(pairs.ravel(), minlength=experts * experts)
    return result.reshape(layers, experts, experts)


def over_chance(together: np.ndarray) -> np.ndarray:
    """Returns [experts, experts]: how often two experts are chosen together over what their loads alone would give.

    together: a layer of `coactivation`. 1 is chance; NaN on the diagonal and for pairs with an expert never chosen.
    """
    pairs = together.astype(float)
    load = np.diagonal(pairs).copy()
    expected = np.outer(load, load)
    for table in (pairs, expected):
        np.fill_diagonal(table, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = pairs / pairs.sum() / (expected / expected.sum())
    np.fill_diagonal(ratio, np.nan)
    return np.where(expected > 0, ratio, np.nan)


@dataclass(frozen=True)
class LayerRouting:
    """How one MoE layer routes a set of tokens.

    `pair`: the two experts chosen together most often, for `together` of the tokens, `over_chance` times as often as
    their loads alone would have it; None where a token takes one expert.
    """

    layer: int
    tokens: int
    max_violation: float
    load_entropy: float
    dead_experts: int
    pair: tuple[int, int] | None = None
    together: float = 0.0
    over_chance: float = 1.0


def layer_routing(routes: np.ndarray, experts: int, layers: Sequence[int]) -> tuple[LayerRouting, ...]:
    """Returns the LayerRouting of every layer of `routes` [tokens, layers, k] that has a known token."""
    found = []
    for layer, both in zip(layers, coactivation(routes, experts), strict=True):
        counts = np.diagonal(both)[None]
        tokens = int(counts.sum()) // routes.shape[-1]
        if not tokens:
            continue
        pair, together, times = None, 0.0, 1.0
        upper = np.triu(both, 1)
        if upper.any():
            first, second = (int(x) for x in np.unravel_index(upper.argmax(), upper.shape))
            pair, together = (first, second), float(upper[first, second] / tokens)
            times = float(over_chance(both)[first, second])
        found.append(
            LayerRouting(
                layer,
                tokens,
                float(max_violation(counts)[0]),
                float(load_entropy(counts)[0]),
                int(dead_experts(counts)[0]),
                pair,
                together,
                times,
            )
        )
    return tuple(found)


def agreement(left: np.ndarray, right: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Returns [layers] the share of tokens sent to the same set of experts by both routes [..., layers, k]."""
    same = (np.sort(left, axis=-1) == np.sort(right, axis=-1)).all(axis=-1)
    both = (left >= 0).all(axis=-1) & (right >= 0).all(axis=-1)
    if valid is not None:
        both &= np.asarray(valid, dtype=bool)[..., None]
    axes = tuple(range(same.ndim - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(both.sum(axis=axes) > 0, (same & both).sum(axis=axes) / both.sum(axis=axes), np.nan)


@dataclass
class ExpertLoad:
    """Counts of a window, by kind of token; windows of several processes or steps add up in any order.

    `layers` are absolute decoder indices. Kinds are free words such as "update", "decode", "passed"; every token is
    also counted under "all" once, by the caller naming it so. `pairs`: for some layers [experts, experts], tokens that
    chose both experts, the diagonal each one's load.
    """

    layers: tuple[int, ...]
    experts: int
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    batches: int = 0
    batch_violation: np.ndarray | None = None  # sum over batches of MaxVio [layers]
    pairs: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, counts: np.ndarray, kinds: Iterable[str] = (TOTAL,), *, batch: bool = True) -> None:
        """Adds counts [layers, experts] under each kind; `batch` says they are a whole batch for MaxVio_batch."""
        counts = np.asarray(counts)
        if counts.shape != (len(self.layers), self.experts):
            raise ValueError(
                f"counts of shape {list(counts.shape)} for a model of {len(self.layers)} MoE layers and"
                f" {self.experts} experts: they are another model's"
            )
        for kind in kinds:
            self.counts[kind] = self.counts.get(kind, np.zeros(counts.shape, dtype=np.int64)) + counts
        if batch:
            violation = np.nan_to_num(max_violation(counts))
            self.batch_violation = violation if self.batch_violation is None else self.batch_violation + violation
            self.batches += 1

    def add_pairs(self, layer: int, together: np.ndarray) -> None:
        """Adds tokens [experts, experts] that chose two experts of `layer` together."""
        together = np.asarray(together)
        if layer not in self.layers or together.shape != (self.experts, self.experts):
            raise ValueError(
                f"pairs of layer {layer} of shape {list(together.shape)} for a model with experts in layers"
                f" {list(self.layers)}, {self.experts} each: they are another model's"
            )
        self.pairs[layer] = self.pairs.get(layer, np.zeros(together.shape, dtype=np.int64)) + together

    def merge(self, other: ExpertLoad) -> ExpertLoad:
        """Returns the load of both windows together; associative and commutative."""
        if (self.layers, self.experts) != (other.layers, other.experts):
            raise ValueError("the loads of two different models cannot be added")
        merged = ExpertLoad(self.layers, self.experts)
        for part in (self, other):
            for kind, counts in part.counts.items():
                merged.counts[kind] = merged.counts.get(kind, np.zeros_like(counts)) + counts
            for layer, together in part.pairs.items():
                merged.add_pairs(layer, together)
            if part.batch_violation is not None:
                merged.batch_violation = (
                    part.batch_violation.copy()
                    if merged.batch_violation is None
                    else merged.batch_violation + part.batch_violation
                )
            merged.batches += part.batches
        return merged

    def metrics(self, prefix: str = "moe/", ranks: int | None = None) -> dict[str, float]:
        """Returns the window's figures, averaged over layers where not named otherwise; empty for an empty window."""
        total = self.counts.get(TOTAL)
        if total is None or not total.sum():
            return {}
        violation = max_violation(total)
        figures = {
            "max_violation_window": float(np.nanmean(violation)),
            "max_violation_worst_layer": float(np.nanmax(violation)),
            "load_entropy": float(np.nanmean(load_entropy(total))),
            "dead_experts": float(dead_experts(total).mean()),
        }
        if self.batches and self.batch_violation is not None:
            figures["max_violation_batch"] = float((self.batch_violation / self.batches).mean())
        if ranks and self.experts % ranks == 0:
            figures["rank_skew"] = float(np.nanmean(rank_skew(total, ranks)))
        for kind, counts in self.counts.items():
            if kind != TOTAL and counts.sum():
                figures[f"max_violation/{kind}"] = float(np.nanmean(max_violation(counts)))
        return {f"{prefix}{name}": value for name, value in figures.items()}

    def as_dict(self) -> dict[str, Any]:
        """Returns the window for JSON."""
        return {
            "layers": list(self.layers),
            "experts": self.experts,
            "batches": self.batches,
            "batch_violation": None if self.batch_violation is None else self.batch_violation.tolist(),
            "counts": {kind: counts.tolist() for kind, counts in self.counts.items()},
            "pairs": {str(layer): together.tolist() for layer, together in self.pairs.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "load") -> ExpertLoad:
        """Reads what `as_dict` wrote; raises ValueError naming `where` and what is wrong."""
        try:
            if not isinstance(values, Mapping):
                raise TypeError(f"a {type(values).__name__}")
            load = cls(tuple(values["layers"]), int(values["experts"]))
            if not isinstance(values["counts"], Mapping):
                raise TypeError(f"counts: a {type(values['counts']).__name__}, expected one matrix a kind")
            for kind, counts in values["counts"].items():
                load.add(np.asarray(counts, dtype=np.int64), [kind], batch=False)
            for layer, together in values.get("pairs", {}).items():
                load.add_pairs(int(layer), np.asarray(together, dtype=np.int64))
            load.batches = int(values.get("batches", 0))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{where}: not an expert load: {reason}") from None
        violation = values.get("batch_violation")
        load.batch_violation = None if violation is None else np.asarray(violation, dtype=float)
        return load


def all_reduced(load: ExpertLoad) -> ExpertLoad:
    """Returns the load of all processes of the default group together; the same load where there is one process."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return load
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, load.as_dict())
    merged = ExpertLoad.from_dict(parts[0])
    for part in parts[1:]:
        merged = merged.merge(ExpertLoad.from_dict(part))
    return merged
