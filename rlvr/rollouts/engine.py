"""Generation outside the trainer, for evaluation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from rlvr.rollouts.prompts import chat_text
from rlvr.rollouts.sampling import sample, torch_threads


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one pass of samples is drawn; `temperature` 0 is greedy."""

    max_completion_length: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A generated completion: text without special tokens, length in tokens, "stop" or "length"."""

    text: str
    tokens: int
    finish_reason: str


class Engine(Protocol):
    """Draws one completion for each prompt (text or chat messages), reproducibly for a seed."""

    def generate(self, prompts: Sequence[Any], sampling: Sampling, seed: int) -> list[Completion]: ...


class TransformersEngine:
    """Batched `generate` of transformers, on CPU (with `threads`, None for torch's setting) or one GPU."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 64, threads: int | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.threads = threads

    def generate(self, prompts: Sequence[Any], sampling: Sampling, seed: int) -> list[Completion]:
        """Returns completions in the order of `prompts`. Batches are made of prompts of similar length."""
        ids = [self.encode(prompt) for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        done: list[Completion | None] = [None] * len(ids)
        was_training = self.model.training
        self.model.eval()
        with torch.random.fork_rng(), torch.inference_mode(), torch_threads(self.threads):
            for number, start in enumerate(range(0, len(order), self.batch_size)):
                chosen = order[start : start + self.batch_size]
                torch.manual_seed((seed * 1_000_003 + number) % 2**63)
                for i, completion in zip(chosen, self._batch([ids[i] for i in chosen], sampling), strict=True):
                    done[i] = completion
        self.model.train(was_training)
        return [completion for completion in done if completion is not None]

    def encode(self, prompt: Any) -> list[int]:
        """Token ids of a prompt; a chat template writes its own special tokens, so none is added to its text."""
        if isinstance(prompt, str):
            return list(self.tokenizer(text=prompt)["input_ids"])
        return list(self.tokenizer(text=chat_text(prompt, self.tokenizer), add_special_tokens=False)["input_ids"])

    def _batch(self, ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        config = copy.deepcopy(self.model.generation_config)
        stops = config.eos_token_id
        ends = {*(stops if isinstance(stops, list) else [stops]), self.tokenizer.eos_token_id} - {None}
        choice: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature > 0:
            choice = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
            }
        config.update(max_new_tokens=sampling.max_completion_length, max_length=None, pad_token_id=pad, **choice)
        rows, _ = sample(self.model, ids, generation_config=config, pad_token_id=pad, end_token_ids=sorted(ends))
        return [
            Completion(
                self.tokenizer.decode(row, skip_special_tokens=True), len(row), "stop" if row[-1] in ends else "length"
            )
            for row in rows
        ]
