"""An update's rollouts cut into micro-batches anew: those without a signal left out, the others beside their like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rlvr.algorithms.correction import loss_mask

# What a loss divides by. "items": the tokens of the whole generation batch; "rows": the rows of the micro-batch;
# "tokens": the tokens of the micro-batch.
DENOMINATOR = {
    "dapo": "items",
    "cispo": "items",
    "vespo": "items",
    "grpo": "rows",
    "sapo": "rows",
    "dr_grpo": "rows",
    "luspo": "rows",
    "bnpo": "tokens",
}

_EXACT_ROWS = 256  # the best cut takes rows^2 x micro-batches operations: beyond this many rows it is approximated


class PackedUpdate:
    """The micro-batches of one optimiser update, repacked; the gradient is the one of the micro-batches given.

    The policy loss of a row is linear in its advantage, and the advantage's size decides nothing else. So a row of
    advantage exactly 0 (or with every token masked) adds nothing and is left out, and what a row's old micro-batch
    divided by is carried into its new one as a factor on the advantage. Valid only where no other term (KL, entropy
    bonus, router balance) needs the rows: with `skip` off and a loss that divides by "items", KL is exact too.

    Sequences of similar length share a micro-batch, and padding that no row needs is cut: after the completions, and
    before the prompts where `trim_prompts` says that positions are relative (rotary), since a shift changes absolute
    ones. A micro-batch holds at most as many padded tokens as the largest one given.

    micro_batches: TRL's inputs; prompts [rows, prompt] padded on the left, completions [rows, completion] on the
    right. overhead: what starting a micro-batch costs, in tokens.
    """

    def __init__(
        self,
        micro_batches: Sequence[dict[str, Any]],
        loss_type: str,
        *,
        skip: bool = True,
        trim_prompts: bool = True,
        overhead: int = 0,
    ) -> None:
        self.slots = len(micro_batches)
        self.trim_prompts = trim_prompts
        self.denominator = DENOMINATOR[loss_type]
        sizes = [len(batch["advantages"]) for batch in micro_batches]
        self.rows = _concatenated(micro_batches, sizes)
        self.total = sum(sizes)
        tokens = loss_mask(self.rows).sum(dim=1)
        rejected = self.rows.pop("rejected", None)  # rows that left the denominator too
        share = self.rows["advantages"].new_ones(self.total)  # what a row's own micro-batch divided its loss by
        for batch, start in zip(micro_batches, np.cumsum([0, *sizes[:-1]]), strict=True):
            rows = slice(int(start), int(start) + len(batch["advantages"]))
            if self.denominator == "rows":
                left = 0 if rejected is None else int(rejected[rows].sum())
                share[rows] = max(1, len(batch["advantages"]) - left)
            elif self.denominator == "tokens":
                share[rows] = tokens[rows].sum().clamp(min=1)
        self.share = share

        signal = (self.rows["advantages"] != 0).reshape(self.total, -1).any(dim=1) & (tokens > 0)
        if not skip:
            signal = torch.ones_like(signal)
        elif not signal.any():
            signal[0] = True  # one row stays, so that every process runs a forward and a backward pass
        self.kept = signal.nonzero().squeeze(1)
        self._plan = _Plan(
            self.rows["prompt_mask"].sum(dim=1)[self.kept].cpu().numpy()
            if trim_prompts
            else np.full(len(self.kept), self.rows["prompt_mask"].shape[1]),
            self.rows["completion_mask"].sum(dim=1)[self.kept].clamp(min=1).cpu().numpy(),
            slots=self.slots,
            room=max(sizes) * (self.rows["prompt_ids"].shape[1] + self.rows["completion_ids"].shape[1]),
            overhead=overhead,
        )

    @property
    def skipped(self) -> float:
        """Share of the rows left out."""
        return 1.0 - len(self.kept) / self.total

    @property
    def wanted(self) -> int:
        """How many micro-batches suit these rows best. Processes must agree on the largest of their numbers."""
        return self._plan.wanted

    def micro_batches(self, count: int) -> list[dict[str, Any]]:
        """Returns as many micro-batches as were given: `count` real ones, and empty dicts before them.

        The empty ones come first because gradients are exchanged at the last one.
        """
        packed = [self._take(self.kept[torch.as_tensor(part)]) for part in self._plan.parts(count)]
        while len(packed) < count:  # another process needs more: a row whose loss is exactly 0
            idle = self._take(self.kept[:1])
            idle["advantages"] = torch.zeros_like(idle["advantages"])
            packed.insert(0, idle)
        return [{} for _ in range(self.slots - count)] + packed

    def _take(self, index: torch.Tensor) -> dict[str, Any]:
        index = index.to(self.share.device)
        taken: dict[str, Any] = {
            name: value.index_select(0, index) if _per_row(value, self.total) else value
            for name, value in self.rows.items()
        }
        prompt = int(taken["prompt_mask"].sum(dim=1).max()) if self.trim_prompts else taken["prompt_mask"].shape[1]
        completion = max(1, int(taken["completion_mask"].sum(dim=1).max()))
        width = self.rows["completion_mask"].shape[1]
        for name, value in taken.items():
            if name in ("prompt_ids", "prompt_mask", "prompt_routes"):
                taken[name] = value[:, value.shape[1] - prompt :]
            elif _per_row(value, len(index)) and value.ndim >= 2 and value.shape[1] == width:
                taken[name] = value[:, :completion]
        if self.denominator != "items":
            own = len(index) if self.denominator == "rows" else loss_mask(taken).sum().clamp(min=1)
            factor = own / self.share[index]
            advantages = taken["advantages"]
            taken["advantages"] = advantages * factor.reshape(-1, *[1] * (advantages.ndim - 1)).to(advantages.dtype)
        return taken


class _Plan:
    """Cuts rows, sorted by length, into parts so that padded tokens and the cost of starting parts are least."""

    def __init__(self, prompts: np.ndarray, completions: np.ndarray, *, slots: int, room: int, overhead: int) -> None:
        self.slots = min(slots, len(prompts))
        cutter = _BestCuts if len(prompts) <= _EXACT_ROWS else _GreedyCuts
        orders = np.lexsort((-prompts, -completions)), np.argsort(-(prompts + completions), kind="stable")
        candidates = [cutter(order, prompts[order], completions[order], self.slots, room) for order in orders]
        costs = [cuts.costs + overhead * np.arange(1, self.slots + 1) for cuts in candidates]
        best = min(range(len(candidates)), key=lambda i: float(costs[i].min()))
        self._cuts = candidates[best]
        self.wanted = int(np.argmin(costs[best])) + 1

    def parts(self, count: int) -> list[np.ndarray]:
        return self._cuts.parts(min(count, self.slots))


class _BestCuts:
    """The cheapest contiguous parts of rows in one order, for every number of parts; `costs` in padded tokens.

    Cutting a part in two never makes it larger, so once a number of parts fits the room, every larger one does.
    """

    def __init__(self, order: np.ndarray, prompts: np.ndarray, completions: np.ndarray, slots: int, room: int) -> None:
        self.order = order
        rows = len(order)
        cost = np.full((rows, rows + 1), np.inf)  # [first row, row behind the last]
        for first in range(rows):
            widest = np.maximum.accumulate(prompts[first:]) + np.maximum.accumulate(completions[first:])
            cost[first, first + 1 :] = widest * np.arange(1, rows - first + 1)
        cost[cost > room] = np.inf
        best = cost[0].copy()  # [rows taken]
        self.costs = np.full(slots, np.inf)
        self.costs[0] = best[rows]
        self._back: list[np.ndarray] = []
        for part in range(1, slots):
            through = best[:rows, None] + cost  # [cut before the last part, rows taken]
            self._back.append(np.argmin(through, axis=0))
            best = through.min(axis=0)
            self.costs[part] = best[rows]

    def parts(self, count: int) -> list[np.ndarray]:
        end, found = len(self.order), []
        for part in range(count - 1, 0, -1):
            start = int(self._back[part - 1][end])
            found.append(self.order[start:end])
            end = start
        found.append(self.order[:end])
        return found[::-1]


class _GreedyCuts:
    """Parts filled from the longest row on until the room is used up; more parts by halving the largest."""

    def __init__(self, order: np.ndarray, prompts: np.ndarray, completions: np.ndarray, slots: int, room: int) -> None:
        self.order = order
        self._lengths = prompts, completions
        edges, start = [0], 0
        widest = [0, 0]
        for row, lengths in enumerate(zip(prompts.tolist(), completions.tolist(), strict=True)):
            grown = [max(pair) for pair in zip(widest, lengths, strict=True)]
            if sum(grown) * (row + 1 - start) > room and row > start:
                edges.append(row)
                start, grown = row, list(lengths)
            widest = grown
        edges.append(len(order))
        self._edges = {len(edges) - 1: edges}
        self.costs = np.full(slots, np.inf)
        for count in range(len(edges) - 1, slots + 1):
            if count not in self._edges:
                previous = self._edges[count - 1]
                widths = np.diff(previous)
                split = int(np.argmax(widths))
                middle = previous[split] + int(widths[split]) // 2
                self._edges[count] = [*previous[: split + 1], middle, *previous[split + 1 :]]
            self.costs[count - 1] = self._cost(self._edges[count])

    def _cost(self, edges: list[int]) -> float:
        tops = sum(np.maximum.reduceat(lengths, edges[:-1]) for lengths in self._lengths)
        return float((tops * np.diff(edges)).sum())

    def parts(self, count: int) -> list[np.ndarray]:
        return np.split(self.order, self._edges[count][1:-1])


def _per_row(value: Any, rows: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == rows


def _concatenated(micro_batches: Sequence[dict[str, Any]], sizes: Sequence[int]) -> dict[str, Any]:
    first = micro_batches[0]
    return {
        name: torch.cat([batch[name] for batch in micro_batches]) if _per_row(value, sizes[0]) else value
        for name, value in first.items()
    }
