"""More tests where wrong programs pass: new inputs, outputs on which accepted programs agree, kept if they catch one.

The wrong programs are the solutions labelled wrong and mutants of an accepted one. Half of the mutants choose the new
tests, the other half only measure them, so that the rate after is not the rate the tests were chosen by. A mutant may
be equivalent to its original; such ones stay "accepted" for ever and make every rate look worse than it is.
A problem whose programs take more CPU time than its budget stays as it is, and says so: what was found until then would
differ from run to run. Problems already done are kept beside the stage's output: an interrupted run continues there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_curation.config import StrengthenOptions
from data_curation.schema import Problem, Solution, Test
from data_curation.sources.calls import parameters
from data_curation.stages.argument_mutation import Call
from data_curation.stages.cpu_budget import BudgetSpent, CpuBudget, passes
from data_curation.stages.input_mutation import mutated_inputs
from data_curation.stages.judging import runnable_languages
from data_curation.stages.kept_results import Kept, computed
from data_curation.stages.mutants import mutants
from data_curation.stages.result import Notes, Stage, Workplace
from data_curation.stages.stated_constraints import Constraints, promises, stated_constraints
from data_curation.stages.threads import waiting_threads
from data_curation.storage import save_bytes
from sandbox import Verdict

ADDED = "tests-added:"  # tag prefix: how many tests, and from how many programs their outputs come
MAXIMUM_REFERENCES = 3
TESTS_AT_ONCE = 8  # new tests a wrong program is run on before it is asked whether it still passes
MUTANT_CPU_S, MUTANT_STRETCH = 1.0, 10.0  # seconds; times the slowest run of an accepted program
LONGEST_OUTPUT = 60_000  # characters; the judge keeps the first 64 KiB of what a program prints


# prints the JSON form of the value: sets and dicts with other keys than texts as the judge writes them
_PRINTED = (
    "print('\\n' + __import__('json').dumps((lambda form, value: form(form, value))(lambda form, value: "
    "[form(form, item) for item in value] if isinstance(value, (list, tuple)) else "
    "{{'__set__': [form(form, item) for item in sorted(value, key=repr)]}} if isinstance(value, (set, frozenset)) else "
    "({{key: form(form, item) for key, item in value.items()}} if all(isinstance(key, str) for key in value) else "
    "{{'__dict__': [[form(form, key), form(form, item)] for key, item in value.items()]}}) "
    "if isinstance(value, dict) else value, {})))"
)


@dataclass
class Strength:
    """What a problem's tests let through before and after; one row of `strengthening.parquet`."""

    id: str
    references: int = 0  # accepted programs whose outputs had to agree
    wrong: int = 0  # labelled wrong solutions and mutants that chose the tests
    accepted_before: int = 0  # of those, how many all tests accept
    accepted_after: int = 0
    unseen: int = 0  # mutants that had no say
    unseen_accepted_before: int = 0
    unseen_accepted_after: int = 0
    inputs_tried: int = 0
    inputs_agreed: int = 0
    added: int = 0
    skipped: str = ""  # why nothing was tried, or why it was given up


@Stage
def strengthen(
    problems: Sequence[Problem], options: StrengthenOptions, work: Workplace, notes: Notes
) -> Iterator[Problem]:
    """Drops nothing; `rows` say for every problem what its tests let through before and after.

    False-positive rate: share of wrong programs that pass all tests; the figures give it before and after, for the
    programs that chose the tests and for those that did not.
    """
    if not options.enabled:
        yield from problems
        return
    made = work.folder / "made"
    made.mkdir(parents=True, exist_ok=True)
    languages = runnable_languages()
    kept_results = Kept(partial(_file, made, options), _read, _save)
    threads = waiting_threads()
    compute = partial(strengthened, options=options, languages=languages)
    found = []
    for problem, (tests, strength) in computed(compute, problems, kept_results, work, "strengthen", threads):
        found.append(strength)
        yield _with_tests(problem, tests, strength)
    notes.rows = [asdict(strength) for strength in found]
    notes.figures = _figures(found)


def _with_tests(problem: Problem, tests: Sequence[Test], strength: Strength) -> Problem:
    if not tests:
        return problem
    tag = f"{ADDED}{len(tests)}-by-{strength.references}"
    return problem.model_copy(update={"tests": [*problem.tests, *tests], "tags": [*problem.tags, tag]})


def _file(made: Path, options: StrengthenOptions, problem: Problem) -> Path:
    text = f"{options.model_dump_json()}\n{problem.model_dump_json()}"
    return made / f"{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"


def _read(file: Path) -> tuple[list[Test], Strength]:
    body = json.loads(file.read_bytes())
    return [Test.model_validate(test) for test in body["tests"]], Strength(**body["strength"])


def _save(result: tuple[list[Test], Strength], file: Path) -> None:
    tests, strength = result
    body = {"tests": [test.model_dump() for test in tests], "strength": asdict(strength)}
    save_bytes(json.dumps(body).encode("utf-8", "surrogatepass"), file)


def strengthened(
    problem: Problem, options: StrengthenOptions, languages: frozenset[str]
) -> tuple[list[Test], Strength]:
    """The tests worth adding, and what the tests let through without and with them."""
    strength = Strength(problem.id)
    try:
        return _strengthened(problem, options, languages, CpuBudget(options.cpu_budget_s), strength)
    except BudgetSpent:
        spent = f"its programs take more than {options.cpu_budget_s:g} CPU seconds"
        return [], Strength(problem.id, references=strength.references, skipped=spent)


def _strengthened(
    problem: Problem, options: StrengthenOptions, languages: frozenset[str], budget: CpuBudget, strength: Strength
) -> tuple[list[Test], Strength]:
    if problem.interactor or problem.subtasks:
        strength.skipped = "interactive" if problem.interactor else "tests are worth points"
        return [], strength
    references, slowest = _references(problem, languages, budget)
    strength.references = len(references)
    if len(references) < max(1, options.agreeing):
        strength.skipped = f"{len(references)} accepted programs, {options.agreeing} must agree"
    if strength.skipped or not problem.tests:
        return [], strength
    choosing, unseen = _wrong_programs(problem, references[0], options, languages)
    strength.wrong, strength.unseen = len(choosing), len(unseen)
    mutated = problem.model_copy(update={"cpu_s": _mutant_limit(problem, slowest)})
    survivors = _survivors(mutated, [*choosing, *unseen], problem.tests, budget)
    open_ones = [n for n in survivors if n < len(choosing)]
    strength.accepted_before = strength.accepted_after = len(open_ones)
    strength.unseen_accepted_before = strength.unseen_accepted_after = len(survivors) - len(open_ones)
    if not open_ones:
        return [], strength
    stated, reason = _stated(problem, len(references))
    if reason:
        strength.skipped = reason
        return [], strength
    inputs = mutated_inputs(problem.tests, options.inputs, options.seed, stated)
    strength.inputs_tried = len(inputs)
    agreed = _agreed(problem, references, inputs, budget) if inputs else []
    strength.inputs_agreed = len(agreed)
    if not agreed:
        return [], strength
    programs = [*choosing, *unseen]
    killed = _killed(mutated, {n: programs[n] for n in open_ones}, agreed, budget)
    chosen = sorted(_cover(killed, options.maximum_added))
    tests = [agreed[index] for index in chosen]
    strength.added = len(chosen)
    strength.accepted_after = sum(not killed[n] & set(chosen) for n in open_ones)
    still = [programs[n] for n in survivors if n >= len(choosing)]
    strength.unseen_accepted_after = len(_survivors(mutated, still, tests, budget)) if tests else len(still)
    return tests, strength


def _references(problem: Problem, languages: frozenset[str], budget: CpuBudget) -> tuple[list[Solution], float]:
    """Distinct accepted programs that pass, Python first because mutants are made of it; CPU seconds of their slowest
    test. Only as many are run as are needed."""
    accepted = [s for s in problem.solutions if s.verdict == "accepted" and s.language in languages]
    distinct = list({" ".join(s.code.split()): s for s in accepted}.values())
    chosen: list[Solution] = []
    slowest = 0.0
    for solution in sorted(distinct, key=lambda s: s.language != "python"):
        (cases,) = budget.run(problem, [solution], problem.tests)
        if passes(cases):
            chosen.append(solution)
            slowest = max([slowest, *(case.cpu_s for case in cases)])
        if len(chosen) == MAXIMUM_REFERENCES:
            break
    return chosen, slowest


def _mutant_limit(problem: Problem, slowest: float) -> float:
    """CPU seconds a wrong program is given: most that exceed it would never end, and waiting for them is dear."""
    return min(problem.cpu_s, max(MUTANT_CPU_S, MUTANT_STRETCH * slowest))


def _stated(problem: Problem, references: int) -> tuple[Constraints | None, str]:
    """(constraints of the arguments, if the statement states them and all could be read; why no input can be made).

    Programs that agree speak for an input; a single one gives an output for an invalid input, too. So with one
    reference nothing is made where the statement asks what cannot be kept.
    """
    calls = [call for call in map(Call.of, problem.tests) if call is not None]
    if not calls:
        return None, ""
    name = re.findall(r"[A-Za-z_]\w*", calls[0].function)[-1]
    names = parameters(problem.starter_code, name) or []
    known = [call.arguments for call in calls if call.function == calls[0].function]
    stated = stated_constraints(problem.statement, names, known)
    broken = [*(stated.unread if stated else ()), *promises(problem.statement)]
    if not broken:
        return stated, ""
    if references == 1:
        return None, f"one accepted program, and inputs may break: {broken[0][:100]}"
    return None, ""


def _wrong_programs(
    problem: Problem, reference: Solution, options: StrengthenOptions, languages: frozenset[str]
) -> tuple[list[Solution], list[Solution]]:
    labelled = [
        s
        for s in problem.solutions
        if s.verdict not in ("accepted", "time_limit_exceeded") and s.language in languages and s.code.strip()
    ]
    made = mutants(reference.code, options.mutants, options.seed) if reference.language == "python" else []
    slips = [Solution(code=code, verdict="wrong_answer", note="mutant") for code in made]
    return [*labelled, *slips[::2]], slips[1::2]


def _survivors(problem: Problem, programs: Sequence[Solution], tests: Sequence[Test], budget: CpuBudget) -> list[int]:
    return [number for number, cases in enumerate(budget.run(problem, programs, tests)) if passes(cases)]


def _agreed(problem: Problem, references: Sequence[Solution], inputs: Sequence[Test], budget: CpuBudget) -> list[Test]:
    """The inputs with the first reference's output, where every reference is then accepted (the first one again)."""
    plain = problem.model_copy(update={"checker": "exact"})  # only the output is of interest here
    shown = [_shown(test) for test in inputs]
    (first,) = budget.run(plain, references[:1], shown, every_test=True, keep_output=True)
    with_output = []
    for test, case in zip(inputs, first, strict=True):
        # nothing was expected: a program that ended well is accepted or has a wrong answer
        if case.verdict in (Verdict.AC, Verdict.WA) and (output := _whole_output(case.output, test)) is not None:
            with_output.append(test.model_copy(update={"output": output}))
    if not with_output:
        return []
    results = budget.run(problem, references, with_output, every_test=True)
    good = [all(cases[n].verdict is Verdict.AC for cases in results) for n in range(len(with_output))]
    return [test for test, is_good in zip(with_output, good, strict=True) if is_good]


def _shown(test: Test) -> Test:
    """The test so that its result is printed: the judge hands out what is printed, not what a call returns."""
    if test.call is None:
        return test
    return test.model_copy(update={"call": _PRINTED.format(test.call), "output": "null"})


def _whole_output(output: str | None, test: Test) -> str | None:
    """What was printed, or the returned value's JSON; None if there is nothing, or more than the judge hands out."""
    if not output or not output.strip() or len(output) >= LONGEST_OUTPUT:
        return None
    return output if test.call is None else output.rstrip("\n").rpartition("\n")[2]


def _killed(
    problem: Problem, programs: dict[int, Solution], tests: Sequence[Test], budget: CpuBudget
) -> dict[int, set[int]]:
    """Program -> the tests known to catch it. Once caught, a program is not run on further tests."""
    killed: dict[int, set[int]] = {number: set() for number in programs}
    for start in range(0, len(tests), TESTS_AT_ONCE):
        some = tests[start : start + TESTS_AT_ONCE]
        for number in [number for number in programs if not killed[number]]:
            (cases,) = budget.run(problem, [programs[number]], some, every_test=True)
            killed[number] = {start + n for n, case in enumerate(cases) if case.verdict is not Verdict.AC}
    return killed


def _cover(killed: dict[int, set[int]], most: int) -> list[int]:
    """Few tests that together catch as many programs as can be caught: the test that catches most, and so on."""
    uncaught = {number for number, tests in killed.items() if tests}
    chosen: list[int] = []
    while uncaught and len(chosen) < most:
        counts = Counter(test for number in uncaught for test in killed[number])
        best = min(counts, key=lambda test: (-counts[test], test))
        chosen.append(best)
        uncaught = {number for number in uncaught if best not in killed[number]}
    return chosen


def _figures(found: Sequence[Strength]) -> dict[str, Any]:
    total: Counter[str] = Counter()
    for strength in found:
        for name in ("wrong", "accepted_before", "accepted_after", "unseen", "inputs_tried", "inputs_agreed", "added"):
            total[name] += getattr(strength, name)
        total["unseen_before"] += strength.unseen_accepted_before
        total["unseen_after"] += strength.unseen_accepted_after
        total["improved"] += bool(strength.added)
        total["skipped"] += bool(strength.skipped)
    figures: dict[str, int | float] = {
        "problems with tests added": total["improved"],
        "problems passed over": total["skipped"],
        "tests added": total["added"],
        "inputs tried": total["inputs_tried"],
        "inputs on which the accepted programs agree": total["inputs_agreed"],
        "wrong programs that chose": total["wrong"],
        "wrong programs that only measured": total["unseen"],
    }
    for name, programs, before, after in (
        ("", "wrong", "accepted_before", "accepted_after"),
        (", unseen mutants", "unseen", "unseen_before", "unseen_after"),
    ):
        if total[programs]:
            figures[f"false-positive rate before{name}"] = round(total[before] / total[programs], 6)
            figures[f"false-positive rate after{name}"] = round(total[after] / total[programs], 6)
    return figures
