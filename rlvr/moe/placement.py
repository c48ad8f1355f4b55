"""Which rank holds which experts: from recorded loads to a map with replicas of the busiest, and what it would gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Placement:
    """`slots` [layers, ranks, slots a rank]: the logical expert in each physical slot."""

    slots: np.ndarray
    experts: int

    @property
    def replicas(self) -> np.ndarray:
        """Copies of each expert [layers, experts]."""
        layers = len(self.slots)
        flat = self.slots.reshape(layers, -1) + np.arange(layers)[:, None] * self.experts
        return np.bincount(flat.ravel(), minlength=layers * self.experts).reshape(layers, self.experts)

    def rank_loads(self, load: np.ndarray) -> np.ndarray:
        """Returns [layers, ranks] the load of every rank, an expert's tokens shared evenly among its replicas."""
        share = np.asarray(load, dtype=float) / self.replicas
        return np.take_along_axis(share[:, None, :], self.slots, axis=-1).sum(axis=-1)

    def skew(self, load: np.ndarray) -> np.ndarray:
        """Returns [layers] busiest rank over mean rank, 1 for a layer without load."""
        loads = self.rank_loads(load)
        mean = loads.mean(axis=-1)
        return np.where(mean > 0, loads.max(axis=-1) / np.where(mean > 0, mean, 1.0), 1.0)

    def moved(self, other: Placement) -> int:
        """Returns how many expert copies `other` would have to receive on ranks that do not hold them here."""
        count = 0
        for mine, theirs in zip(self.slots, other.slots, strict=True):
            for held, wanted in zip(mine, theirs, strict=True):
                held_counts, wanted_counts = (np.bincount(x, minlength=self.experts) for x in (held, wanted))
                count += int(np.maximum(wanted_counts - held_counts, 0).sum())
        return count

    def expert_map(self) -> list[list[int]]:
        """Returns the physical-to-logical list of every MoE layer, slots in rank order: the shape vLLM's proposed
        `initial_expert_map_path` reads (pull request 49572)."""
        return self.slots.reshape(len(self.slots), -1).tolist()


def linear_placement(layers: int, experts: int, ranks: int, redundant: int = 0) -> Placement:
    """Returns experts in order, as vLLM starts; redundant slots repeat the experts from 0 on."""
    per_rank = _slots_a_rank(experts, ranks, redundant)
    order = np.arange(experts + redundant) % experts
    return Placement(np.tile(order.reshape(ranks, per_rank), (layers, 1, 1)), experts)


def plan_placement(
    load: np.ndarray,
    ranks: int,
    *,
    redundant: int = 0,
    nodes: int = 1,
    current: Placement | None = None,
    threshold: float = 0.02,
) -> Placement:
    """Returns a placement of `load` [layers, experts] on `ranks` ranks with `redundant` extra slots a layer.

    Each layer: the spare slots go one by one to the expert with the greatest load a replica; replicas are packed
    heaviest first on the lightest rank with room (nodes first, then ranks), then exchanged between ranks while that
    lowers the busiest one. A layer that would end up worse than in order stays in order, and one whose busiest rank
    would improve by less than `threshold` over `current` stays as it is. Raises ValueError for what cannot be placed.
    """
    load = np.asarray(load, dtype=float)
    if load.ndim != 2 or load.size == 0:
        raise ValueError(f"load of shape {list(load.shape)}, expected [layers, experts]")
    if (load < 0).any() or not np.isfinite(load).all():
        raise ValueError("loads must be finite and not negative")
    layers, experts = load.shape
    per_rank = _slots_a_rank(experts, ranks, redundant)
    if nodes < 1 or ranks % nodes:
        raise ValueError(f"{nodes} nodes do not divide {ranks} ranks")
    linear = linear_placement(layers, experts, ranks, redundant)
    if current is not None and current.slots.shape != linear.slots.shape:
        raise ValueError(
            f"the current placement has shape {list(current.slots.shape)}, expected {list(linear.slots.shape)}"
        )
    planned = np.stack([_plan_layer(row, ranks, per_rank, redundant, nodes) for row in load])
    plan = Placement(planned, experts)
    keep = linear.skew(load) <= plan.skew(load)
    planned = np.where(keep[:, None, None], linear.slots, planned)
    if current is not None:
        stay = current.skew(load) <= Placement(planned, experts).skew(load) * (1 + threshold)
        planned = np.where(stay[:, None, None], current.slots, planned)
    return Placement(planned, experts)


def _slots_a_rank(experts: int, ranks: int, redundant: int) -> int:
    if ranks < 1 or redundant < 0:
        raise ValueError(f"{ranks} ranks and {redundant} redundant experts: at least 1 and 0")
    if ranks > experts + redundant:
        raise ValueError(f"{experts} experts cannot fill {ranks} ranks; use at most {experts + redundant}")
    if (experts + redundant) % ranks:
        short = -(experts + redundant) % ranks
        raise ValueError(
            f"{experts} + {redundant} experts do not divide over {ranks} ranks; {redundant + short}"
            " redundant ones would"
        )
    return (experts + redundant) // ranks


def _plan_layer(load: np.ndarray, ranks: int, per_rank: int, redundant: int, nodes: int) -> np.ndarray:
    copies = np.ones(len(load), dtype=int)
    for _ in range(redundant):
        share = np.where(copies < ranks, load / copies, -1.0)  # a second copy on one rank would gain nothing
        copies[int(np.argmax(share))] += 1
    items = np.repeat(np.arange(len(load)), copies)
    weights = np.repeat(load / copies, copies)
    by_node = _pack(items, weights, nodes, per_rank * (ranks // nodes))
    rows: list[np.ndarray] = []
    for chosen in by_node:
        members = _pack(items[chosen], weights[chosen], ranks // nodes, per_rank)
        rows.extend(chosen[part] for part in members)
    bins = [list(row) for row in rows]
    _exchange(bins, items, weights)
    return np.array([sorted(items[part]) for part in bins])


def _pack(items: np.ndarray, weights: np.ndarray, bins: int, room: int) -> list[np.ndarray]:
    """Heaviest first into the lightest bin with room, away from other copies of the same expert where possible."""
    members: list[list[int]] = [[] for _ in range(bins)]
    totals = np.zeros(bins)
    for index in np.argsort(-weights, kind="stable"):
        open_bins = [b for b in range(bins) if len(members[b]) < room]
        apart = [b for b in open_bins if all(items[i] != items[index] for i in members[b])]
        best = min(apart or open_bins, key=lambda b: totals[b])
        members[best].append(int(index))
        totals[best] += weights[index]
    return [np.array(part, dtype=int) for part in members]


def _exchange(bins: list[list[int]], items: np.ndarray, weights: np.ndarray) -> None:
    """Swaps one item of the busiest bin with a lighter one elsewhere while the busier of the two gets lighter."""
    for _ in range(4 * len(items)):
        totals = np.array([weights[part].sum() for part in bins])
        top = int(totals.argmax())
        best: tuple[float, int, int, int] | None = None
        for other in range(len(bins)):
            if other == top:
                continue
            moved = weights[bins[top]][:, None] - weights[bins[other]][None, :]
            busier = np.maximum(totals[top] - moved, totals[other] + moved)
            # a copy must not join another copy of its expert
            here, there = items[bins[top]], items[bins[other]]
            clash = np.isin(here, there)[:, None] | np.isin(there, here)
            busier[clash | (moved <= 0)] = np.inf
            i, j = divmod(int(busier.argmin()), busier.shape[1])
            if best is None or busier[i, j] < best[0]:
                best = (float(busier[i, j]), other, i, j)
        if best is None or best[0] >= totals[top] * (1 - 1e-9):
            return
        _, other, i, j = best
        bins[top][i], bins[other][j] = bins[other][j], bins[top][i]


def placement_of(expert_map: object, experts: int, ranks: int, where: str = "map") -> Placement:
    """Reads what `expert_map` wrote; raises ValueError naming `where` and what is wrong."""
    lists = expert_map if isinstance(expert_map, list) and all(isinstance(row, list) for row in expert_map) else []
    if len({len(row) for row in lists}) > 1:
        raise ValueError(f"{where}: its lists differ in length, {' and '.join(map(str, sorted(map(len, lists))))}")
    rows = np.asarray(lists)
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise ValueError(f"{where}: expected one list of expert numbers a layer")
    if rows.shape[1] % ranks:
        raise ValueError(f"{where}: {rows.shape[1]} slots do not divide over {ranks} ranks")
    missing = [layer for layer, row in enumerate(rows) if set(row.tolist()) != set(range(experts))]
    if missing:
        raise ValueError(f"{where}: list {missing[0]} does not hold every expert from 0 to {experts - 1}, and no other")
    return Placement(rows.reshape(len(rows), ranks, -1), experts)


def heat_map(loads: np.ndarray, names: list[str]) -> str:
    """Returns rank loads [rows, ranks] as text: one row a line, shade by load over the row's mean."""
    shades = " ░▒▓█"
    lines = []
    for name, row in zip(names, loads, strict=True):
        mean = row.mean() or 1.0
        cells = "".join(shades[min(4, int(load / mean * 2))] for load in row)
        lines.append(f"{name:>8s} |{cells}| {row.max() / mean:5.2f}")
    return "\n".join(lines)
