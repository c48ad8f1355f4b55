"""Routes of a sequence: which experts each token was sent to, small enough to keep with the rollout."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlvr.moe.facts import ModelFacts


class RouteMismatch(ValueError):
    """Routes that do not belong to the sequence, the model or the engine at hand; one line that says why."""


@dataclass(frozen=True)
class RouteShape:
    """How a model's routes look: `layers` are the absolute decoder indices of its MoE layers, `depth` counts all."""

    experts: int
    top_k: int
    layers: tuple[int, ...]
    depth: int

    @classmethod
    def of(cls, facts: ModelFacts) -> RouteShape:
        """Returns the shape of a model's routes; raises RouteMismatch for a model whose routes cannot be had."""
        if not facts.experts or facts.tap:
            raise RouteMismatch(f"{facts.name}: {facts.tap or 'a dense model has no routes'}")
        return cls(facts.experts, facts.top_k, facts.moe_layers, facts.layers)

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """uint8 up to 256 experts, else uint16, as vLLM returns them."""
        return np.uint8 if self.experts <= 256 else np.uint16


@dataclass(frozen=True)
class Routes:
    """Experts [tokens, MoE layers, k] of the tokens `start`, `start` + 1, ... of one sequence.

    `known` [tokens] is False where the engine returned no row. The last sampled token was never fed to the model, so
    it has none.
    """

    ids: np.ndarray
    known: np.ndarray
    start: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def to_bytes(self) -> bytes:
        """Returns the routes as one npy block; unknown rows are marked by the first token they have in common."""
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.array([self.start], dtype=np.int64), allow_pickle=False)
        np.lib.format.write_array(stream, np.ascontiguousarray(self.ids), allow_pickle=False)
        np.lib.format.write_array(stream, np.packbits(self.known), allow_pickle=False)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Routes:
        """Reads what `to_bytes` wrote; raises RouteMismatch where it is something else."""
        stream = io.BytesIO(data)
        try:
            start = int(np.lib.format.read_array(stream, allow_pickle=False)[0])
            ids = np.lib.format.read_array(stream, allow_pickle=False)
            known = np.unpackbits(np.lib.format.read_array(stream, allow_pickle=False), count=len(ids)).astype(bool)
        except (ValueError, IndexError) as error:
            raise RouteMismatch(f"not a block of routes: {error}") from None
        return cls(ids, known, start)


def from_engine(array: np.ndarray, shape: RouteShape, length: int, *, start: int = 0) -> Routes:
    """Returns the routes of a sequence of `length` tokens from what vLLM returned: [length - 1 - start, depth, k].

    vLLM's layer axis counts every decoder layer, and a row it has no routes for is all zero; with k > 1 that cannot be
    a choice, with k = 1 it is taken as one. Raises RouteMismatch for another length, another model or ids that repeat.
    """
    rows = length - 1 - start
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[1:] != (shape.depth, shape.top_k):
        raise RouteMismatch(
            f"routes of shape {list(array.shape)}: this model's are [tokens, {shape.depth} layers, {shape.top_k}"
            " experts]; another model or another version of the engine returned them"
        )
    if len(array) != rows:
        raise RouteMismatch(
            f"routes of {len(array)} tokens for a sequence of {length}"
            f"{f' from token {start} on' if start else ''}: expected {rows} (the last token has none)"
        )
    ids = array[:, list(shape.layers)]
    return checked(ids, shape, start)


def checked(ids: np.ndarray, shape: RouteShape, start: int = 0) -> Routes:
    """Returns Routes of ids [tokens, MoE layers, k] in the small dtype; raises RouteMismatch for impossible ones."""
    ids = np.asarray(ids)
    if ids.ndim != 3 or ids.shape[1:] != (len(shape.layers), shape.top_k):
        raise RouteMismatch(
            f"routes of shape {list(ids.shape)}, expected [tokens, {len(shape.layers)} MoE layers,"
            f" {shape.top_k} experts]"
        )
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < shape.experts:
        raise RouteMismatch(
            f"routes name expert {int(ids.max() if ids.max() >= shape.experts else ids.min())}, this model has"
            f" {shape.experts}: they are another model's"
        )
    known = np.ones(len(ids), dtype=bool)
    if shape.top_k > 1 and len(ids):
        ordered = np.sort(ids, axis=-1)
        repeats = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)  # [tokens, layers]
        empty = (ids == 0).all(axis=(1, 2))
        known = ~empty
        if repeats[known].any():
            token, layer = np.argwhere(repeats & known[:, None])[0]
            raise RouteMismatch(
                f"token {start + int(token)} is routed twice to one expert in layer {shape.layers[int(layer)]}:"
                f" {ids[token, layer].tolist()}; the routes are damaged"
            )
    return Routes(ids.astype(shape.dtype), known, start)


def aligned(
    routes: Sequence[Routes | None],
    prompt_lengths: Sequence[int],
    lengths: Sequence[int],
    *,
    prompt_width: int,
    width: int,
    shape: RouteShape,
    strict: bool = True,
) -> np.ndarray:
    """Returns int32 [sequences, width, MoE layers, k] for a batch of prompts padded on the left to `prompt_width` and
    completions padded on the right, -1 where the router shall choose.

    `lengths` are of prompt and completion together. `strict` insists that every sequence has routes for every token
    but its last; otherwise what is missing is left to the router. Raises RouteMismatch.
    """
    batch = np.full((len(routes), width, len(shape.layers), shape.top_k), -1, dtype=np.int32)
    for row, (route, prompt, length) in enumerate(zip(routes, prompt_lengths, lengths, strict=True)):
        if route is None:
            if strict:
                raise RouteMismatch(f"sequence {row} of the batch has no routes")
            continue
        if route.ids.shape[1:] != batch.shape[2:]:
            raise RouteMismatch(
                f"sequence {row}: routes of shape {list(route.ids.shape)}, expected {list(batch.shape[2:])} a token"
            )
        if route.start + len(route) != length - 1:
            raise RouteMismatch(
                f"sequence {row}: routes end at token {route.start + len(route)}, the sequence has {length} tokens"
                f" (expected {length - 1})"
            )
        if strict and (route.start or not route.known.all()):
            raise RouteMismatch(f"sequence {row}: {route.start + int((~route.known).sum())} tokens have no routes")
        first = prompt_width - prompt + route.start
        target = batch[row, first : first + len(route)]
        target[route.known] = route.ids[route.known]
    return batch
