"""Step 1: completions, whose random numbers do not depend on what is already there: a killed run goes on exactly."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from data_curation import Problem
from rlvr.config import EvaluationRecipe
from rlvr.evaluation.journal import Journal
from rlvr.rollouts.prompts import completion_text

GENERATIONS = "generations.jsonl"
_MARK_EVERY_S = 5.0
NO_ROOM = "no_room"  # finish reason of a prompt that the model's context cannot hold; its text says why


@dataclass(frozen=True, slots=True)
class Item:
    """One sample to be drawn: number `sample` of a problem, or its greedy one."""

    problem_id: str
    sample: int
    greedy: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion. `program` is given where a file of samples names it; else it is found in the completion."""

    item: Item
    completion: str
    tokens: int
    finish_reason: str  # "stop" or "length"
    program: str | None = None
    refused: str | None = None  # why nothing could be drawn; such a sample is no wrong answer and counts nowhere

    def to_row(self) -> dict[str, Any]:
        row = {"problem_id": self.item.problem_id, "sample": self.item.sample, "greedy": self.item.greedy,
               "tokens": self.tokens, "finish_reason": self.finish_reason, "completion": self.completion}  # fmt: skip
        extra = {"program": self.program, "refused": self.refused}
        return row | {key: value for key, value in extra.items() if value is not None}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Generation:
        item = Item(row["problem_id"], row["sample"], row["greedy"])
        return cls(item, row["completion"], row["tokens"], row["finish_reason"], row.get("program"), row.get("refused"))


Answered = Callable[[int, str, int, str], None]  # (row, text, tokens, finish reason)


def no_room(tokens: int, context: int, remedy: str) -> str:
    """What is said of a prompt of so many tokens that a context of `context` cannot hold."""
    return f"its prompt has {tokens} tokens and the context holds {context}; {remedy}, or leave it out by data.exclude"


class Sampler(Protocol):
    """Draws a completion for each prompt and reports each by its row as soon as it is there.

    `draws_together`: a batch is drawn from one stream of random numbers, the seed of its first row. Otherwise each
    row has its own, and all that is missing is asked for in one call, so that none waits for the slowest of a batch.
    """

    draws_together: bool

    def draw(self, prompts: Sequence[Any], greedy: bool, seeds: Sequence[int], answered: Answered) -> None: ...


def planned(problems: Sequence[Problem], prompts: dict[str, Any], recipe: EvaluationRecipe) -> Iterator[list[Item]]:
    """Batches of what is to be drawn: prompts of like length together, the greedy ones last."""
    section = recipe.sampling
    order = sorted((problem.id for problem in problems), key=lambda name: len(completion_text(prompts[name])))
    drawn = [Item(name, sample, False) for name in order for sample in range(section.n)]
    greedy = [Item(name, 0, True) for name in order] if section.greedy else []
    for items in (drawn, greedy):
        for start in range(0, len(items), section.batch_size):
            yield items[start : start + section.batch_size]


def generate(
    problems: Sequence[Problem],
    prompts: dict[str, Any],
    recipe: EvaluationRecipe,
    header: dict[str, Any],
    sampler: Callable[[], Sampler],
    done: Callable[[list[Generation]], None],
) -> float:
    """Draws what `generations.jsonl` lacks and returns the seconds of all drawing. `done` gets what was there, and then
    what is drawn, as it comes and about a batch at a time.

    The result is that of a run never interrupted: where an engine draws a batch together, a batch of which anything
    is missing is drawn whole and only what is missing is kept; elsewhere each sample has a seed of its own. `sampler`
    is called only if there is something to draw.
    """
    journal = Journal(Path(recipe.output_dir) / GENERATIONS, header)
    known: dict[Item, Generation] = {}
    seconds = 0.0
    for row in journal.take():
        if "seconds" in row:
            seconds += row["seconds"]
        else:
            generation = Generation.from_row(row)
            known[generation.item] = generation
    batches = list(planned(problems, prompts, recipe))
    bar = tqdm(total=sum(map(len, batches)), desc=f"{recipe.suite}: generate", unit="sample", file=sys.stderr,
               mininterval=interval())  # fmt: skip
    drawing = _Drawing(journal, known, bar, done, recipe.sampling.batch_size)
    try:
        todo = []
        for number, batch in enumerate(batches):
            there = [known[item] for item in batch if item in known]
            bar.update(len(there))
            if there:
                done(there)
            if len(there) < len(batch):
                todo.append(_Batch(batch, number))
        if todo:
            source = sampler()
            drawing.start()
            for part in _parts(todo, source.draws_together):
                _draw(part, prompts, source, recipe.seed, drawing)
    finally:
        bar.close()
        journal.close()
    return seconds + drawing.seconds


@dataclass(frozen=True, slots=True)
class _Batch:
    items: list[Item]
    number: int


class _Drawing:
    """What is drawn and how long it takes: on disk as it comes, so that a kill loses little, and given to `done` by
    groups of `size`, whichever samples they are of: where all are drawn at once, a batch is complete late."""

    def __init__(
        self, journal: Journal, known: dict[Item, Generation], bar: Any, done: Callable[[list[Generation]], None],
        size: int,
    ) -> None:  # fmt: skip
        self.journal, self.known, self.bar, self.done, self.size = journal, known, bar, done, size
        self.seconds = 0.0
        self._fresh: list[Generation] = []
        self.start()

    def start(self) -> None:
        self._mark = time.perf_counter()

    def keep(self, generation: Generation) -> None:
        """Takes a new sample. A refused one is not written: it is asked for again when the evaluation goes on."""
        self.known[generation.item] = generation
        if generation.refused is None:
            self.journal.append([generation.to_row()])
        self.bar.update(1)
        self._fresh.append(generation)
        if time.perf_counter() - self._mark >= _MARK_EVERY_S:
            self.mark()
        if len(self._fresh) >= self.size:
            self.hand_over()

    def mark(self) -> None:
        """Writes the seconds since the last time."""
        now = time.perf_counter()
        spent, self._mark = now - self._mark, now
        self.seconds += spent
        self.journal.append([{"seconds": round(spent, 3)}])

    def hand_over(self) -> None:
        """Gives what is new to `done`."""
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            self.done(fresh)


def _parts(batches: list[_Batch], together: bool) -> Iterator[list[_Batch]]:
    """What is drawn in one call: a batch where they are drawn together, else all samples, then all greedy ones."""
    if together:
        yield from ([batch] for batch in batches)
        return
    for greedy in (False, True):
        chosen = [batch for batch in batches if batch.items[0].greedy is greedy]
        if chosen:
            yield chosen


def interval() -> float:
    """Seconds between two states of a progress bar: few in a log file."""
    return 0.5 if sys.stderr.isatty() else 15.0


def _draw(batches: list[_Batch], prompts: dict[str, Any], source: Sampler, seed: int, drawing: _Drawing) -> None:
    together, known = source.draws_together, drawing.known
    rows = [(batch, item) for batch in batches for item in batch.items if together or item not in known]
    seeds = [seed * 1_000_003 + batch.number if together else item_seed(seed, item) for batch, item in rows]

    def answered(row: int, text: str, tokens: int, finish_reason: str) -> None:
        item = rows[row][1]
        if item in known:
            return
        if finish_reason == NO_ROOM:
            drawing.keep(Generation(item, "", 0, "stop", refused=text))
        else:
            drawing.keep(Generation(item, text, tokens, finish_reason))

    try:
        source.draw([prompts[item.problem_id] for _, item in rows], rows[0][1].greedy, seeds, answered)
    finally:
        drawing.mark()
    drawing.hand_over()


def item_seed(seed: int, item: Item) -> int:
    """A seed below 2**31 that only this sample of this problem has."""
    digest = hashlib.sha256(f"{seed} {item.problem_id} {item.sample} {item.greedy}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**31


class EngineSampler:
    """A local engine that draws batch by batch as a sampler; each batch has its own seed."""

    draws_together = True

    def __init__(self, engine: Any, recipe: EvaluationRecipe) -> None:
        from rlvr.rollouts.engine import Sampling

        section = recipe.sampling
        self.engine = engine
        self.warm = Sampling(section.max_completion_length, section.temperature, section.top_p, section.top_k)
        self.greedy = Sampling(section.max_completion_length, temperature=0.0)

    def draw(self, prompts: Sequence[Any], greedy: bool, seeds: Sequence[int], answered: Answered) -> None:
        context = getattr(self.engine.model.config, "max_position_embeddings", None) or math.inf
        lengths = [len(self.engine.encode(prompt)) for prompt in prompts]
        fitting = [row for row, length in enumerate(lengths) if length < context]
        for row, length in enumerate(lengths):
            if length >= context:
                answered(row, no_room(length, int(context), "evaluate a model of a longer context"), 0, NO_ROOM)
        if not fitting:
            return
        sampling = self.greedy if greedy else self.warm
        completions = self.engine.generate([prompts[row] for row in fitting], sampling, seeds[0])
        for row, completion in zip(fitting, completions, strict=True):
            answered(row, completion.text, completion.tokens, completion.finish_reason)


def local_sampler(recipe: EvaluationRecipe, model: Any = None, tokenizer: Any = None) -> Sampler:
    """The sampler of the recipe's checkpoint: `model` where one is given, else loaded into the recipe's engine."""
    if model is None and recipe.engine == "vllm":
        from rlvr.evaluation.vllm_engine import VLLMSampler

        return VLLMSampler(recipe)
    if model is None:
        import torch

        from rlvr.training.loading import load_policy

        assert recipe.model is not None
        model, tokenizer = load_policy(recipe.model)
        if torch.cuda.is_available():
            model = model.to("cuda")
    from rlvr.rollouts.engine import TransformersEngine

    engine = TransformersEngine(model, tokenizer, recipe.sampling.batch_size, recipe.sampling.threads)
    return EngineSampler(engine, recipe)
