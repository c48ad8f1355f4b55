"""Step 2: verdicts, by the judge of training; each is on disk as soon as it is known."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

import sandbox
from data_curation import Problem
from rlvr.config import EvaluationRecipe
from rlvr.evaluation.degeneration import is_repetitive, mixes_languages
from rlvr.evaluation.generate import Generation, Item, interval
from rlvr.evaluation.journal import Journal
from rlvr.evaluation.records import SampleRecord
from rlvr.rewards import ProgramGrader
from rlvr.rollouts.prompts import completion_text, extract_program
from sandbox import Judgement, Verdict

GRADED = "graded.jsonl"
NOT_SAMPLED = "not sampled: "  # begins the message of a sample that could not be drawn
TRIES = 3  # of a program whose judgement failed for the judge's own reasons
_RULES = ("box/dialogue.py", "box/execute.py", "cases.py", "extraction.py", "grading.py", "scoring.py", "verdicts.py")
_RULE_FOLDERS = ("checkers", "languages")


@cache
def grader_version() -> str:
    """Version of the package and 8 hex digits over the sources that decide verdicts."""
    home = Path(sandbox.__file__).parent
    files = [home / name for name in _RULES]
    files += sorted(path for folder in _RULE_FOLDERS for path in (home / folder).rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]
    try:
        version = importlib.metadata.version("rlvr")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return f"{version}+{digest}"


class Grading:
    """Grades generations of a suite; what was graded before an interruption is not graded again.

    Verdicts IE are tried again, now and in a later run. Close it, or use it as a context manager.
    """

    def __init__(
        self, problems: Sequence[Problem], prompts: dict[str, Any], recipe: EvaluationRecipe, header: dict[str, Any],
        total: int,
    ) -> None:  # fmt: skip
        self.problems = {problem.id: problem for problem in problems}
        self.prompts, self.recipe = prompts, recipe
        self.records: dict[Item, SampleRecord] = {}
        self.seconds = 0.0
        self.journal = Journal(Path(recipe.output_dir) / GRADED, header | {"grader": grader_version()})
        for row in self.journal.take():
            self.seconds += row.pop("seconds", 0.0)
            if row:
                record = SampleRecord.model_validate(row)
                if not record.verdict.is_infrastructure:
                    self.records[_item(record)] = record
        self._grader: ProgramGrader | None = None
        self._bar = tqdm(
            total=total, desc=f"{recipe.suite}: grade", unit="sample", file=sys.stderr, mininterval=interval()
        )

    def __enter__(self) -> Grading:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._bar.close()
        self.journal.close()
        if self._grader is not None:
            self._grader.close()
            self._grader = None

    def grade(self, generations: Sequence[Generation]) -> None:
        """Adds the records of `generations`; those already graded cost nothing."""
        pending = [generation for generation in generations if generation.item not in self.records]
        self._bar.update(len(generations) - len(pending))
        started = time.perf_counter()
        for generation in pending:
            if generation.refused is not None:
                self._add(generation, "", Judgement(Verdict.IE, message=NOT_SAMPLED + generation.refused))
        pending = [generation for generation in pending if generation.refused is None]
        for attempt in range(TRIES):
            if not pending:
                break
            pending = self._judge(pending, last=attempt == TRIES - 1)
        spent = time.perf_counter() - started
        if spent > 0.001:
            self.seconds += spent
            self.journal.append([{"seconds": round(spent, 3)}])

    def _judge(self, generations: Sequence[Generation], last: bool) -> list[Generation]:
        """The generations the judge failed on; on the `last` try they are recorded as IE."""
        if self._grader is None:
            self._grader = ProgramGrader(self.recipe.prompt, judge=self.recipe.judge)
        programs = [
            extract_program(g.completion, self.recipe.prompt) if g.program is None else g.program for g in generations
        ]
        submissions = [
            self.problems[g.item.problem_id].submission(program, self.recipe.prompt.language)
            for g, program in zip(generations, programs, strict=True)
        ]
        failed = []
        for index, judgement in self._grader.judge.as_completed(submissions):
            if judgement.verdict.is_infrastructure and not last:
                failed.append(generations[index])
                continue
            self._add(generations[index], programs[index], judgement)
        return failed

    def _add(self, generation: Generation, program: str, judgement: Judgement) -> None:
        record = self._record(generation, program, judgement)
        self.records[generation.item] = record
        self.journal.append([record.model_dump(mode="json")])
        self._bar.update(1)

    def _record(self, generation: Generation, program: str, judgement: Judgement) -> SampleRecord:
        item, problem = generation.item, self.problems[generation.item.problem_id]
        return SampleRecord(
            problem_id=item.problem_id,
            sample=item.sample,
            greedy=item.greedy,
            verdict=judgement.verdict,
            difficulty=problem.difficulty,
            family=problem.family,
            rating=problem.rating,
            tags=list(problem.tags),
            date=problem.date,
            passed=judgement.passed,
            tests=len(problem.tests),
            cases=[case.verdict for case in judgement.cases],
            completion_tokens=generation.tokens,
            finish_reason="length" if generation.finish_reason == "length" else "stop",
            prompt=completion_text(self.prompts[item.problem_id]),
            completion=generation.completion,
            program=program,
            message=judgement.message,
            repetitive=is_repetitive(generation.completion),
            mixed_languages=mixes_languages(generation.completion),
            grader=grader_version(),
        )


def _item(record: SampleRecord) -> Item:
    return Item(record.problem_id, record.sample, record.greedy)
