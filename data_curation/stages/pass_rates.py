"""Pass rates of a policy: how many of n programs pass, with the interval that n allows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sandbox
from data_curation.schema import Problem
from data_curation.sources.rows import RowError
from data_curation.sources.tables import json_rows
from data_curation.stages.judging import judge_all
from data_curation.stages.result import Workplace, parts_of
from data_curation.stored import batches

# problems and n in, n programs (source text, no markup) for each problem out, in order
Sampler = Callable[[Sequence[Problem], int], Iterable[Sequence[str]]]
JOURNAL = "rollouts.jsonl"
BATCH_PROBLEMS = 64


@dataclass(frozen=True)
class Rate:
    """`passed` of `samples` programs."""

    passed: int
    samples: int

    @property
    def mean(self) -> float:
        return self.passed / self.samples if self.samples else 0.0

    def interval(self, mass: float = 0.9) -> tuple[float, float]:
        """Bounds of the equal-tailed credible interval under a uniform prior, Beta(1 + passed, 1 + failed).

        With all or none passed the interval is one-sided: 1 or 0 is its end.
        """
        tail = (1 - mass) / 2
        low = 0.0 if self.passed == 0 else _quantile(self, 1 - mass if self.passed == self.samples else tail)
        high = 1.0 if self.passed == self.samples else _quantile(self, mass if self.passed == 0 else 1 - tail)
        return low, high


def _quantile(rate: Rate, probability: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _below(rate, middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _below(rate: Rate, x: float) -> float:
    """Probability that the rate is below `x`: a Beta of whole parameters is a binomial tail."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    n = rate.samples + 1
    logs = [
        math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) + j * math.log(x) + (n - j) * math.log1p(-x)
        for j in range(rate.passed + 1, n + 1)
    ]
    return math.fsum(map(math.exp, logs))


def check_samples(path: Path) -> None:
    """FileNotFoundError, or RowError for the first row that is neither counts nor a program that can run here."""
    if not path.is_file():
        raise FileNotFoundError(f"difficulty.samples: {path}: no such file")
    if not sum(1 for _ in _sample_rows(path)):
        raise RowError(path, None, "holds no samples")


def read_pass_rates(path: Path, problems: Sequence[Problem], work: Workplace) -> dict[str, Rate]:
    """problem id -> rate, summed over the file's rows; rows with a `program` are judged on the problem's tests.

    RowError as `check_samples`. Programs of problems that are not there have no rate.
    """
    counts: dict[str, Rate] = {}
    programs: dict[str, list[tuple[str, str]]] = {}
    for name, found in _sample_rows(path):
        if isinstance(found, Rate):
            before = counts.get(name, Rate(0, 0))
            counts[name] = Rate(before.passed + found.passed, before.samples + found.samples)
        else:
            programs.setdefault(name, []).append(found)
    for batch in batches((problem for problem in problems if problem.id in programs), 512, 64 << 20):
        for name, rate in _judged(batch, programs, work).items():
            before = counts.get(name, Rate(0, 0))
            counts[name] = Rate(before.passed + rate.passed, before.samples + rate.samples)
    return counts


def graded_rates(path: Path) -> dict[str, Rate]:
    """problem id -> rate, from rows of counts or rows with a `verdict` as `rlvr evaluate` writes them; nothing is run.

    FileNotFoundError, or RowError for the first row that has neither. A verdict of IE is no sample.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of samples")
    rates: dict[str, Rate] = {}
    for row, value in json_rows(path):
        if isinstance(value, RowError):
            raise value
        if isinstance(value, dict) and "verdict" in value and "problem_id" in value:
            verdict = str(value["verdict"])
            if verdict not in set(sandbox.Verdict):
                raise RowError(path, row, f"`verdict`: unknown {verdict!r}; known are {', '.join(sandbox.Verdict)}")
            ran = verdict != sandbox.Verdict.IE
            name, rate = str(value["problem_id"]), Rate(int(verdict == sandbox.Verdict.AC), int(ran))
        elif isinstance(value, dict) and "program" in value:
            raise RowError(path, row, "a program without a verdict; `rlvr evaluate --samples` judges it")
        else:
            name, rate = _counted(path, row, value)
        before = rates.get(name, Rate(0, 0))
        rates[name] = Rate(before.passed + rate.passed, before.samples + rate.samples)
    return rates


def sampled_ids(path: Path) -> set[str]:
    """The problems a samples file speaks of."""
    return {name for name, _ in _sample_rows(path)}


def _sample_rows(path: Path) -> Iterator[tuple[str, Rate | tuple[str, str]]]:
    """(problem id, counts or (program, language)) of every row."""
    for row, value in json_rows(path):
        if isinstance(value, RowError):
            raise value
        if isinstance(value, dict) and "program" in value and "problem_id" in value:
            yield str(value["problem_id"]), _program(path, row, value)
        else:
            yield _counted(path, row, value)


def _program(path: Path, row: int | None, value: dict[str, Any]) -> tuple[str, str]:
    program, language = value["program"], value.get("language", "python")
    if not isinstance(program, str):
        raise RowError(path, row, f"`program` must be source text, got {json.dumps(program)[:80]}")
    try:
        missing = sandbox.languages.find(str(language)).missing()
    except ValueError as error:
        raise RowError(path, row, f"`language`: {error}") from None
    if missing is not None:
        raise RowError(path, row, f"`language` {language!r} cannot run here: {missing}")
    return program, str(language)


def _counted(path: Path, row: int | None, value: Any) -> tuple[str, Rate]:
    try:
        name, passed, samples = str(value["problem_id"]), _whole(value["passed"]), _whole(value["samples"])
    except (KeyError, TypeError):
        shown = json.dumps(value)[:80]
        raise RowError(
            path, row, f"expected problem_id with passed and samples (whole numbers) or a program, got {shown}"
        ) from None
    if not 0 <= passed <= samples or not samples:
        raise RowError(
            path, row, f"`passed` must be from 0 to `samples`, and that at least 1, got {passed} of {samples}"
        )
    return name, Rate(passed, samples)


def _whole(value: Any) -> int:
    """TypeError unless the number is whole; 3.0 is, for tables write counts so."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise TypeError
    return int(value)


def sampled_pass_rates(
    problems: Sequence[Problem], sampler: Sampler, rollouts: int, work: Workplace
) -> dict[str, Rate]:
    """problem id -> rate of `rollouts` programs of the policy; finished batches are kept in the stage's folder."""
    journal = work.folder / JOURNAL
    known: dict[str, Rate] = {}
    if journal.exists():
        for line in journal.read_bytes().splitlines():
            try:
                key, passed, samples = json.loads(line)
            except ValueError:
                continue  # cut off by an interruption
            known[key] = Rate(passed, samples)
    work.folder.mkdir(parents=True, exist_ok=True)
    keys = {problem.id: f"{work.policy} {rollouts} {problem.id} {problem.fingerprint}" for problem in problems}
    todo = (problem for problem in problems if keys[problem.id] not in known and problem.tests)
    with journal.open("a", encoding="utf-8") as stream:
        for batch in parts_of(todo, BATCH_PROBLEMS):
            asked = zip(batch, sampler(batch, rollouts), strict=True)
            programs = {problem.id: [(program, "python") for program in found] for problem, found in asked}
            for name, rate in _judged(batch, programs, work).items():
                known[keys[name]] = rate
                stream.write(json.dumps([keys[name], rate.passed, rate.samples]) + "\n")
            stream.flush()
    return {name: known[key] for name, key in keys.items() if key in known}


def _judged(
    problems: Sequence[Problem], programs: dict[str, list[tuple[str, str]]], work: Workplace
) -> dict[str, Rate]:
    runs = [
        (problem, program, language)
        for problem in problems
        if problem.tests
        for program, language in programs.get(problem.id, ())
    ]
    passed = dict.fromkeys((problem.id for problem, *_ in runs), 0)
    samples = dict.fromkeys(passed, 0)
    submissions = [problem.submission(program, language) for problem, program, language in runs]
    for index, judgement in judge_all(submissions, work, "rollouts"):
        name = runs[index][0].id
        samples[name] += 1
        passed[name] += judgement.accepted
    return {name: Rate(passed[name], samples[name]) for name in passed}
