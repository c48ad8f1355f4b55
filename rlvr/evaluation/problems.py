"""The problems of an evaluation: read, cut to the window of dates, less what is excluded by name."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Sequence

from data_curation import Problem, load_problems
from rlvr.config import EvaluationRecipe, RecipeError

logger = logging.getLogger(__name__)


def suite_problems(recipe: EvaluationRecipe) -> list[Problem]:
    """The problems `recipe` evaluates, in file order. RecipeError naming the source where none or too few are left."""
    data, language = recipe.data, recipe.prompt.language
    problems = load_problems(data.problems, limit=None)
    if not problems:
        raise RecipeError(f"{data.problems}: holds no problems")
    known = {problem.id for problem in problems}
    if len(known) < len(problems):
        seen: set[str] = set()
        twice = next(p.id for p in problems if p.id in seen or seen.add(p.id))  # type: ignore[func-returns-value]
        raise RecipeError(f"{data.problems}: problem {twice!r} stands twice; samples could not be told apart")
    excluded = {item.id: item.reason for item in data.exclude}
    kept: list[Problem] = []
    lost: Counter[str] = Counter()
    for problem in problems:
        reason = _reason(problem, recipe, excluded, language)
        if reason is None:
            kept.append(problem)
        else:
            lost[reason] += 1
    why = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
    if not kept:
        raise RecipeError(f"{data.problems}: none of its {len(problems)} problems is left to evaluate ({why})")
    if lost:
        logger.warning("%s: %d of %d problems left out: %s", data.problems, lost.total(), len(problems), why)
    if data.expected is not None and len(kept) != data.expected:
        raise RecipeError(
            f"{data.problems}: {len(kept)} problems, but suite {recipe.suite} is made of {data.expected}; "
            "it is another release or window, or data.expected is wrong"
        )
    return [_limited(problem, recipe) for problem in kept[: data.limit]]


def _reason(problem: Problem, recipe: EvaluationRecipe, excluded: dict[str, str], language: str) -> str | None:
    data = recipe.data
    if excluded and not excluded.keys().isdisjoint(
        (problem.id, problem.id.rpartition("/")[2], "-".join(problem.title.lower().split()))
    ):
        return "excluded"
    if data.after is not None or data.before is not None:
        if problem.date is None:
            raise RecipeError(f"{data.problems}: problem {problem.id} has no date, but the suite asks for a window")
        if not (data.after or problem.date) <= problem.date <= (data.before or problem.date):
            return "outside the window of dates"
    if data.difficulties is not None and problem.difficulty not in data.difficulties:
        return "without the difficulty or tag"
    if data.tags is not None and not set(data.tags) & set(problem.tags):
        return "without the difficulty or tag"
    if not problem.tests:
        return "without tests"
    return None if language in problem.languages else f"not for {language}"


def _limited(problem: Problem, recipe: EvaluationRecipe) -> Problem:
    update = {name: value for name, value in recipe.limits.model_dump().items() if value is not None}
    return problem.model_copy(update=update) if update else problem


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the id that was meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"the suite has ids such as {', '.join(list(known)[:3])}"
