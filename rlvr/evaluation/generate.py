"""Step 1: completions, in batches that do not depend on what is already there: a killed run goes on exactly."""

from __future__ import annotations

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

    def to_row(self) -> dict[str, Any]:
        row = {"problem_id": self.item.problem_id, "sample": self.item.sample, "greedy": self.item.greedy,
               "tokens": self.tokens, "finish_reason": self.finish_reason, "completion": self.completion}  # fmt: skip
        return row if self.program is None else row | {"program": self.program}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Generation:
        item = Item(row["problem_id"], row["sample"], row["greedy"])
        return cls(item, row["completion"], row["tokens"], row["finish_reason"], row.get("program"))


Answered = Callable[[int, str, int, str], None]  # (row, text, tokens, finish reason)


class Sampler(Protocol):
    """Draws a completion for each prompt and reports each by its row as soon as it is there."""

    def draw(self, prompts: Sequence[Any], greedy: bool, seed: int, answered: Answered) -> None: ...


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
    """Draws what `generations.jsonl` lacks and returns the seconds of all drawing. `done` gets every batch, old or new.

    A batch of which anything is missing is drawn whole, with its own seed, and only what is missing is kept: so the
    result is that of a run never interrupted. `sampler` is called only if there is something to draw.
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
    source: Sampler | None = None
    try:
        for number, batch in enumerate(batches):
            missing = {row for row, item in enumerate(batch) if item not in known}
            bar.update(len(batch) - len(missing))
            if missing:
                started = time.perf_counter()
                source = source or sampler()
                _draw(batch, missing, prompts, source, recipe.seed * 1_000_003 + number, journal, known, bar)
                spent = time.perf_counter() - started
                seconds += spent
                journal.append([{"seconds": round(spent, 3)}])
            done([known[item] for item in batch])
    finally:
        bar.close()
        journal.close()
    return seconds


def interval() -> float:
    """Seconds between two states of a progress bar: few in a log file."""
    return 0.5 if sys.stderr.isatty() else 15.0


def _draw(
    batch: list[Item],
    missing: set[int],
    prompts: dict[str, Any],
    source: Sampler,
    seed: int,
    journal: Journal,
    known: dict[Item, Generation],
    bar: Any,
) -> None:
    greedy = batch[0].greedy
    # an endpoint draws each sample by itself; a local model draws a batch from one stream of random numbers
    rows = list(range(len(batch))) if getattr(source, "draws_together", True) else sorted(missing)

    def answered(place: int, text: str, tokens: int, finish_reason: str) -> None:
        row = rows[place]
        if row not in missing:
            return
        generation = Generation(batch[row], text, tokens, finish_reason)
        journal.append([generation.to_row()])
        known[batch[row]] = generation
        bar.update(1)

    source.draw([prompts[batch[row].problem_id] for row in rows], greedy, seed, answered)


class EngineSampler:
    """A local engine (transformers or vLLM) as a sampler; each batch has its own seed."""

    draws_together = True

    def __init__(self, engine: Any, recipe: EvaluationRecipe) -> None:
        from rlvr.rollouts.engine import Sampling

        section = recipe.sampling
        self.engine = engine
        self.warm = Sampling(section.max_completion_length, section.temperature, section.top_p, section.top_k)
        self.greedy = Sampling(section.max_completion_length, temperature=0.0)

    def draw(self, prompts: Sequence[Any], greedy: bool, seed: int, answered: Answered) -> None:
        completions = self.engine.generate(prompts, self.greedy if greedy else self.warm, seed)
        for row, completion in enumerate(completions):
            answered(row, completion.text, completion.tokens, completion.finish_reason)


def local_sampler(recipe: EvaluationRecipe, model: Any = None, tokenizer: Any = None) -> Sampler:
    """The sampler of the recipe's checkpoint: `model` where one is given, else loaded into the recipe's engine."""
    from rlvr.rollouts.engine import TransformersEngine

    if model is None and recipe.engine == "vllm":
        from rlvr.evaluation.vllm_engine import VLLMEngine

        return EngineSampler(VLLMEngine(recipe), recipe)
    if model is None:
        import torch

        from rlvr.training.loading import load_policy

        assert recipe.model is not None
        model, tokenizer = load_policy(recipe.model)
        if torch.cuda.is_available():
            model = model.to("cuda")
    return EngineSampler(TransformersEngine(model, tokenizer, recipe.sampling.batch_size), recipe)
