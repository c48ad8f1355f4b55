"""The policy a curation recipe names (`difficulty.policy`), sampled from by the engines of evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from data_curation import CurationConfig, Problem
from rlvr.config import EvaluationRecipe
from rlvr.config.load import RecipeError
from rlvr.evaluation.generate import NO_ROOM, Item, Sampler, item_seed, local_sampler
from rlvr.evaluation.identity import identity_of
from rlvr.rollouts.prompts import extract_program, render_prompt

KEYS = ("model", "engine", "engine_options", "endpoint", "prompt", "sampling", "seed")


def policy_recipe(config: CurationConfig) -> EvaluationRecipe | None:
    """`difficulty.policy` as a recipe of evaluation, n samples each; None without one. RecipeError for a bad key."""
    given = config.difficulty.policy
    if given is None:
        return None
    if unknown := [key for key in given if key not in KEYS]:
        raise RecipeError(f"difficulty.policy.{unknown[0]}: unknown key; known are {', '.join(KEYS)}")
    sampling = {**given.get("sampling", {}), "n": config.difficulty.rollouts, "k": [1], "greedy": False}
    try:
        return EvaluationRecipe.model_validate(
            {**given, "sampling": sampling, "suite": "difficulty", "output_dir": ".", "data": {"problems": "-"}}
        )
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(("difficulty.policy", *map(str, fault["loc"])))
        raise RecipeError(f"{key}: {fault['msg'].removeprefix('Value error, ')}") from None


def policy_sampler(recipe: EvaluationRecipe) -> tuple[Callable[[Sequence[Problem], int], Iterator[list[str]]], str]:
    """What `curate` takes as sampler, and a name that only these weights, settings and prompts have.

    The engine is started when the first problems come. A prompt that the context cannot hold has no samples.
    """
    name = hashlib.sha256(json.dumps(identity_of(recipe, [], in_memory=False), sort_keys=True).encode()).hexdigest()
    return _Policy(recipe), f"{recipe.target} {name[:16]}"


class _Policy:
    def __init__(self, recipe: EvaluationRecipe) -> None:
        self._recipe = recipe
        self._source: Sampler | None = None

    def __call__(self, problems: Sequence[Problem], rollouts: int) -> Iterator[list[str]]:
        if self._source is None:
            self._source = self._started()
        recipe = self._recipe
        prompts = {problem.id: render_prompt(problem, recipe.prompt) for problem in problems}
        items = [Item(problem.id, sample, False) for problem in problems for sample in range(rollouts)]
        found: dict[str, list[str]] = {problem.id: [] for problem in problems}
        size = recipe.sampling.batch_size if self._source.draws_together else max(1, len(items))
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            texts: list[str | None] = [None] * len(batch)

            def answered(row: int, text: str, tokens: int, reason: str, texts: list[Any] = texts) -> None:
                texts[row] = None if reason == NO_ROOM else text

            seeds = [item_seed(recipe.seed, item) for item in batch]
            self._source.draw([prompts[item.problem_id] for item in batch], False, seeds, answered)
            for item, text in zip(batch, texts, strict=True):
                if text is not None:
                    found[item.problem_id].append(extract_program(text, recipe.prompt))
        yield from found.values()

    def _started(self) -> Sampler:
        if self._recipe.endpoint is not None:
            from rlvr.evaluation.endpoint import EndpointSampler

            return EndpointSampler(self._recipe.endpoint, self._recipe.sampling)
        return local_sampler(self._recipe)
