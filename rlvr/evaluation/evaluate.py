"""Evaluation of one checkpoint: sample, judge, count; every finished chunk is on disk, so a killed run continues."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_curation import Problem
from rlvr.config import EvaluationRecipe, RecipeError, RewardSection, write_resolved
from rlvr.evaluation.results import (
    Cost,
    Results,
    SampleRecord,
    build_results,
    read_results,
    write_results,
    write_samples,
)
from rlvr.provenance import data_fingerprint, write_environment
from rlvr.rewards import ProgramGrader
from rlvr.rollouts.engine import Engine, Sampling, TransformersEngine
from rlvr.rollouts.prompts import completion_text
from rlvr.training.loading import load_policy, load_training_problems, render_prompts

PARTIAL = "samples.partial.jsonl"
CHUNK = 64  # problems


def evaluate(recipe: EvaluationRecipe, model: Any = None, tokenizer: Any = None) -> Results:
    """Returns the results and writes `results.json` and `samples.jsonl` into `recipe.output_dir`.

    A finished evaluation is read back. Samples of finished chunks are never drawn again.
    """
    folder = Path(recipe.output_dir)
    problems = load_training_problems(recipe.data, recipe.prompt)
    identity = {
        "data_fingerprint": data_fingerprint(problems),
        "model": recipe.model.name_or_path,
        "sampling": recipe.sampling.model_dump(mode="json"),
        "seed": recipe.seed,
    }
    done = folder / "results.json"
    if done.is_file():
        results = read_results(done)
        if results.config.get("identity") == identity:
            return results
        raise RecipeError(
            f"{folder}: holds results of another model, data or sampling; choose another output_dir or delete it"
        )
    if max(recipe.sampling.k) > recipe.sampling.n:
        raise RecipeError(f"sampling.k: pass@{max(recipe.sampling.k)} needs sampling.n >= {max(recipe.sampling.k)}")
    if model is None:
        model, tokenizer = load_policy(recipe.model)
    prompts = render_prompts(problems, recipe.prompt, tokenizer, None)
    write_resolved(recipe, folder)
    write_environment(folder, **identity)

    partial = Partial(folder / PARTIAL, identity)
    engine = TransformersEngine(model, tokenizer, recipe.sampling.batch_size)
    cost = {"generate_s": partial.generate_s, "grade_s": partial.grade_s}
    chunks = [problems[start : start + CHUNK] for start in range(0, len(problems), CHUNK)]
    bar = tqdm(total=len(problems), desc=f"evaluate {recipe.suite}", unit="problem", file=sys.stderr)
    bar.update(min(len(partial.chunks) * CHUNK, len(problems)))
    with bar, ProgramGrader(recipe.prompt, RewardSection(), recipe.judge) as grader:
        for number, chunk in enumerate(chunks):
            if number in partial.chunks:
                continue
            started, graded = time.perf_counter(), grader.seconds
            records = sample_chunk(chunk, prompts, engine, grader, recipe, number)
            grade_s = grader.seconds - graded
            generate_s = time.perf_counter() - started - grade_s
            partial.add(number, records, generate_s, grade_s)
            cost = {"generate_s": cost["generate_s"] + generate_s, "grade_s": cost["grade_s"] + grade_s}
            bar.update(len(chunk))
    records = [record for number in sorted(partial.chunks) for record in partial.chunks[number]]
    results = build_results(
        {recipe.suite: records},
        checkpoint=recipe.model.name_or_path,
        config={**recipe.model_dump(mode="json"), "identity": identity},
        cost=Cost(tokens=sum(record.completion_tokens for record in records), **cost),
        ks=tuple(k for k in recipe.sampling.k),
    )
    write_samples(records, folder)
    write_results(results, folder)
    partial.path.unlink(missing_ok=True)
    return results


def sample_chunk(
    problems: list[Problem],
    prompts: dict[str, Any],
    engine: Engine,
    grader: ProgramGrader,
    recipe: EvaluationRecipe,
    number: int,
) -> list[SampleRecord]:
    """Returns the judged samples of a chunk of problems: n at the recipe's temperature, then the greedy one."""
    section = recipe.sampling
    sampling = Sampling(section.max_completion_length, section.temperature, section.top_p, section.top_k)
    rows = [(problem, index, False) for problem in problems for index in range(section.n)]
    completions = engine.generate([prompts[problem.id] for problem, _, _ in rows], sampling, recipe.seed + number)
    if section.greedy:
        rows += [(problem, 0, True) for problem in problems]
        greedy = Sampling(section.max_completion_length, temperature=0.0)
        completions += engine.generate([prompts[problem.id] for problem in problems], greedy, recipe.seed)
    graded = grader.grade([problem for problem, _, _ in rows], [completion.text for completion in completions])
    return [
        SampleRecord(
            problem_id=problem.id,
            sample=index,
            greedy=is_greedy,
            verdict=item.judgement.verdict,
            difficulty=problem.difficulty,
            family=problem.family,
            passed=item.judgement.passed,
            tests=len(problem.tests),
            cases=[case.verdict for case in item.judgement.cases],
            completion_tokens=completion.tokens,
            finish_reason="stop" if completion.finish_reason == "stop" else "length",
            prompt=completion_text(prompts[problem.id]),
            completion=completion.text,
            program=item.program,
            message=item.judgement.message,
        )
        for (problem, index, is_greedy), completion, item in zip(rows, completions, graded, strict=True)
    ]


class Partial:
    """Samples of the finished chunks of an evaluation; a chunk counts once its closing line is on disk."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.chunks: dict[int, list[SampleRecord]] = {}
        self.generate_s = self.grade_s = 0.0
        if path.exists() and self._read(identity):
            return
        path.write_text(json.dumps({"identity": identity}) + "\n")

    def add(self, number: int, records: list[SampleRecord], generate_s: float, grade_s: float) -> None:
        closing = {"chunk": number, "generate_s": generate_s, "grade_s": grade_s}
        with self.path.open("a") as file:
            file.writelines(record.model_dump_json() + "\n" for record in records)
            file.write(json.dumps(closing) + "\n")
        self.chunks[number] = records

    def _read(self, identity: dict[str, Any]) -> bool:
        lines = self.path.read_text().split("\n")
        if not lines[0] or json.loads(lines[0]).get("identity") != identity:
            return False
        kept, pending, end = [lines[0]], [], 1
        for position, line in enumerate(lines[1:-1], 1):
            row = json.loads(line)
            if "chunk" not in row:
                pending.append(row)
                continue
            self.chunks[row["chunk"]] = [SampleRecord(**item) for item in pending]
            self.generate_s += row["generate_s"]
            self.grade_s += row["grade_s"]
            pending, end = [], position + 1
        kept = lines[:end]  # what a kill left of an unfinished chunk goes
        self.path.write_text("\n".join(kept) + "\n")
        return True
