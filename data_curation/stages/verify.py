"""Tests against programs of known worth: accepted solutions must pass, wrong ones must fail, slow ones must time out.

Every verdict is written to a journal as it comes, so an interrupted run continues where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_curation.config import VerifyOptions
from data_curation.families import unit_hash
from data_curation.schema import Problem, Solution
from data_curation.stages.judging import judge_all, runnable_languages, submission
from data_curation.stages.result import Dropped, StageResult, Workplace

JOURNAL = "journal.jsonl"
_TIME_OUTS = ("TLE", "ILE")


@dataclass
class Outcome:
    """What a problem's labelled solutions did on its tests; one row of `verification.parquet`."""

    id: str
    accepted: int = 0  # solutions labelled accepted that were run
    accepted_passed: int = 0
    wrong: int = 0  # solutions with any other label that were run
    wrong_rejected: int = 0
    otherwise_rejected: int = 0  # rejected, but not with the labelled verdict (a slow one that printed a wrong answer)
    not_run: int = 0  # no toolchain, or left out by the options
    weaknesses: list[str] = field(default_factory=list)  # wrong solutions the tests let through
    failure: str = ""  # first failure of an accepted solution


def verify(problems: Sequence[Problem], options: VerifyOptions, work: Workplace) -> StageResult:
    """Drops problems whose accepted solutions fail; figures give the true-positive and true-negative rates.

    True-positive rate: share of accepted solutions the tests accept. True-negative rate: share of wrong solutions
    they reject. Both are over all problems that came in, dropped ones included.
    """
    verdicts = _verdicts(problems, options, work)
    outcomes = [_outcome(problem, options, verdicts) for problem in problems]
    kept, dropped = [], []
    for problem, outcome in zip(problems, outcomes, strict=True):
        fault = _fault(outcome, options)
        if fault is None:
            kept.append(problem)
        else:
            dropped.append(Dropped(problem.id, *fault))
    return StageResult(kept, dropped, _figures(outcomes), [asdict(outcome) for outcome in outcomes])


def _verdicts(problems: Sequence[Problem], options: VerifyOptions, work: Workplace) -> dict[str, list[Any]]:
    """Run key -> [verdict, tests passed, tests] for every solution that can be run."""
    journal = work.folder / JOURNAL
    known = _read_journal(journal)
    languages = runnable_languages()
    runs: dict[str, Any] = {}
    for problem in problems:
        for solution in problem.solutions:
            key = _run_key(problem, solution)
            if key not in known and problem.tests and _is_run(problem, solution, options, languages):
                tests = problem.tests
                if solution.verdict == "time_limit_exceeded":
                    # the test that shows slowness is a large one; a small one before it only costs time
                    tests = sorted(tests, key=lambda test: -len(test.input))
                runs[key] = submission(problem, solution, tests)
    keys = list(runs)
    work.folder.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as stream:
        for index, judgement in judge_all(list(runs.values()), work, "verify"):
            known[keys[index]] = [str(judgement.verdict), judgement.passed, len(runs[keys[index]].tests)]
            stream.write(json.dumps([keys[index], *known[keys[index]]]) + "\n")
            stream.flush()
    return known


def _read_journal(path: Path) -> dict[str, list[Any]]:
    known: dict[str, list[Any]] = {}
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                key, *verdict = json.loads(line)
            except ValueError:
                continue  # the line that was being written when the run was killed; its program is run again
            known[key] = verdict
    return known


def _run_key(problem: Problem, solution: Solution) -> str:
    text = f"{problem.fingerprint}\n{solution.language}\n{solution.verdict}\n{solution.code}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _is_run(problem: Problem, solution: Solution, options: VerifyOptions, languages: frozenset[str]) -> bool:
    if solution.language not in languages or (solution.verdict == "time_limit_exceeded" and not options.too_slow):
        return False
    if options.languages is not None and solution.language not in options.languages:
        return False
    return problem.source != "builtin:pipelines" or unit_hash(f"verify {problem.id}") < options.pipelines


def _outcome(problem: Problem, options: VerifyOptions, verdicts: dict[str, list[Any]]) -> Outcome:
    outcome = Outcome(problem.id)
    languages = runnable_languages()
    for number, solution in enumerate(problem.solutions, start=1):
        found = verdicts.get(_run_key(problem, solution))
        if found is None or not _is_run(problem, solution, options, languages):
            outcome.not_run += 1
            continue
        verdict, passed, tests = found
        if solution.verdict == "accepted":
            outcome.accepted += 1
            outcome.accepted_passed += verdict == "AC"
            if verdict != "AC" and not outcome.failure:
                outcome.failure = f"solution {number}: {verdict} on test {passed + 1} of {tests}"
            continue
        outcome.wrong += 1
        outcome.wrong_rejected += verdict != "AC"
        if verdict == "AC":
            outcome.weaknesses.append(f"solution {number}, labelled {solution.verdict}, passes all {tests} tests")
        elif (solution.verdict == "time_limit_exceeded") != (verdict in _TIME_OUTS):
            outcome.otherwise_rejected += solution.verdict in ("time_limit_exceeded", "wrong_answer")
    return outcome


def _fault(outcome: Outcome, options: VerifyOptions) -> tuple[str, str] | None:
    if outcome.failure:
        return "accepted solution fails", outcome.failure
    if options.drop_unverified and not outcome.accepted:
        return "no accepted solution could be run", ""
    if options.drop_weak and outcome.weaknesses:
        return "tests accept a wrong solution", outcome.weaknesses[0]
    return None


def _figures(outcomes: Sequence[Outcome]) -> dict[str, int | float]:
    total: Counter[str] = Counter()
    for outcome in outcomes:
        for name in ("accepted", "accepted_passed", "wrong", "wrong_rejected", "otherwise_rejected", "not_run"):
            total[name] += getattr(outcome, name)
        total["weak"] += bool(outcome.weaknesses)
        total["unverified"] += not outcome.accepted
    figures: dict[str, int | float] = {
        "accepted solutions run": total["accepted"],
        "wrong solutions run": total["wrong"],
        "solutions not run": total["not_run"],
        "wrong solutions rejected for another reason than labelled": total["otherwise_rejected"],
        "problems whose tests accept a wrong solution": total["weak"],
        "problems without an accepted solution that was run": total["unverified"],
    }
    if total["accepted"]:
        figures["true-positive rate"] = round(total["accepted_passed"] / total["accepted"], 6)
    if total["wrong"]:
        figures["true-negative rate"] = round(total["wrong_rejected"] / total["wrong"], 6)
    return figures
