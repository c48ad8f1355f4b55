"""Runs every submission of a package and compares what happens with what its folder promises."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from data_curation.kattis.package import Package
from data_curation.kattis.submissions import PackageSubmission
from data_curation.kattis.testdata import Test
from sandbox import CaseResult, Judgement, Limits, Submission, TestCase, ToolchainMissing, Verdict, languages
from sandbox.protocol import BatchJudge

_RESULTS = {
    Verdict.AC: "AC", Verdict.WA: "WA", Verdict.PE: "WA", Verdict.TLE: "TLE", Verdict.ILE: "TLE", Verdict.RE: "RTE",
    Verdict.MLE: "RTE", Verdict.OLE: "RTE",
}  # fmt: skip
LONGEST_S = 60.0  # CPU seconds an accepted submission may take while the time limit is being found


@dataclass(slots=True)
class Row:
    """What came of one submission. `as_expected` is None where nothing was expected or it could not be run."""

    submission: PackageSubmission
    as_expected: bool | None = None
    verdict: str = ""
    results: dict[str, CaseResult] = field(default_factory=dict)  # by name of the test, in order; run ones only
    why: str = ""  # the first failure, or what is not as expected, or why it was not run
    failed: bool = False  # the judge itself did

    @property
    def passed(self) -> int:
        return sum(case.verdict is Verdict.AC for case in self.results.values())

    @property
    def slowest_s(self) -> float:
        """Highest CPU time of a test."""
        return max((case.cpu_s for case in self.results.values()), default=0.0)

    @property
    def memory_mb(self) -> float:
        return max((case.memory_mb for case in self.results.values()), default=0.0)


@dataclass(slots=True)
class Verification:
    """What came of a package. `complaints` are about the package as a whole."""

    package: Package
    time_limit_s: float
    time_limit_from: str
    rows: list[Row]
    complaints: list[str]

    @property
    def passed(self) -> bool:
        return not self.complaints and all(row.as_expected is not False for row in self.rows)

    @property
    def judge_failed(self) -> bool:
        return any(row.failed for row in self.rows)


class _Runner:
    """Turns submissions into what the judge takes: tests that are checked alike go together."""

    def __init__(self, package: Package, judge: BatchJudge, tick: Callable[[], object]) -> None:
        self._judge = judge
        self._tick = tick
        self._parts: dict[tuple[str, str], list[tuple[Test, TestCase]]] = {}
        largest = 0
        for test in package.tests:
            given, answer = test.texts()
            largest = max(largest, len(answer))
            case = TestCase(given, answer, name=test.name, group=test.group)
            interactor = package.interactor(test)
            key = ("tokens" if interactor else package.checker(test), interactor)
            self._parts.setdefault(key, []).append((test, case))
        self._order = {test.name: place for place, test in enumerate(package.tests)}
        metadata = package.metadata
        output_mb = max(metadata.output_mb, 2.0 * largest / (1 << 20) + 1)
        self._limits = Limits(memory_mb=metadata.memory_mb, output_mb=output_mb, language_factors=False)

    def run(self, rows: Iterable[Row], cpu_s: float, stop: str) -> None:
        """Fills in the results of `rows`."""
        rows = list(rows)
        limits = replace(self._limits, cpu_s=cpu_s)
        work: list[tuple[Row, list[Test]]] = []
        submissions: list[Submission] = []
        for row in rows:
            row.results.clear()
            for (checker, interactor), tests in self._parts.items():
                code, language = row.submission.code, row.submission.language
                cases = [case for _, case in tests]
                submissions.append(Submission(code, cases, language, limits, checker, interactor=interactor))
                work.append((row, [test for test, _ in tests]))
        left = {id(row): len(self._parts) for row in rows}
        for index, judgement in self._judge.as_completed(submissions, stop=stop):
            row, tests_of_part = work[index]
            self._note(row, tests_of_part, judgement)
            left[id(row)] -= 1
            if not left[id(row)]:
                row.results = dict(sorted(row.results.items(), key=lambda item: self._order[item[0]]))
                self._tick()

    def _note(self, row: Row, tests: Sequence[Test], judgement: Judgement) -> None:
        if judgement.verdict is Verdict.IE:
            row.failed, row.verdict, row.why = True, "IE", judgement.message
        elif judgement.verdict in (Verdict.CE, Verdict.NO_CODE):
            row.verdict, row.why = "CE", judgement.message
        for test, case in zip(tests, judgement.cases, strict=False):
            if case.verdict in _RESULTS:
                row.results[test.name] = case


def verify(
    package: Package,
    judge: BatchJudge,
    *,
    time_limit_s: float | None = None,
    categories: Sequence[str] = (),
    thorough: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Verification:
    """Runs the submissions (those of `categories`, or all) on all tests and says which end as promised.

    The time limit is `time_limit_s`, or the package's, or the format's rule over its slowest accepted submission, in
    CPU seconds whatever the language. A submission that is to fail is run until it does, unless `thorough`.
    """
    chosen = [each for each in package.submissions if not categories or each.category in categories]
    rows = [Row(submission) for submission in chosen]
    runnable = [row for row in rows if _can_run(row)]
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, len(runnable)), len(runnable))

    complaints = []
    runner = _Runner(package, judge, tick)
    limit, reason = time_limit_s, "as asked for"
    if limit is None:
        limit, reason = package.metadata.time_limit_s, "of the package"
    timed: list[Row] = []
    if limit is None:
        timed = [row for row in runnable if any(each.lower for each in row.submission.expectations)]
        if not any(row.submission.category == "accepted" for row in timed):
            timed = []
            complaints.append("no accepted submission could be run: the time limit is not known, 10 s is taken")
            limit, reason = 10.0, "for lack of an accepted submission"
        else:
            runner.run(timed, LONGEST_S, "never" if thorough else "first_failure")
            limit, reason = _limit_by_rule(package, max(row.slowest_s for row in timed))
            for row in timed:
                _apply_limit(row, limit)
    rest = [row for row in runnable if row not in timed]
    whole = [row for row in rest if thorough or any(each.whole for each in row.submission.expectations)]
    runner.run(whole, limit, "never")
    runner.run([row for row in rest if row not in whole], limit, "first_failure")
    _conclude(rows)
    # stopped at a failure that is allowed, before the one that is wanted
    again = [row for row in rest if row.as_expected is False and row not in whole and _may_improve(row, package)]
    if again:
        runner.run(again, limit, "never")
    _conclude(rows)
    if not any(row.submission.category == "accepted" and row.as_expected for row in rows) and not categories:
        complaints.append("no submission in submissions/accepted is accepted")
    return Verification(package, limit, reason, rows, complaints)


def _can_run(row: Row) -> bool:
    """Whether there is a program and a tool chain for it; notes the reason where not."""
    row.why = row.submission.problem
    if not row.why:
        try:
            row.why = languages.find(row.submission.language).missing() or ""
        except (ValueError, ToolchainMissing) as error:
            row.why = str(error)
    row.verdict = "not run" if row.why else ""
    return not row.why


def _limit_by_rule(package: Package, slowest_s: float) -> tuple[float, str]:
    metadata = package.metadata
    if metadata.legacy:
        limit = float(max(1, math.floor(0.5 + metadata.time_multiplier * slowest_s)))
        return limit, f"{metadata.time_multiplier:g} x slowest accepted, {slowest_s:.2f} s"
    steps = math.ceil(metadata.ac_to_time_limit * slowest_s / metadata.time_resolution_s - 1e-9)
    limit = max(1, steps) * metadata.time_resolution_s
    return limit, f"{metadata.ac_to_time_limit:g} x slowest accepted, {slowest_s:.2f} s"


def _apply_limit(row: Row, limit: float) -> None:
    """Results of a run without the limit, as they are with it."""
    for name, case in row.results.items():
        if case.cpu_s > limit:
            message = f"used {case.cpu_s:.2f} s of CPU, limit {limit:g} s"
            row.results[name] = replace(case, verdict=Verdict.TLE, message=message)


def _conclude(rows: Iterable[Row]) -> None:
    for row in rows:
        if row.verdict in ("not run", "CE", "IE"):
            row.as_expected = None if row.verdict != "CE" else (False if row.submission.expectations else None)
            continue
        results = {name: _RESULTS[case.verdict] for name, case in row.results.items()}
        faults = [fault for each in row.submission.expectations if (fault := each.fault(results)) is not None]
        row.as_expected = not faults if row.submission.expectations else None
        wanted = {result for each in row.submission.expectations for result in each.required} - {"AC"}
        failing = [name for name, result in results.items() if result != "AC"]
        shown = next((name for name in failing if results[name] in wanted), None) if not faults else None
        shown = shown or next(iter(failing), None)
        row.verdict = results[shown] if shown is not None else "AC"
        row.why = f"{shown}: {row.results[shown].message}".rstrip(": ") if shown is not None else ""
        if faults:
            row.why = f"{faults[0]}{f' ({row.why})' if row.why else ''}"


def _may_improve(row: Row, package: Package) -> bool:
    """Whether tests that were not run could still make it what it should be."""
    if row.verdict in ("CE", "IE") or len(row.results) == len(package.tests):
        return False
    results = {_RESULTS[case.verdict] for case in row.results.values()}
    return all(results <= each.permitted for each in row.submission.expectations if not each.whole)
