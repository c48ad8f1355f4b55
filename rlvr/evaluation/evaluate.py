"""Evaluation of one target on one suite: generate -> grade -> score, each step on disk and resumable by the sample."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_curation import Problem
from rlvr.config import EvaluationRecipe, RecipeError, write_resolved
from rlvr.config.evaluation import REFERENCES
from rlvr.evaluation.contamination import Overlaps, find_overlaps, write_overlaps
from rlvr.evaluation.generate import GENERATIONS, Generation, Item, Sampler, generate, local_sampler
from rlvr.evaluation.grade import GRADED, NOT_SAMPLED, Grading, grader_version
from rlvr.evaluation.identity import finished, identity_of
from rlvr.evaluation.journal import Journal
from rlvr.evaluation.metrics import build_results, pass_at_1
from rlvr.evaluation.problems import suite_problems
from rlvr.evaluation.records import SampleRecord, read_samples, write_samples
from rlvr.evaluation.results import Cost, Results, write_results
from rlvr.evaluation.samples import missing_problems, read_generations, references, uneven
from rlvr.provenance import write_environment
from rlvr.rollouts.prompts import completion_text, render_prompt
from sandbox import Verdict

logger = logging.getLogger(__name__)

_SHOWN = 5  # problems without a verdict that are named


def evaluate(
    recipe: EvaluationRecipe,
    model: Any = None,
    tokenizer: Any = None,
    *,
    regrade: bool = False,
    problems: Sequence[Problem] | None = None,
) -> Results:
    """Returns the results and writes `results.json` and `samples.jsonl` into `recipe.output_dir`.

    A finished evaluation is read back; an interrupted one continues, and its samples are those of one never
    interrupted. `regrade` drops verdicts that were already there. `model` and `tokenizer` replace what the recipe
    names. RecipeError where the folder holds another evaluation or the recipe does not fit its suite.
    """
    folder = Path(recipe.output_dir)
    problems = list(problems) if problems is not None else suite_problems(recipe)
    identity = identity_of(recipe, problems, in_memory=model is not None)
    _check_grader(recipe)
    done = None if regrade else finished(folder, identity)
    if regrade:
        _reopen(folder, identity)
    prompts = {problem.id: render_prompt(problem, recipe.prompt) for problem in problems}
    overlaps = find_overlaps(problems, recipe, {name: completion_text(prompt) for name, prompt in prompts.items()})
    overlaps.warn(recipe.suite)
    if done is not None:
        return _read_back(recipe, done, identity, overlaps)
    try:
        given = _given(recipe, problems)
        with Grading(problems, prompts, recipe, identity, _total(recipe, problems, given)) as grading:
            write_resolved(recipe, folder)
            write_environment(folder, **identity)
            generate_s = _run(problems, prompts, recipe, identity, grading, given, model, tokenizer)
    except ValueError as error:
        raise error if isinstance(error, RecipeError) else RecipeError(str(error)) from None
    return _score(recipe, problems, grading, identity, generate_s, overlaps, given)


def _read_back(recipe: EvaluationRecipe, done: Results, identity: dict[str, Any], overlaps: Overlaps) -> Results:
    """The finished results; scored afresh from their samples where another k, and checked afresh where other training
    data or another cutoff is asked for."""
    folder = Path(recipe.output_dir)
    grader = done.config.get("grader", "")
    if grader != grader_version():
        logger.warning("%s: graded by %s, this judge is %s; --regrade judges anew", folder, grader, grader_version())
    ks = tuple(k for k in recipe.sampling.k if k <= done.n_samples) or (1,)
    other_ks = set(ks) != set(done.results[recipe.suite].pass_at)
    records = read_samples(folder) if other_ks or overlaps.found else []
    config = _config(recipe, identity, overlaps, grader, records)
    renewed = done
    if other_ks:
        fresh = build_results({recipe.suite: records}, ks=ks)
        renewed = done.model_copy(update={"results": fresh.results, "config": config})
    elif any(config[key] != done.config.get(key) for key in ("contamination", "trained_on", "data_cutoff")):
        renewed = done.model_copy(update={"config": config})
    if renewed is not done:
        write_overlaps(overlaps, folder)
        write_results(renewed, folder)
    _drop_journals(folder)
    return renewed


def _config(
    recipe: EvaluationRecipe, identity: dict[str, Any], overlaps: Overlaps, grader: str, records: list[SampleRecord]
) -> dict[str, Any]:
    seen = {overlap.problem_id for overlap in overlaps.found}
    clean = pass_at_1([record for record in records if record.problem_id not in seen]) if seen else None
    return {
        **recipe.model_dump(mode="json"),
        "identity": identity,
        "grader": grader,
        "contamination": overlaps.summary() | ({"without_overlap": clean.to_json()} if clean else {}),
    }


def _drop_journals(folder: Path) -> None:
    """samples.jsonl holds all of it now."""
    for name in (GENERATIONS, GRADED):
        (folder / name).unlink(missing_ok=True)


def _given(recipe: EvaluationRecipe, problems: Sequence[Problem]) -> list[Generation] | None:
    if recipe.samples is None:
        return None
    if recipe.samples == REFERENCES:
        return references(problems, recipe.prompt.language)
    return read_generations(Path(recipe.samples), problems)


def _run(
    problems: Sequence[Problem],
    prompts: dict[str, Any],
    recipe: EvaluationRecipe,
    identity: dict[str, Any],
    grading: Grading,
    given: list[Generation] | None,
    model: Any,
    tokenizer: Any,
) -> float:
    """Generates and grades, a batch being graded while the next is drawn; returns the seconds of drawing."""
    if given is not None:
        grading.grade(given)
        return 0.0

    def sampler() -> Sampler:
        if recipe.endpoint is not None:
            from rlvr.evaluation.endpoint import EndpointSampler

            return EndpointSampler(recipe.endpoint, recipe.sampling)
        return local_sampler(recipe, model, tokenizer)

    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(1, thread_name_prefix="grade") as grader:

        def drawn(batch: list[Generation]) -> None:
            for future in waiting:
                if future.done():
                    future.result()  # a judge that cannot start stops the drawing too
            waiting.append(grader.submit(grading.grade, batch))

        try:
            seconds = generate(problems, prompts, recipe, identity, sampler, drawn)
        except BaseException:
            grader.shutdown(wait=True, cancel_futures=True)
            raise
        for future in waiting:
            future.result()
    return seconds


def _score(
    recipe: EvaluationRecipe,
    problems: Sequence[Problem],
    grading: Grading,
    identity: dict[str, Any],
    generate_s: float,
    overlaps: Overlaps,
    given: list[Generation] | None,
) -> Results:
    folder = Path(recipe.output_dir)
    order = {problem.id: place for place, problem in enumerate(problems)}
    records = sorted(grading.records.values(), key=lambda r: (order[r.problem_id], r.greedy, r.sample))
    _without_verdict(records, recipe.suite)
    _without_program(records, recipe)
    ks = tuple(recipe.sampling.k) if given is None else _fitting(recipe, given, problems)
    results = build_results(
        {recipe.suite: records},
        checkpoint=recipe.target,
        config=_config(recipe, identity, overlaps, grader_version(), records),
        cost=Cost(tokens=sum(record.completion_tokens for record in records), generate_s=generate_s,
                  grade_s=grading.seconds),
        ks=ks,
    )  # fmt: skip
    write_overlaps(overlaps, folder)
    write_samples(records, folder)
    write_results(results, folder)
    _drop_journals(folder)
    return results


def _without_verdict(records: Sequence[SampleRecord], suite: str) -> None:
    """Says which problems count in no rate, and why; RecipeError where all of them are such."""
    lost = {record.problem_id: record.message for record in records if record.verdict.is_infrastructure}
    shown = [f"{name}: {' '.join(message.split())}" for name, message in list(lost.items())[:_SHOWN]]
    if records and all(record.verdict.is_infrastructure for record in records):
        raise RecipeError(f"suite {suite}: no sample of its {len(lost)} problems has a verdict; the first, {shown[0]}")
    for line in shown:
        logger.warning("%s: %s; it counts in no rate", suite, line)
    if len(lost) > _SHOWN:
        logger.warning("%s: and %d more such problems, see samples.jsonl", suite, len(lost) - _SHOWN)


def _without_program(records: Sequence[SampleRecord], recipe: EvaluationRecipe) -> None:
    """Says so where most samples hold no program: rather another format than a wrong answer."""
    empty = sum(record.verdict is Verdict.NO_CODE for record in records)
    if 2 * empty > len(records) and recipe.prompt.style == "chat":
        remedy = "prompt.style=plain takes all of a completion" + (
            ", 'program' in a row holds code alone" if recipe.samples is not None else ""
        )
        logger.warning(
            "%s: %d of %d samples hold no program, which is what stands in a fenced code block; %s",
            recipe.suite, empty, len(records), remedy,
        )  # fmt: skip


def _fitting(recipe: EvaluationRecipe, given: list[Generation], problems: Sequence[Problem]) -> tuple[int, ...]:
    """The k that the file's number of samples allows, and a word about problems it leaves out."""
    absent = missing_problems(given, problems)
    if absent:
        logger.warning(
            "%s: no samples for %d of %d problems (%s ...): rates are over those it has",
            recipe.samples, len(absent), len(problems), ", ".join(absent[:3]),
        )  # fmt: skip
    sizes = uneven(given)
    if len([size for size in sizes if size]) > 1:
        shown = ", ".join(f"{count} with {size}" for size, count in sizes.items())
        logger.warning("%s: problems have different numbers of samples: %s", recipe.samples, shown)
    largest = max(sizes, default=0)
    return tuple(k for k in recipe.sampling.k if k <= largest) or (1,)


def _total(recipe: EvaluationRecipe, problems: Sequence[Problem], given: list[Generation] | None) -> int:
    return len(given) if given is not None else len(problems) * (recipe.sampling.n + recipe.sampling.greedy)


def _check_grader(recipe: EvaluationRecipe) -> None:
    if recipe.grader is not None and recipe.grader != grader_version():
        raise RecipeError(
            f"grader: the suite is fixed to {recipe.grader}, this judge is {grader_version()}; figures of different"
            " graders are not comparable. Set grader=null to take this one"
        )


def _reopen(folder: Path, identity: dict[str, Any]) -> None:
    """Makes generations of finished samples, so that only grading is done again; RecipeError for those of another."""
    if finished(folder, identity) is None:  # what is drawn so far is in its journal
        if _grader_of(folder / GRADED) != grader_version():
            (folder / GRADED).unlink(missing_ok=True)
        return
    _drop_journals(folder)
    if "samples" not in identity:
        journal = Journal(folder / GENERATIONS, identity)
        journal.append(_generation(record).to_row() for record in read_samples(folder))
        journal.close()
    (folder / "results.json").unlink()


def _grader_of(journal: Path) -> str | None:
    try:
        with journal.open(encoding="utf-8") as lines:
            return json.loads(lines.readline()).get("grader")
    except (OSError, ValueError, AttributeError):
        return None


def _generation(record: SampleRecord) -> Generation:
    refused = None
    if record.verdict.is_infrastructure and record.message.startswith(NOT_SAMPLED):
        refused = record.message.removeprefix(NOT_SAMPLED)
    item = Item(record.problem_id, record.sample, record.greedy)
    return Generation(item, record.completion, record.completion_tokens, record.finish_reason, refused=refused)
