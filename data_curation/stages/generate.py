"""Large tests from a problem's own generator: inputs by running it, outputs by running an accepted solution.

The verify stage then runs every accepted solution on them, so a problem whose solutions disagree does not pass.
Problems already done are kept beside the stage's output, so an interrupted run continues where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import sandbox
from data_curation.config import GenerateOptions
from data_curation.schema import Generator, Problem, Solution, Test
from data_curation.sources.files import read_parquet
from data_curation.stages.judging import JudgeFailure, runnable_languages
from data_curation.stages.kept_results import Kept, computed
from data_curation.stages.result import SCRATCH, Dropped, Notes, Stage, Workplace
from data_curation.stages.threads import waiting_threads
from data_curation.storage import save_problems

# a generator is given more than a solution is: it may build a large input slowly
GENERATOR_LIMITS = sandbox.Limits(cpu_s=20.0, memory_mb=1024, language_factors=False)


class _Unusable(Exception):
    """Why a problem's generator gave no tests: (reason, detail)."""


@Stage
def generate(problems: Sequence[Problem], options: GenerateOptions, work: Workplace, notes: Notes) -> Iterator[Problem]:
    """Adds the generated tests to problems that have a generator, and drops those whose generation fails.

    With `enabled: false`, generators are left aside; a problem that has no other tests is dropped.
    """
    languages = runnable_languages()
    made = work.folder / SCRATCH
    made.mkdir(parents=True, exist_ok=True)
    kept_results = Kept(partial(_file, made, options), _read, _save)
    threads = waiting_threads()
    generated, run = 0, 0
    for before, result in computed(
        partial(_outcome, options, languages), problems, kept_results, work, "generate", threads
    ):
        run += before.generator is not None and options.enabled
        if isinstance(result, Dropped):
            notes.dropped.append(result)
        else:
            generated += len(result.tests) - len(before.tests)
            yield result
    notes.figures = {"tests generated": generated, "generators run": run}


def _file(made: Path, options: GenerateOptions, problem: Problem) -> Path | None:
    if problem.generator is None or not options.enabled:
        return None
    return made / f"{hashlib.sha256(problem.model_dump_json().encode()).hexdigest()[:24]}.parquet"


def _read(file: Path) -> Problem | Dropped:
    return next(read_parquet(file))


def _save(result: Problem | Dropped, file: Path) -> None:
    if isinstance(result, Problem):
        save_problems([result], file)


def _outcome(options: GenerateOptions, languages: frozenset[str], problem: Problem) -> Problem | Dropped:
    if problem.generator is None:
        return problem
    if not options.enabled:
        return problem if problem.tests else Dropped(problem.id, "no tests", "its generator was not run")
    try:
        tests = _generated(problem, problem.generator, options, languages)
    except _Unusable as unusable:
        return Dropped(problem.id, *unusable.args)
    return problem.model_copy(update={"tests": [*problem.tests, *tests], "generator": None})


def _generated(
    problem: Problem, generator: Generator, options: GenerateOptions, languages: frozenset[str]
) -> list[Test]:
    accepted = [s for s in problem.solutions if s.verdict == "accepted" and s.language in languages]
    if not accepted:
        raise _Unusable("generator without an accepted solution", "no program to take expected outputs from")
    inputs = _inputs(generator, options)
    outputs = _outputs(accepted[0], problem, inputs)
    return [Test(input=i, output=o) for i, o in zip(inputs, outputs, strict=True)]


def _inputs(generator: Generator, options: GenerateOptions) -> list[str]:
    runs = sandbox.execute(generator.code, [f"{line}\n" for line in generator.arguments], limits=GENERATOR_LIMITS)
    texts = []
    for line, run in zip(generator.arguments, runs, strict=True):
        _require_run(run)
        if run.verdict is not sandbox.Verdict.AC:
            raise _Unusable("generator fails", f"{run.verdict} for arguments {line!r}: {_last_line(run.stderr)}")
        if len(run.stdout) > options.maximum_input_mb * 1e6:
            raise _Unusable("generated input too large", f"{len(run.stdout) / 1e6:.1f} MB for arguments {line!r}")
        texts.append(_text(run.stdout, f"the generator's output for {line!r}"))
    return texts


def _outputs(solution: Solution, problem: Problem, inputs: list[str]) -> list[str]:
    runs = sandbox.execute(solution.code, inputs, language=solution.language, limits=problem.limits)
    texts = []
    for number, run in enumerate(runs, start=1):
        _require_run(run)
        if run.verdict is not sandbox.Verdict.AC:
            raise _Unusable(
                "accepted solution fails on a generated input",
                f"{run.verdict} on generated input {number}: {_last_line(run.stderr)}",
            )
        texts.append(_text(run.stdout, f"the accepted solution's output on generated input {number}"))
    return texts


def _require_run(run: sandbox.Execution) -> None:
    if run.verdict.is_infrastructure:
        raise JudgeFailure(f"generate: the sandbox failed ({run.message}); run the same command again to continue")


def _text(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _Unusable("output is not text", f"{what} is not UTF-8") from None


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
