"""The same problem once: exact copies by normalised statement, near copies by shingles, solutions as arbiters.

Statements that differ in one word may be the same problem or two, and text cannot tell. Where both problems have an
accepted solution, each is run on the other's tests: they are one problem if both pass. Words decide only where that is
impossible (no solution, or different function names): nearly equal texts, or texts with much in common under the same
title or with the same tests. The thresholds are choices of this project, made on labelled pairs.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile

from data_curation.config import DeduplicateOptions
from data_curation.schema import Problem, Solution, Test
from data_curation.stages.judging import judge_all, runnable_languages, submission
from data_curation.stages.minhash import CHUNK_TEXTS, candidate_pairs, jaccard, joined, prepared, tokens
from data_curation.stages.result import Dropped, StageResult, Workplace

SHARED_TESTS = 0.8  # share of the smaller test set
TELLING_CHARACTERS = 24  # a shorter test may be the same by chance
COMMON_TO_MANY = 20  # a title or test of more problems than that tells nothing
_NUMERAL = re.compile(r"\d+|[ivx]{1,4}|part|easy|hard|version|ver|[()#:,.-]")


@dataclass(frozen=True)
class _Pair:
    """Two problems (by index) that are one, and what says so."""

    i: int
    j: int
    similarity: float
    why: str


def deduplicate(problems: Sequence[Problem], options: DeduplicateOptions, work: Workplace) -> StageResult:
    """Keeps the richest copy of each problem, with the other copies' new tests, solutions and tags merged in."""
    cluster = list(range(len(problems)))  # index -> the index that stands for it
    reasons: dict[int, str] = {}
    for members in _exact_groups(problems):
        keeper = _richest(problems, members)
        for index in members:
            if index != keeper:
                cluster[index], reasons[index] = keeper, "same statement"
    remaining = [index for index in range(len(problems)) if cluster[index] == index]
    pairs = _same_problems(problems, remaining, options, work)
    for pair in sorted(pairs, key=lambda pair: -pair.similarity):
        a, b = _root(cluster, pair.i), _root(cluster, pair.j)
        if a != b:
            keeper = _richest(problems, [a, b])
            other = b if keeper == a else a
            cluster[other] = keeper
            reasons[other] = f"near-duplicate, Jaccard {pair.similarity:.2f}, {pair.why}"
    by_solutions = sum(pair.why.startswith("each") for pair in pairs)
    return _merged(problems, cluster, reasons, work, confirmed=by_solutions)


def statement_fingerprint(problem: Problem) -> str:
    """16 hex digits over the statement's words and signs and the starter code, blind to case and spacing."""
    text = " ".join(f"{problem.statement}\n{problem.starter_code}".casefold().split())
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _exact_groups(problems: Sequence[Problem]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, problem in enumerate(problems):
        groups[statement_fingerprint(problem)].append(index)
    return [members for members in groups.values() if len(members) > 1]


def _richest(problems: Sequence[Problem], members: Sequence[int]) -> int:
    """The member with most solutions that can be checked, tests and facts; the first of equals."""

    def richness(index: int) -> tuple[int, int, int, int]:
        problem = problems[index]
        facts = (problem.rating, problem.difficulty, problem.date, problem.generator, problem.url, problem.license)
        tests = len(problem.tests) + (len(problem.generator.arguments) if problem.generator else 0)
        return (
            any(s.verdict == "accepted" for s in problem.solutions),
            tests,
            len(problem.solutions),
            sum(map(bool, facts)),
        )

    return max(members, key=lambda index: (richness(index), -index))


def _root(cluster: list[int], index: int) -> int:
    while cluster[index] != index:
        index = cluster[index]
    return index


def _same_problems(
    problems: Sequence[Problem], remaining: list[int], options: DeduplicateOptions, work: Workplace
) -> list[_Pair]:
    """The pairs that are one problem."""
    chunks = (remaining[start : start + CHUNK_TEXTS] for start in range(0, len(remaining), CHUNK_TEXTS))
    parts = work.map(prepared, ([problems[i].statement for i in chunk] for chunk in chunks))
    texts, signature = joined(work.track(parts, -(-len(remaining) // CHUNK_TEXTS), "shingles", "part"))
    pairs_by_text = candidate_pairs(texts, options.candidate_jaccard, signature)
    close = {(i, j): similarity for i, j, similarity in pairs_by_text}
    for i, j in _sharing_title_or_tests(problems, remaining):
        if (i, j) not in close and (similarity := jaccard(texts.of(i), texts.of(j))) >= options.related_jaccard:
            close[i, j] = similarity
    pairs = [
        (remaining[i], remaining[j], similarity)
        for (i, j), similarity in sorted(close.items())
        if not _parts_of_one(problems[remaining[i]], problems[remaining[j]])
    ]
    exchanged = _exchanged([(problems[i], problems[j]) for i, j, _ in pairs], work)
    found = []
    for number, (i, j, similarity) in enumerate(pairs):
        if number in exchanged:
            if exchanged[number]:
                found.append(_Pair(i, j, similarity, "each one's solution solves the other"))
        elif why := _same_by_words(problems[i], problems[j], similarity, options):
            found.append(_Pair(i, j, similarity, why))
    return found


def _exchanged(pairs: Sequence[tuple[Problem, Problem]], work: Workplace) -> dict[int, bool]:
    """Number of a pair -> whether each problem's solution passes the other's tests; absent where none can be tried."""
    languages = runnable_languages()
    passed: dict[int, bool] = {}
    there, back = {}, {}
    for number, (a, b) in enumerate(pairs):
        first, second = _witness(a, languages), _witness(b, languages)
        if first and second and a.tests and b.tests and _interface(a.tests) & _interface(b.tests):
            there[number], back[number] = submission(b, first), submission(a, second)
    for runs in (there, back):  # most pairs are settled by the first direction
        numbers = [number for number in runs if passed.get(number, True)]
        for index, judgement in judge_all([runs[number] for number in numbers], work, "near-duplicates"):
            passed[numbers[index]] = judgement.accepted
    return passed


def _same_by_words(a: Problem, b: Problem, similarity: float, options: DeduplicateOptions) -> str | None:
    """Why two problems whose solutions cannot be exchanged are one; None if they are not."""
    if similarity >= options.related_jaccard and _shared_tests(a, b) >= SHARED_TESTS:
        return "same tests"
    if _differ_in_a_number(a, b):
        return None  # a numbered title names no problem, nor do the few words of most that have one
    if similarity >= options.text_jaccard:
        return "words"
    if similarity >= options.related_jaccard and _title_key(a.title) and _title_key(a.title) == _title_key(b.title):
        return "same title"
    return None


def _sharing_title_or_tests(problems: Sequence[Problem], remaining: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs of positions in `remaining` with a title or a telling test in common that few others have."""
    places: dict[str, list[int]] = defaultdict(list)
    for position, index in enumerate(remaining):
        problem = problems[index]
        keys = {f"title {key}" for key in [_title_key(problem.title)] if key}
        keys |= {f"test {key}" for key in _telling_tests(problem)}
        for key in keys:
            places[key].append(position)
    return {
        (i, j)
        for members in places.values()
        if len(members) <= COMMON_TO_MANY
        for n, j in enumerate(members)
        for i in members[:n]
    }


def _title_key(title: str) -> str:
    return " ".join(tokens(title))


def _parts_of_one(a: Problem, b: Problem) -> bool:
    """Whether two titles name parts of one problem: "House Robber" and "House Robber II", not "MBPP 4" and "MBPP 5".

    Part two repeats most of part one and often asks for the same with larger limits, so neither words nor exchanged
    solutions tell the two apart.
    """
    return _differ_in_a_number(a, b) and not set(_words(a)) <= {*tokens(a.source), *tokens(b.source)}


def _differ_in_a_number(a: Problem, b: Problem) -> bool:
    """Whether the titles differ in a number, and not in one in front ("1. Two Sum")."""
    first, second = (list(dropwhile(_NUMERAL.fullmatch, tokens(problem.title))) for problem in (a, b))
    return first != second and _words(a) == _words(b)


def _words(problem: Problem) -> list[str]:
    return [token for token in tokens(problem.title) if not _NUMERAL.fullmatch(token)]


def _telling_tests(problem: Problem) -> set[str]:
    """Hashes of (input, output) of tests too long to agree by chance."""
    found = set()
    for test in problem.tests:
        text = f"{test.call or ''}\n{' '.join(test.input.split())}\n{' '.join(test.output.split())}"
        if len(text) >= TELLING_CHARACTERS:
            found.add(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16])
    return found


def _shared_tests(a: Problem, b: Problem) -> float:
    """Share of the smaller set of telling tests that the other set holds too; 0 if either has none."""
    first, second = _telling_tests(a), _telling_tests(b)
    return len(first & second) / min(len(first), len(second)) if first and second else 0.0


def _witness(problem: Problem, languages: frozenset[str]) -> Solution | None:
    return next((s for s in problem.solutions if s.verdict == "accepted" and s.language in languages), None)


def _interface(tests: Sequence[Test]) -> frozenset[str]:
    """Names the tests call, or {"stdin"}: solutions can only be exchanged where these meet."""
    names: set[str] = set()
    for test in tests:
        if test.call is None:
            names.add("stdin")
            continue
        try:
            tree = ast.parse(test.call, mode="eval")
        except SyntaxError:
            continue
        names |= {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return frozenset(names - _COMMON_CALLS)


_COMMON_CALLS = {"bool", "exec", "globals", "set", "list", "tuple", "sorted", "dict", "len", "round", "str", "int"}


def _merged(
    problems: Sequence[Problem], cluster: list[int], reasons: dict[int, str], work: Workplace, confirmed: int
) -> StageResult:
    copies: dict[int, list[int]] = defaultdict(list)
    dropped: list[Dropped] = []
    for index in sorted(reasons):
        keeper = _root(cluster, index)
        copies[keeper].append(index)
        kind = reasons[index].split(",")[0]
        dropped.append(Dropped(problems[index].id, kind, reasons[index], problems[keeper].id))
    new_tests = {keeper: _new_tests(problems[keeper], [problems[i] for i in copies[keeper]]) for keeper in copies}
    agreed = _agreed(problems, new_tests, work)
    kept = []
    for index, problem in enumerate(problems):
        if index in reasons:
            continue
        if index in copies:
            problem = merge(problem, [problems[i] for i in copies[index]], agreed.get(index, []))
        kept.append(problem)
    figures = {
        "exact copies": sum(d.reason == "same statement" for d in dropped),
        "near copies": sum(d.reason == "near-duplicate" for d in dropped),
        "near copies confirmed by running solutions": confirmed,
        "tests gained from copies": sum(map(len, agreed.values())),
        "copies' tests left out because they contradict": sum(map(len, new_tests.values()))
        - sum(map(len, agreed.values())),
    }
    return StageResult(kept, dropped, figures)


def merge(keeper: Problem, copies: Sequence[Problem], tests: Sequence[Test]) -> Problem:
    """`keeper` with `tests` added, the copies' other solutions and tags, and facts it lacks itself."""
    known = {(s.code.strip(), s.language) for s in keeper.solutions}
    solutions = list(keeper.solutions)
    tags = list(keeper.tags)
    facts: dict[str, object] = {}
    for copy in copies:
        for solution in copy.solutions:
            key = (solution.code.strip(), solution.language)
            if key not in known and _interface(copy.tests) == _interface(keeper.tests):
                known.add(key)
                solutions.append(solution)
        # a copy's own split says nothing about the problem that is kept
        tags += [tag for tag in copy.tags if tag not in tags and not tag.startswith("split:")]
        for name in ("rating", "difficulty", "date", "url", "generator"):
            if not getattr(keeper, name) and name not in facts and getattr(copy, name):
                facts[name] = getattr(copy, name)
    return keeper.model_copy(update={"tests": [*keeper.tests, *tests], "solutions": solutions, "tags": tags, **facts})


def _new_tests(keeper: Problem, copies: Sequence[Problem]) -> list[Test]:
    known = {(test.input.strip(), test.call) for test in keeper.tests}
    new: list[Test] = []
    for copy in copies:
        if _form(copy) != _form(keeper) or _interface(copy.tests) != _interface(keeper.tests):
            continue
        for test in copy.tests:
            key = (test.input.strip(), test.call)
            if key not in known:
                known.add(key)
                new.append(test.model_copy(update={"sample": False}))
    return new


def _form(problem: Problem) -> tuple[object, ...]:
    """What must agree for two problems' tests to be worth the same; tests of subtasks are never mixed."""
    return problem.checker, problem.input_file, problem.output_file, problem.interactor, bool(problem.subtasks)


def _agreed(problems: Sequence[Problem], new: dict[int, list[Test]], work: Workplace) -> dict[int, list[Test]]:
    """The copies' tests that the keeper's accepted solution passes; all of a keeper's or none."""
    languages = runnable_languages()
    keepers = [k for k, tests in new.items() if tests and _witness(problems[k], languages)]
    runs = []
    for keeper in keepers:
        witness = _witness(problems[keeper], languages)
        assert witness is not None  # selected above
        runs.append(submission(problems[keeper], witness, new[keeper]))
    return {keepers[i]: new[keepers[i]] for i, judgement in judge_all(runs, work, "merged tests") if judgement.accepted}
