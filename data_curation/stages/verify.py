"""Tests against programs of known worth: accepted solutions must pass, wrong ones must fail, slow ones must time out.

Every verdict is written to a journal as it comes, so an interrupted run continues where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import sandbox
from data_curation.config import VerifyOptions
from data_curation.families import unit_hash
from data_curation.schema import Problem, Solution
from data_curation.stages.judging import Run, judge_few, runnable_languages, submission
from data_curation.stages.kept_results import NOT_KEPT, computed
from data_curation.stages.result import Dropped, Notes, Stage, Workplace
from data_curation.stages.second_look import fits, has_many_answers, may_change, raised_limit, speeds, trials
from data_curation.stages.thinning import thinned
from data_curation.stages.threads import waiting_threads
from data_curation.storage import naming

JOURNAL = "journal.jsonl"
_TIME_OUTS = ("TLE", "ILE")
_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


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
    true_positive_rate: float | None = None  # share of accepted solutions the tests accept
    true_negative_rate: float | None = None  # share of wrong solutions they reject
    thinned: int = 0  # tests left out because there were too many or too large ones
    repair: str = ""  # what was changed so that the accepted solutions pass
    cause: str = ""  # why they fail, where that was seen
    weaknesses: list[str] = field(default_factory=list)  # wrong solutions the tests let through
    missing_module: str = ""  # of a solution that therefore says nothing
    failure: str = ""  # first failure of an accepted solution
    speeds: list[dict[str, Any]] = field(default_factory=list)  # of the accepted solutions, by language


@Stage
def verify(problems: Sequence[Problem], options: VerifyOptions, work: Workplace, notes: Notes) -> Iterator[Problem]:
    """Drops problems whose accepted solutions fail and cannot be made to pass by a wider limit or a fitting checker.

    True-positive rate: share of accepted solutions the tests accept. True-negative rate: share of wrong solutions
    they reject. Figures give both over all problems that came in, dropped and repaired ones included as they came.
    """
    journal = _Journal(work.folder / JOURNAL)
    compute = partial(_verified, options, runnable_languages(), journal)
    outcomes: list[Outcome] = []
    for _, (problem, outcome, runs) in computed(compute, problems, NOT_KEPT, work, "verify", waiting_threads()):
        journal.add(runs)
        fault = _fault(outcome, options)
        if fault is None:
            yield problem
        else:
            notes.dropped.append(Dropped(problem.id, *fault))
        outcomes.append(outcome)
    notes.rows = [asdict(outcome) for outcome in outcomes]
    notes.figures = _figures(outcomes)


def _verified(
    options: VerifyOptions, languages: frozenset[str], journal: _Journal, problem: Problem
) -> tuple[Problem, Outcome, dict[str, Run]]:
    """The problem, thinned and repaired where need be, what became of its solutions, and runs made elsewhere."""
    slim = _slim(problem, options)
    ours = [s for s in slim.solutions if slim.tests and _is_run(slim, s, options, languages)]
    fresh = journal.judge([_Task(slim, solution) for solution in ours])
    if options.repeat:
        steady = [s for s in ours if s.verdict == "accepted" and may_change(s)]
        again = [_Task(slim, s, 2) for s in steady if journal[_Task(slim, s)].verdict == "AC"]
        fresh |= journal.judge(again)
    outcome = _outcome(slim, options, journal, languages)
    outcome.thinned = len(problem.tests) - len(slim.tests)
    repaired, trials = _second_look(slim, outcome, options, journal, languages)
    return repaired, outcome, {} if journal.is_here else fresh | trials


def _slim(problem: Problem, options: VerifyOptions) -> Problem:
    tests = thinned(problem.tests, options.maximum_tests, int(options.maximum_tests_mb * 1e6))
    if len(tests) == len(problem.tests):
        return problem
    return problem.model_copy(update={"tests": tests, "tags": [*problem.tags, f"tests-thinned:{len(problem.tests)}"]})


def _second_look(
    problem: Problem, outcome: Outcome, options: VerifyOptions, journal: _Journal, languages: frozenset[str]
) -> tuple[Problem, dict[str, Run]]:
    """The problem, repaired where that can be done, and the runs it took; notes repair or cause in the outcome."""
    found = [(s, journal.get(_Task(problem, s))) for s in problem.solutions]
    runs = [(s, run) for s, run in found if run is not None and _is_run(problem, s, options, languages)]
    outcome.speeds = [asdict(speed) for speed in speeds(problem, runs, options.limit_margin)]
    if not outcome.failure or outcome.cause:
        return problem, {}
    trying = trials(problem, runs, options.limit_stretch) if options.repair else []
    fresh = journal.judge([_Task(trial.problem, s) for trial in trying for s in trial.solutions])
    for trial in trying:
        verdicts = [journal[_Task(trial.problem, solution)] for solution in trial.solutions]
        if not fits(trial, verdicts):
            continue
        repaired = trial.problem
        if trial.change == "limit":
            found_speeds = speeds(repaired, list(zip(trial.solutions, verdicts, strict=True)), options.limit_margin)
            repaired = raised_limit(problem, found_speeds)
            outcome.speeds = [asdict(speed) for speed in found_speeds]
            if repaired.cpu_s == problem.cpu_s:
                # within the old limit after all: a busy machine let it wait, and the problem is as it was
                outcome.failure, outcome.accepted_passed, outcome.true_positive_rate = "", outcome.accepted, 1.0
                return problem, fresh
            outcome.repair = f"limit {problem.cpu_s:g} s to {repaired.cpu_s:g} s"
        else:
            outcome.repair = f"{trial.change} instead of {problem.checker}"
        tag = f"repaired:{trial.change.split()[0]}"
        return repaired.model_copy(update={"tags": [*problem.tags, tag]}), fresh
    failing = {run.verdict for s, run in runs if s.verdict == "accepted" and run.verdict != "AC"}
    if failing <= {"WA", "PE"} and has_many_answers(problem):
        outcome.cause = "several answers are right"
    return problem, fresh


@dataclass(frozen=True)
class _Task:
    """A solution to be run on its problem's tests, `times` times over."""

    problem: Problem
    solution: Solution
    times: int = 1

    @cached_property
    def key(self) -> str:
        text = f"{self.problem.fingerprint}\n{self.solution.language}\n{self.solution.verdict}\n{self.solution.code}"
        text += f"\n{self.times}" if self.times > 1 else ""
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    def submission(self) -> sandbox.Submission:
        tests = self.problem.tests
        if self.solution.verdict == "time_limit_exceeded":
            # the test that shows slowness is a large one; a small one before it only costs time
            tests = sorted(tests, key=lambda test: -len(test.input))
        return submission(self.problem, self.solution, [*tests] * self.times)


class _Journal:
    """The runs made so far, kept in a file beside the stage's output, so that an interrupted stage continues.

    Threads may share it. A copy on another machine knows what was run before; what is new there is in no file.
    """

    def __init__(self, path: Path) -> None:
        self._path: Path | None = path
        self._known = _read_journal(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": None, "_known": self._known}

    @property
    def is_here(self) -> bool:
        """Whether this is the one with the file."""
        return self._path is not None

    def get(self, task: _Task) -> Run | None:
        return self._known.get(task.key)

    def __getitem__(self, task: _Task) -> Run:
        return self._known[task.key]

    def judge(self, tasks: Sequence[_Task]) -> dict[str, Run]:
        """Runs the tasks that have not been run; these runs, by key."""
        new = {task.key: task for task in tasks if task.key not in self._known}
        keys = list(new)
        runs = [task.submission() for task in new.values()]
        for index, judgement in judge_few(runs, "verify"):
            self.add({keys[index]: Run.of(judgement, len(runs[index].tests))})
        return {key: self._known[key] for key in keys}

    def add(self, runs: Mapping[str, Run]) -> None:
        """Takes runs in, as they were made here or elsewhere."""
        self._known.update(runs)
        if self._path is not None and runs:
            with (
                naming(self._path),
                self._path.open("a", encoding="utf-8") as stream,
            ):  # whole lines at the end, whichever thread
                stream.write("".join(json.dumps([key, *astuple(run)]) + "\n" for key, run in runs.items()))


def _read_journal(path: Path) -> dict[str, Run]:
    known: dict[str, Run] = {}
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                key, verdict, passed, tests, slowest, message = json.loads(line)
            except ValueError:
                continue  # the line that was being written when the run was killed; its program is run again
            known[key] = Run(verdict, passed, tests, slowest, message)
    return known


def _is_run(problem: Problem, solution: Solution, options: VerifyOptions, languages: frozenset[str]) -> bool:
    if solution.language not in languages or (solution.verdict == "time_limit_exceeded" and not options.too_slow):
        return False
    if options.languages is not None and solution.language not in options.languages:
        return False
    return problem.source != "builtin:pipelines" or unit_hash(f"verify {problem.id}") < options.pipelines


def _outcome(problem: Problem, options: VerifyOptions, journal: _Journal, languages: frozenset[str]) -> Outcome:
    outcome = Outcome(problem.id)
    for number, solution in enumerate(problem.solutions, start=1):
        run = journal.get(_Task(problem, solution))
        if run is None or not _is_run(problem, solution, options, languages):
            outcome.not_run += 1
            continue
        if missing := _MISSING_MODULE.search(run.message):
            # says nothing about the tests: where the program was written, the module was there
            outcome.not_run += 1
            outcome.missing_module = missing[1]
            continue
        if solution.verdict == "accepted":
            again = journal.get(_Task(problem, solution, 2))
            outcome.accepted += 1
            outcome.accepted_passed += run.verdict == "AC"
            if run.verdict != "AC" and not outcome.failure:
                said = f": {run.message}" if run.message else ""
                outcome.failure = f"solution {number}: {run.verdict} on test {run.passed + 1} of {run.tests}{said}"
            elif run.verdict == "AC" and again is not None and again.verdict != "AC" and not outcome.failure:
                outcome.failure = f"solution {number}: passes once and not twice ({again.verdict})"
                outcome.cause = "output changes between runs"
            continue
        outcome.wrong += 1
        outcome.wrong_rejected += run.verdict != "AC"
        if run.verdict == "AC":
            outcome.weaknesses.append(f"solution {number}, labelled {solution.verdict}, passes all {run.tests} tests")
        elif (solution.verdict == "time_limit_exceeded") != (run.verdict in _TIME_OUTS):
            outcome.otherwise_rejected += solution.verdict in ("time_limit_exceeded", "wrong_answer")
    if outcome.accepted:
        outcome.true_positive_rate = outcome.accepted_passed / outcome.accepted
    if outcome.wrong:
        outcome.true_negative_rate = outcome.wrong_rejected / outcome.wrong
    return outcome


def _fault(outcome: Outcome, options: VerifyOptions) -> tuple[str, str] | None:
    if outcome.failure and not outcome.repair:
        return f"accepted solution fails{f': {outcome.cause}' if outcome.cause else ''}", outcome.failure
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
        total["thinned"] += bool(outcome.thinned)
        total["repaired"] += bool(outcome.repair)
        total["unverified"] += not outcome.accepted
        total["missing"] += bool(outcome.missing_module)
    figures: dict[str, int | float] = {
        "accepted solutions run": total["accepted"],
        "wrong solutions run": total["wrong"],
        "solutions not run": total["not_run"],
        "wrong solutions rejected for another reason than labelled": total["otherwise_rejected"],
        "problems whose tests accept a wrong solution": total["weak"],
        "problems without an accepted solution that was run": total["unverified"],
    }
    if total["missing"]:
        figures["problems with a solution whose module is missing here"] = total["missing"]
    figures["problems repaired (limit or checker)"] = total["repaired"]
    figures["problems with tests thinned"] = total["thinned"]
    if total["accepted"]:
        figures["true-positive rate"] = round(total["accepted_passed"] / total["accepted"], 6)
    if total["wrong"]:
        figures["true-negative rate"] = round(total["wrong_rejected"] / total["wrong"], 6)
    return figures
