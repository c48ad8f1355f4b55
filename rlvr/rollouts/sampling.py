"""Decoding for groups of rollouts: one prefill a prompt, no work for rows that are done, news of each as it ends.

It is handed to transformers' `generate` as `custom_generate`, so logits processors, stopping criteria and the cache are
the ones `generate` builds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

Finished = Callable[[int, list[int]], None]

# Dropping rows copies the cache: wait until at least this share of the rows in it is done.
_WORTH_DROPPING = 0.2
# Positions by which a cache grows at a time: few copies, and little room that is never used.
_ROOM = 128


class RoomyLayer(DynamicLayer):
    """A cache layer with room for tokens to come: each is written in place, where DynamicLayer copies all before it."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.is_initialized, self.dtype, self.device = True, layer.dtype, layer.device
        assert layer.keys is not None and layer.values is not None
        self._hold(layer.keys, layer.values, layer.keys.shape[-2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        rooms = self._rooms
        if end > rooms[0].shape[-2]:
            rooms = (_with_room(rooms[0], length, end + _ROOM), _with_room(rooms[1], length, end + _ROOM))
        for room, states in zip(rooms, (key_states, value_states), strict=True):
            room[..., length:end, :] = states
        return self._hold(*rooms, end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        keys, values = (room.index_select(0, indices) for room in self._rooms)
        self._hold(keys, values, self.get_seq_length())

    def _hold(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._rooms = keys, values
        held = keys[..., :length, :], values[..., :length, :]
        self.keys, self.values = held
        return held


def _with_room(states: torch.Tensor, length: int, positions: int) -> torch.Tensor:
    room = states.new_empty((*states.shape[:-2], positions, states.shape[-1]))
    room[..., :length, :] = states[..., :length, :]
    return room


class GroupSampler:
    """Decoding loop for `model.generate(..., custom_generate=GroupSampler(...))`.

    Returns what `generate` returns, [rows, prompt + completion] padded on the right, and calls `finished(row, tokens)`
    for each row the moment it ends, its end token included. Three things differ from `generate`'s own loop:

    - `prompts` maps every row to the first row with the same prompt; each distinct prompt is prefilled once and its
      cache handed to all its rows.
    - rows that are done leave the batch, so a step costs what the running rows cost, and the cache of plain attention
      layers grows in place instead of being copied for every token.
    - random numbers are still drawn for every row, in `generate`'s order. The samples are therefore the same ones, up
      to the rounding of matrix products of another shape.

    These savings are left out where a cache layer cannot be indexed by row (static caches, linear attention).
    """

    def __init__(self, finished: Finished | None = None, prompts: Sequence[int] | None = None) -> None:
        self.finished = finished
        self.prompts = prompts
        self.forward_rows = 0  # row-steps run through the model
        self.logps: torch.Tensor | None = (
            None  # [rows, generated] log-probabilities at the temperature, no top-k or top-p
        )

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> torch.Tensor:
        rows, width = input_ids.shape
        device = input_ids.device
        pad = generation_config._pad_token_tensor
        pad = 0 if pad is None else int(pad)
        outputs, model_kwargs, logits = self._prefill(model, input_ids, generation_config, model_kwargs)
        if torch.isnan(logits).any():
            raise FloatingPointError("the policy's logits are NaN: its weights are broken")
        _make_room(model_kwargs.get("past_key_values"))
        generated = input_ids.new_full((rows, generation_config.max_length - width), pad)
        resident = torch.arange(rows, device=device)  # rows in the cache, by their place in the batch
        running = torch.ones(rows, dtype=torch.bool, device=device)  # of the resident ones
        ids = input_ids
        self.logps = logits.new_zeros(generated.shape)
        temperature = generation_config.temperature or 1.0
        length = 0
        while True:
            scores = logits_processor(ids, logits)
            tokens = self._choose(scores, resident, rows, generation_config.do_sample)
            chosen = (logits / temperature).log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
            self.logps[resident, length] = chosen
            tokens = torch.where(running, tokens, pad)
            generated[resident, length] = tokens
            length += 1
            ids = torch.cat([ids, tokens[:, None]], dim=-1)
            done = running & stopping_criteria(ids, None)
            running = running & ~done
            if self.finished is not None:
                for row in resident[done].tolist():
                    self.finished(row, generated[row, :length].tolist())
            left = int(running.sum())
            if not left:
                return torch.cat([input_ids, generated[:, :length]], dim=1)
            if left <= (1 - _WORTH_DROPPING) * len(resident) and _indexable(model_kwargs.get("past_key_values")):
                keep = running.nonzero().squeeze(1)
                model_kwargs["past_key_values"].batch_select_indices(keep)
                model_kwargs = _select_rows(model_kwargs, keep, len(resident))
                ids, resident, running = ids[keep], resident[keep], running[keep]
            self.forward_rows += len(resident)
            inputs = model.prepare_inputs_for_generation(
                ids, next_sequence_length=1 if model_kwargs["use_cache"] else None, **model_kwargs
            )
            outputs = model(**inputs, return_dict=True)
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
            del outputs

    def _prefill(
        self, model: Any, input_ids: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any], torch.Tensor]:
        rows = input_ids.shape[0]
        distinct = sorted(set(self.prompts)) if self.prompts is not None else []
        shared = 0 < len(distinct) < rows and _indexable(model_kwargs.get("past_key_values"))
        if not shared:
            outputs = model._prefill(input_ids, generation_config, model_kwargs)
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            return outputs, model_kwargs, outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
        first = torch.tensor(distinct, device=input_ids.device)
        few = _select_rows(model_kwargs, first, rows)
        outputs = model._prefill(input_ids[first], generation_config, few)
        few = model._update_model_kwargs_for_generation(outputs, few)
        assert self.prompts is not None
        place = {row: position for position, row in enumerate(distinct)}
        index = torch.tensor([place[row] for row in self.prompts], device=input_ids.device)
        few["past_key_values"].batch_select_indices(index)
        few = _select_rows(few, index, len(distinct))
        return outputs, few, outputs.logits[:, -1][index].to(dtype=torch.float32)

    @staticmethod
    def _choose(scores: torch.Tensor, resident: torch.Tensor, rows: int, do_sample: bool) -> torch.Tensor:
        """One token for each resident row: torch.multinomial's own rule, over the random numbers of all rows."""
        if not do_sample:
            return scores.argmax(dim=-1)
        probabilities = nn.functional.softmax(scores, dim=-1)
        if len(resident) == rows:
            return torch.multinomial(probabilities, num_samples=1).squeeze(1)
        waiting = torch.empty((rows, scores.shape[1]), dtype=scores.dtype, device=scores.device).exponential_(1)
        return (probabilities / waiting[resident]).argmax(dim=-1)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Inside, torch computes with `count` threads; None leaves them as they are.

    Threads that wait for one another are slower than one thread as soon as a core is taken by something else, such as
    the programs that are judged while others are still being sampled.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


def same_prompts(prompt_ids: Sequence[Sequence[int]]) -> list[int]:
    """Returns for every row the first row with the same prompt."""
    first: dict[tuple[int, ...], int] = {}
    return [first.setdefault(tuple(ids), row) for row, ids in enumerate(prompt_ids)]


def _indexable(cache: Any) -> bool:
    """Whether rows can be picked out of a cache; one still empty is judged by the layers it will make."""
    layers = getattr(cache, "layers", None) or [getattr(cache, "layer_class_to_replicate", None)]
    return all(hasattr(layer, "batch_select_indices") for layer in layers)


def _make_room(cache: Any) -> None:
    """Lets the plain layers of a filled cache grow in place; others, and offloaded ones, stay as they are."""
    layers = getattr(cache, "layers", [])
    if not getattr(cache, "offloading", False):
        layers[:] = [RoomyLayer(layer) if type(layer) is DynamicLayer else layer for layer in layers]


def _select_rows(model_kwargs: dict[str, Any], keep: torch.Tensor, rows: int) -> dict[str, Any]:
    """The keyword arguments for some of the rows; the cache is left to the caller."""
    return {
        name: value[keep] if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == rows else value
        for name, value in model_kwargs.items()
    }


class AsTheyFinish(StoppingCriteria):
    """Stops nothing; calls `finished(row, tokens)` for each row once it has written an end token."""

    def __init__(self, finished: Finished, width: int, ends: Sequence[int]) -> None:
        self.finished = finished
        self.width = width
        self.ends = torch.tensor(list(ends))
        self._open: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        rows = input_ids.shape[0]
        if self._open is None:
            self._open = torch.ones(rows, dtype=torch.bool, device=input_ids.device)
        ended = self._open & torch.isin(input_ids[:, -1], self.ends.to(input_ids.device))
        self._open = self._open & ~ended
        for row in ended.nonzero().squeeze(1).tolist():
            self.finished(row, input_ids[row, self.width :].tolist())
        return torch.zeros(rows, dtype=torch.bool, device=input_ids.device)


def sample(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    *,
    generation_config: Any,
    pad_token_id: int,
    end_token_ids: Sequence[int],
    fast: bool = True,
    finished: Finished | None = None,
) -> tuple[list[list[int]], list[list[float]] | None]:
    """Returns the tokens generated for each prompt, the end token included, and their log-probabilities.

    `fast` uses `GroupSampler`; without it there are no log-probabilities (None). `finished` hears of rows that end
    while others go on. Raises FloatingPointError where the model gives no numbers.
    """
    width = max(map(len, prompt_ids))
    device = model.device
    input_ids = torch.tensor([[pad_token_id] * (width - len(ids)) + list(ids) for ids in prompt_ids], device=device)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompt_ids], device=device)
    options: dict[str, Any] = {}
    sampler = GroupSampler(finished, same_prompts(prompt_ids)) if fast else None
    if sampler is not None:
        options["custom_generate"] = sampler
    elif finished is not None:
        options["stopping_criteria"] = StoppingCriteriaList([AsTheyFinish(finished, width, end_token_ids)])
    output = model.generate(input_ids=input_ids, attention_mask=mask, generation_config=generation_config, **options)[
        :, width:
    ].tolist()
    ends = set(end_token_ids)
    cut = (next((place for place, token in enumerate(row) if token in ends), len(row) - 1) for row in output)
    tokens = [row[: end + 1] for row, end in zip(output, cut, strict=True)]
    if sampler is None or sampler.logps is None:
        return tokens, None
    return tokens, [row[: len(kept)] for row, kept in zip(sampler.logps.tolist(), tokens, strict=True)]
