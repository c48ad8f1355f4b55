"""Models, tokenizers and problems as the trainers need them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import datasets
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from data_curation import Problem, load_problems
from rlvr.config import DataSection, ModelSection, PromptSection, RecipeError
from rlvr.models import resolve_model
from rlvr.rollouts.prompts import chat_text, render_prompt

logger = logging.getLogger(__name__)
C = TypeVar("C")

transformers_logging.disable_progress_bar()  # the stages have bars of their own
datasets.disable_progress_bars()


def load_policy(section: ModelSection) -> tuple[Any, Any]:
    """Returns (model, tokenizer); the tokenizer pads on the left and has a padding token.

    Raises RecipeError where files or weights of the model are missing or damaged, or its attention cannot be had here.
    """
    path = resolve_model(section.name_or_path)
    options = {"revision": section.revision, "trust_remote_code": section.trust_remote_code}
    dtype = section.dtype if section.dtype == "auto" else getattr(torch, section.dtype)
    attention = {"attn_implementation": section.attn_implementation} if section.attn_implementation else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **options)
        found: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **attention, **options
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        chosen = f" with attn_implementation {section.attn_implementation}" if attention else ""
        raise RecipeError(f"model {path}: cannot be loaded{chosen}: {' '.join(str(error).split())}") from error
    model, loaded = found
    if missing := sorted(loaded["missing_keys"]):  # transformers makes them up, and says so in a long table
        raise RecipeError(
            f"model {path}: {len(missing)} of the weights that its config.json has are in none of its files, the first"
            f" {missing[0]}"
        )
    if others := sorted(loaded["mismatched_keys"]):
        raise RecipeError(f"model {path}: {others[0][0]} has another shape in its files than its config.json says")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    text = model.config.get_text_config()
    if getattr(text, "output_router_logits", False):  # TRL's SFT leaves it on; decoding with a cache then fails
        text.output_router_logits = False
    return model, tokenizer


def trl_config(kind: Callable[..., C], values: Mapping[str, Any], section: str, extra: Mapping[str, Any]) -> C:
    """Returns TRL's configuration of a recipe's values; RecipeError where TRL refuses what `extra` adds."""
    with taken_by_trl(section, extra):
        return kind(**{**values, **extra})


@contextmanager
def taken_by_trl(section: str, extra: Mapping[str, Any]) -> Iterator[None]:
    """While the block makes something of TRL's with a recipe's `extra`: a refusal is a RecipeError that names it."""
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        if not extra or isinstance(error, RecipeError):
            raise
        named = f"{section}.extra {json.dumps(dict(extra), default=str)}"
        raise RecipeError(f"{named}: TRL refuses it: {' '.join(str(error).split())}") from error


def load_training_problems(section: DataSection, prompt: PromptSection) -> list[Problem]:
    """Returns the problems of a recipe that can be trained on: with tests, in the recipe's language.

    Raises RecipeError naming the source where none is left.
    """
    problems = load_problems(section.problems, limit=None)
    usable = [
        problem
        for problem in problems
        if problem.tests
        and (problem.statement.strip() or problem.starter_code)
        and prompt.language in problem.languages
    ]
    kept = [
        problem
        for problem in usable
        if (section.difficulties is None or problem.difficulty in section.difficulties)
        and (section.tags is None or set(section.tags) & set(problem.tags))
    ]
    if len(usable) < len(problems) and section.tags is None:
        logger.warning(
            "%s: %d of %d problems left out: no tests, no statement, or not for %s",
            section.problems,
            len(problems) - len(usable),
            len(problems),
            prompt.language,
        )
    kept = kept[: section.limit]
    if not kept:
        raise RecipeError(
            f"{section.problems}: none of its {len(problems)} problems has tests and a statement, is for"
            f" {prompt.language} and passes data.difficulties and data.tags"
        )
    return kept


def render_prompts(problems: list[Problem], prompt: PromptSection, tokenizer: Any, room: int | None) -> dict[str, Any]:
    """Returns problem id -> prompt, leaving out prompts longer than `room` tokens (what the window leaves them).

    Raises RecipeError where none fits, ValueError where the style is chat and the tokenizer has no chat template.
    """
    if prompt.style == "chat":
        chat_text(render_prompt(problems[0], prompt), tokenizer)
    prompts = {}
    longest = 0
    for problem in problems:
        rendered = render_prompt(problem, prompt)
        if room is not None:
            length = _tokens(rendered, tokenizer)
            longest = max(longest, length)
            if length > room:
                continue
        prompts[problem.id] = rendered
    if not prompts:
        raise RecipeError(f"every prompt is longer than the {room} tokens the window leaves (longest: {longest})")
    if len(prompts) < len(problems):
        logger.warning(
            "%d of %d prompts left out: longer than %s tokens", len(problems) - len(prompts), len(problems), room
        )
    return prompts


def prompt_lengths(prompts: Mapping[str, Any], tokenizer: Any) -> dict[str, int]:
    """Returns problem id -> tokens of its rendered prompt."""
    return {key: _tokens(rendered, tokenizer) for key, rendered in prompts.items()}


def _tokens(rendered: Any, tokenizer: Any) -> int:
    text = rendered if isinstance(rendered, str) else chat_text(rendered, tokenizer)
    return len(tokenizer(text=text, verbose=False)["input_ids"])  # what is too long is the caller's to say
