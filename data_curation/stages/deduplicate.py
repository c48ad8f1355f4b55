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
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import dropwhile

from data_curation.config import DeduplicateOptions
from data_curation.schema import Problem, Solution, Test
from data_curation.stages.judging import judge_all, runnable_languages, submission
from data_curation.stages.minhash import CHUNK_TEXTS, candidate_pairs, jaccard, joined, prepared, tokens
from data_curation.stages.result import Dropped, Notes, Stage, Workplace, parts_of
from data_curation.stored import light

SHARED_TESTS = 0.8  # share of the smaller test set
TELLING_CHARACTERS = 24  # a shorter test may be the same by chance
PAIRS_AT_ONCE = 64  # pairs, and problems with copies, whose tests are held at once
COMMON_TO_MANY = 20  # a title or test of more problems than that tells nothing
_NUMERAL = re.compile(r"\d+|[ivx]{1,4}|part|easy|hard|version|ver|[()#:,.-]")


@dataclass(frozen=True)
class _Pair:
    """Two problems (by index) that are one, and what says so."""

    i: int
    j: int
    similarity: float
    why: str


@Stage
def deduplicate(
    problems: Sequence[Problem], options: DeduplicateOptions, work: Workplace, notes: Notes
) -> Iterator[Problem]:
    """Keeps the richest copy of each problem, with the other copies' new tests, solutions and tags merged in.

    Problems are read twice; between that only their briefs and shingles are held, and the texts of likely pairs.
    """
    languages = runnable_languages()
    briefs = [brief_of(problem, languages) for problem in work.track(problems, len(problems), "briefs", "problem")]
    cluster = list(range(len(briefs)))  # index -> the index that stands for it
    reasons: dict[int, str] = {}
    for members in _exact_groups(briefs):
        keeper = _richest(briefs, members)
        for index in members:
            if index != keeper:
                cluster[index], reasons[index] = keeper, "same statement"
    remaining = [index for index in range(len(briefs)) if cluster[index] == index]
    pairs = _same_problems(problems, briefs, remaining, options, work, languages)
    for pair in sorted(pairs, key=lambda pair: -pair.similarity):
        a, b = _root(cluster, pair.i), _root(cluster, pair.j)
        if a != b:
            keeper = _richest(briefs, [a, b])
            other = b if keeper == a else a
            cluster[other] = keeper
            reasons[other] = f"near-duplicate, Jaccard {pair.similarity:.2f}, {pair.why}"
    notes.figures["near copies confirmed by running solutions"] = sum(pair.why.startswith("each") for pair in pairs)
    yield from _merged(problems, briefs, cluster, reasons, work, languages, notes)


@dataclass(frozen=True, slots=True)
class Brief:
    """What is held of a problem while copies are looked for; its size does not depend on those of the tests."""

    id: str
    title: str
    source: str
    fingerprint: str
    richness: tuple[int, int, int, int]
    interface: frozenset[str]
    has_witness: bool  # an accepted solution that can run here, and tests
    telling_tests: array[int]


def brief_of(problem: Problem, languages: frozenset[str]) -> Brief:
    """The brief of a problem; `languages` can run here."""
    facts = (problem.rating, problem.difficulty, problem.date, problem.generator, problem.url, problem.license)
    tests = len(problem.tests) + (len(problem.generator.arguments) if problem.generator else 0)
    accepted = any(s.verdict == "accepted" for s in problem.solutions)
    return Brief(
        problem.id,
        problem.title,
        problem.source,
        statement_fingerprint(problem),
        (int(accepted), tests, len(problem.solutions), sum(map(bool, facts))),
        _interface(problem.tests),
        bool(problem.tests) and _witness(problem, languages) is not None,
        _telling_tests(problem),
    )


def statement_fingerprint(problem: Problem) -> str:
    """16 hex digits over the statement's words and signs and the starter code, blind to case and spacing."""
    text = " ".join(f"{problem.statement}\n{problem.starter_code}".casefold().split())
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _exact_groups(briefs: Sequence[Brief]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, brief in enumerate(briefs):
        groups[brief.fingerprint].append(index)
    return [members for members in groups.values() if len(members) > 1]


def _richest(briefs: Sequence[Brief], members: Sequence[int]) -> int:
    """The member with most solutions that can be checked, tests and facts; the first of equals."""
    return max(members, key=lambda index: (briefs[index].richness, -index))


def _root(cluster: list[int], index: int) -> int:
    while cluster[index] != index:
        index = cluster[index]
    return index


def _same_problems(
    problems: Sequence[Problem],
    briefs: Sequence[Brief],
    remaining: list[int],
    options: DeduplicateOptions,
    work: Workplace,
    languages: frozenset[str],
) -> list[_Pair]:
    """The pairs that are one problem."""
    wanted = set(remaining)
    statements = (problem.statement for index, problem in enumerate(light(problems)) if index in wanted)
    parts = work.map(prepared, parts_of(statements, CHUNK_TEXTS))
    texts, signature = joined(work.track(parts, -(-len(remaining) // CHUNK_TEXTS), "shingles", "part"))
    pairs_by_text = candidate_pairs(texts, options.candidate_jaccard, signature)
    close = {(i, j): similarity for i, j, similarity in pairs_by_text}
    for i, j in _sharing_title_or_tests(briefs, remaining):
        if (i, j) not in close and (similarity := jaccard(texts.of(i), texts.of(j))) >= options.related_jaccard:
            close[i, j] = similarity
    pairs = [
        (remaining[i], remaining[j], similarity)
        for (i, j), similarity in sorted(close.items())
        if not _parts_of_one(briefs[remaining[i]], briefs[remaining[j]])
    ]
    exchanged = _exchanged(problems, briefs, [(i, j) for i, j, _ in pairs], work, languages)
    found = []
    for number, (i, j, similarity) in enumerate(pairs):
        if number in exchanged:
            if exchanged[number]:
                found.append(_Pair(i, j, similarity, "each one's solution solves the other"))
        elif why := _same_by_words(briefs[i], briefs[j], similarity, options):
            found.append(_Pair(i, j, similarity, why))
    return found


def _exchanged(
    problems: Sequence[Problem],
    briefs: Sequence[Brief],
    pairs: Sequence[tuple[int, int]],
    work: Workplace,
    languages: frozenset[str],
) -> dict[int, bool]:
    """Number of a pair -> whether each problem's solution passes the other's tests; absent where none can be tried."""
    possible = [
        number
        for number, (i, j) in enumerate(pairs)
        if briefs[i].has_witness and briefs[j].has_witness and briefs[i].interface & briefs[j].interface
    ]
    passed: dict[int, bool] = {}
    for part in parts_of(possible, PAIRS_AT_ONCE):
        there, back = {}, {}
        for number in part:
            a, b = (problems[index] for index in pairs[number])
            first, second = _witness(a, languages), _witness(b, languages)
            assert first is not None and second is not None  # their briefs say so
            there[number], back[number] = submission(b, first), submission(a, second)
        for runs in (there, back):  # most pairs are settled by the first direction
            numbers = [number for number in runs if passed.get(number, True)]
            for index, judgement in judge_all([runs[number] for number in numbers], work, "near-duplicates"):
                passed[numbers[index]] = judgement.accepted
    return passed


def _same_by_words(a: Brief, b: Brief, similarity: float, options: DeduplicateOptions) -> str | None:
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


def _sharing_title_or_tests(briefs: Sequence[Brief], remaining: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs of positions in `remaining` with a title or a telling test in common that few others have."""
    places: dict[str | int, list[int]] = defaultdict(list)
    for position, index in enumerate(remaining):
        brief = briefs[index]
        if key := _title_key(brief.title):
            places[key].append(position)
        for test in set(brief.telling_tests):
            places[test].append(position)
    return {
        (i, j)
        for members in places.values()
        if 1 < len(members) <= COMMON_TO_MANY
        for n, j in enumerate(members)
        for i in members[:n]
    }


def _title_key(title: str) -> str:
    return " ".join(tokens(title))


def _parts_of_one(a: Brief, b: Brief) -> bool:
    """Whether two titles name parts of one problem: "House Robber" and "House Robber II", not "MBPP 4" and "MBPP 5".

    Part two repeats most of part one and often asks for the same with larger limits, so neither words nor exchanged
    solutions tell the two apart.
    """
    return _differ_in_a_number(a, b) and not set(_words(a)) <= {*tokens(a.source), *tokens(b.source)}


def _differ_in_a_number(a: Brief, b: Brief) -> bool:
    """Whether the titles differ in a number, and not in one in front ("1. Two Sum")."""
    first, second = (list(dropwhile(_NUMERAL.fullmatch, tokens(brief.title))) for brief in (a, b))
    return first != second and _words(a) == _words(b)


def _words(brief: Brief) -> list[str]:
    return [token for token in tokens(brief.title) if not _NUMERAL.fullmatch(token)]


def _telling_tests(problem: Problem) -> array[int]:
    """Hashes of (input, output) of tests too long to agree by chance."""
    found = array("Q")
    for test in problem.tests:
        text = f"{test.call or ''}\n{' '.join(test.input.split())}\n{' '.join(test.output.split())}"
        if len(text) >= TELLING_CHARACTERS:
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            found.append(int.from_bytes(digest[:8], "big"))
    return found


def _shared_tests(a: Brief, b: Brief) -> float:
    """Share of the smaller set of telling tests that the other set holds too; 0 if either has none."""
    first, second = set(a.telling_tests), set(b.telling_tests)
    return len(first & second) / min(len(first), len(second)) if first and second else 0.0


def _witness(problem: Problem, languages: frozenset[str]) -> Solution | None:
    return next((s for s in problem.solutions if s.verdict == "accepted" and s.language in languages), None)


def _interface(tests: Sequence[Test]) -> frozenset[str]:
    """Names the tests call, or {"stdin"}: solutions can only be exchanged where these meet."""
    called = {test.call for test in tests}
    return frozenset().union(*({"stdin"} if call is None else _names_called(call) for call in called))


@lru_cache(maxsize=4096)  # most problems of a set call the same
def _names_called(call: str) -> frozenset[str]:
    try:
        tree = ast.parse(call, mode="eval")
    except SyntaxError:
        return frozenset()
    names = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return frozenset(names - _COMMON_CALLS)


_COMMON_CALLS = {"bool", "exec", "globals", "set", "list", "tuple", "sorted", "dict", "len", "round", "str", "int"}


def _merged(
    problems: Sequence[Problem],
    briefs: Sequence[Brief],
    cluster: list[int],
    reasons: dict[int, str],
    work: Workplace,
    languages: frozenset[str],
    notes: Notes,
) -> Iterator[Problem]:
    copies: dict[int, list[int]] = defaultdict(list)
    for index in sorted(reasons):
        keeper = _root(cluster, index)
        copies[keeper].append(index)
        kind = reasons[index].split(",")[0]
        notes.dropped.append(Dropped(briefs[index].id, kind, reasons[index], briefs[keeper].id))
    gained, contradicting = 0, 0
    agreeing: set[int] = set()
    for keepers in parts_of(sorted(copies), PAIRS_AT_ONCE):
        new = {keeper: _new_tests(problems[keeper], [problems[i] for i in copies[keeper]]) for keeper in keepers}
        agreed = _agreed(problems, new, work, languages)
        agreeing |= agreed
        gained += sum(len(new[keeper]) for keeper in agreed)
        contradicting += sum(len(tests) for keeper, tests in new.items() if keeper not in agreed)
    for index, problem in enumerate(problems):
        if index in reasons:
            continue
        if index in copies:
            others = [problems[i] for i in copies[index]]
            problem = merge(problem, others, _new_tests(problem, others) if index in agreeing else [])
        yield problem
    confirmed = notes.figures.pop("near copies confirmed by running solutions")
    notes.figures = {
        "exact copies": sum(d.reason == "same statement" for d in notes.dropped),
        "near copies": sum(d.reason == "near-duplicate" for d in notes.dropped),
        "near copies confirmed by running solutions": confirmed,
        "tests gained from copies": gained,
        "copies' tests left out because they contradict": contradicting,
    }


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


def _agreed(
    problems: Sequence[Problem], new: dict[int, list[Test]], work: Workplace, languages: frozenset[str]
) -> set[int]:
    """The keepers whose accepted solution passes all the copies' tests."""
    keepers, runs = [], []
    for keeper, tests in new.items():
        witness = _witness(problems[keeper], languages) if tests else None
        if witness is not None:
            keepers.append(keeper)
            runs.append(submission(problems[keeper], witness, tests))
    return {keepers[i] for i, judgement in judge_all(runs, work, "merged tests") if judgement.accepted}
