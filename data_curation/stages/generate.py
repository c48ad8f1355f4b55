"""Large tests from a problem's own generator: inputs by running it, outputs by running accepted solutions."""

from __future__ import annotations

from collections.abc import Sequence

import sandbox
from data_curation.config import GenerateOptions
from data_curation.schema import Generator, Problem, Solution, Test
from data_curation.stages.judging import judge_all, runnable_languages, submission
from data_curation.stages.result import Dropped, StageResult, Workplace

# a generator is given more than a solution is: it may build a large input slowly
GENERATOR_LIMITS = sandbox.Limits(cpu_s=20.0, memory_mb=1024, language_factors=False)


class _Unusable(Exception):
    """Why a problem's generator gave no tests: (reason, detail)."""


def generate(problems: Sequence[Problem], options: GenerateOptions, work: Workplace) -> StageResult:
    """Adds the generated tests to problems that have a generator, and drops those whose generation fails.

    Expected outputs come from the first accepted solution; every other accepted solution must agree with it under
    the problem's checker.
    """
    languages = runnable_languages()
    kept: list[Problem] = []
    dropped: list[Dropped] = []
    added = 0
    for problem in work.track(problems, len(problems), "generate", "problem"):
        if problem.generator is None:
            kept.append(problem)
            continue
        try:
            tests = _generated(problem, problem.generator, options, languages, work)
        except _Unusable as unusable:
            dropped.append(Dropped(problem.id, *unusable.args))
        else:
            added += len(tests)
            kept.append(problem.model_copy(update={"tests": [*problem.tests, *tests], "generator": None}))
    figures = {"tests generated": added, "generators run": sum(p.generator is not None for p in problems)}
    return StageResult(kept, dropped, figures)


def _generated(
    problem: Problem, generator: Generator, options: GenerateOptions, languages: frozenset[str], work: Workplace
) -> list[Test]:
    accepted = [s for s in problem.solutions if s.verdict == "accepted" and s.language in languages]
    if not accepted:
        raise _Unusable("generator without an accepted solution", "no program to take expected outputs from")
    inputs = _inputs(generator, options)
    outputs = _outputs(accepted[0], problem, inputs)
    tests = [Test(input=i, output=o) for i, o in zip(inputs, outputs, strict=True)]
    runs = [submission(problem, solution, tests) for solution in accepted[1:]]
    for index, judgement in judge_all(runs, work, problem.id):
        if not judgement.accepted:
            raise _Unusable(
                "accepted solutions disagree on generated tests",
                f"solution {index + 2} against solution 1: {judgement.verdict} on test {judgement.passed + 1}",
            )
    return tests


def _inputs(generator: Generator, options: GenerateOptions) -> list[str]:
    runs = sandbox.execute(generator.code, [f"{line}\n" for line in generator.arguments], limits=GENERATOR_LIMITS)
    texts = []
    for line, run in zip(generator.arguments, runs, strict=True):
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
        if run.verdict is not sandbox.Verdict.AC:
            raise _Unusable(
                "accepted solution fails on a generated input",
                f"{run.verdict} on generated input {number}: {_last_line(run.stderr)}",
            )
        texts.append(_text(run.stdout, f"the accepted solution's output on generated input {number}"))
    return texts


def _text(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _Unusable("output is not text", f"{what} is not UTF-8") from None


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
