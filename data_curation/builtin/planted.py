"""Known faults for the raw built-in set: copies and broken problems that curation must find, and only those.

Each planted problem's id names its kind, and `EXPECTED` says which stage must remove that kind and why, so a test
(and a reader of the funnel) can check curation against the truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from data_curation.builtin.pipelines import pipeline_problems
from data_curation.schema import Problem, Solution, Test

# kind -> (stage that removes it, start of the reason)
EXPECTED = {
    "copy": ("deduplicate", "same statement"),
    "near": ("deduplicate", "near-duplicate"),
    "truncated": ("filter", "statement"),
    "no-tests": ("filter", "no tests"),
    "wrong-output": ("verify", "accepted solution fails"),
    "crash": ("verify", "accepted solution fails"),
}
COPIES = 12  # of contest problems, and again of pipelines
NEAR_COPIES = 12
BROKEN = 6  # of each kind

_OTHER_WORDS = {
    "integers": "whole numbers",
    "integer": "whole number",
    "array": "sequence",
    "exactly": "precisely",
    "largest": "biggest",
    "smallest": "least",
    "maximum": "greatest possible",
    "minimum": "least possible",
    "different": "distinct",
    "consecutive": "successive",
    "determine": "find",
    "print": "output",
    "each": "every",
    "every": "each",
    "single": "one",
    "line": "row",
    "first": "opening",
    "second": "next",
}
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b")


def planted_problems(contest: Sequence[Problem], pipelines: Sequence[Problem], seed: int = 0) -> list[Problem]:
    """The planted problems made from these; the same for the same arguments."""
    random = Random(f"planted {seed}")
    with_samples = [p for p in contest if any(test.sample and test.call is None for test in p.tests)]
    planted = [
        *(_copy(p, random) for p in _some(random, contest, COPIES)),
        *(_copy(p, random) for p in _some(random, pipelines, COPIES)),
        *_near_copies(random, contest),
        *(_as(p, "truncated", statement=_first_half(p)) for p in _some(random, with_samples, BROKEN)),
        *(_as(p, "no-tests", tests=[], generator=None) for p in _some(random, contest, BROKEN)),
    ]
    if pipelines:
        planted += _broken_pipelines(pipelines, seed)
    return planted


def kind_of(problem_id: str) -> str | None:
    """The kind of a planted problem, None for any other id."""
    for kind in EXPECTED:
        if problem_id.startswith(f"planted-{kind}-"):
            return kind
    return None


def _some(random: Random, problems: Sequence[Problem], count: int) -> list[Problem]:
    return random.sample(list(problems), min(count, len(problems)))


def _as(problem: Problem, kind: str, **changes: object) -> Problem:
    name = f"planted-{kind}-{problem.id}"
    # a scraped copy does not know its family, and the source's own split was not copied with it
    tags = [tag for tag in problem.tags if not tag.startswith("split:")]
    return problem.model_copy(update={"id": name, "family": name, "source": "builtin:planted", "tags": tags, **changes})


def _poorer(problem: Problem) -> dict[str, object]:
    """A copy has fewer tests and solutions than the original, so the original is the one to keep."""
    return {"tests": problem.tests[: max(1, len(problem.tests) - 1)], "solutions": problem.solutions[:1]}


def _copy(problem: Problem, random: Random) -> Problem:
    """A renamed copy: other spacing, other capitals, other title."""
    reshaped: list[Callable[[str], str]] = [
        str.upper,
        lambda text: re.sub(r"[ \t]*\n[ \t]*", "\r\n\r\n", text),
        lambda text: "  " + text.replace(". ", ".   ").replace("\n", " \n") + "\n\n",
    ]
    statement = random.choice(reshaped)(problem.statement)
    return _as(problem, "copy", title=f"{problem.title} (mirror)", statement=statement, **_poorer(problem))


def _near_copies(random: Random, contest: Sequence[Problem]) -> list[Problem]:
    copies: list[Problem] = []
    for problem in _some(random, contest, len(contest)):
        statement = _reworded(problem.statement)
        if statement != problem.statement and len(copies) < NEAR_COPIES:
            copies.append(_as(problem, "near", title="Practice task", statement=statement, **_poorer(problem)))
    return copies


def _reworded(statement: str) -> str:
    """The statement with other names and a few other words: at most one word in 24 is touched."""
    room = len(statement.split()) // 24
    for name in sorted(set(_NAME.findall(statement))):
        uses = len(re.findall(rf"\b{name}\b", statement))
        if uses <= room:
            statement, room = re.sub(rf"\b{name}\b", f"{name[0]}orin", statement), room - uses
    for word, other in _OTHER_WORDS.items():
        uses = len(re.findall(rf"\b{word}\b", statement))
        if 0 < uses <= room:
            statement, room = re.sub(rf"\b{word}\b", other, statement), room - uses
    return statement


def _first_half(problem: Problem) -> str:
    words = problem.statement.split(" ")
    return " ".join(words[: len(words) // 3])


def _broken_pipelines(pipelines: Sequence[Problem], seed: int) -> list[Problem]:
    """Broken problems with statements of their own, so that nothing but running their solutions can tell."""
    fresh = pipeline_problems(
        2 * BROKEN,
        (1, 2, 3),
        seed,
        split="train",
        exclude_statements={p.statement for p in pipelines},
        exclude_programs={p.solutions[0].code for p in pipelines},
        tags=["planted"],
    )
    return [
        *(_as(p, "wrong-output", tests=_with_wrong_output(p.tests)) for p in fresh[:BROKEN]),
        *(_as(p, "crash", solutions=_crashing(p.solutions)) for p in fresh[BROKEN:]),
    ]


def _with_wrong_output(tests: Sequence[Test]) -> list[Test]:
    wrong = tests[-1].model_copy(update={"output": f"{tests[-1].output.strip()} 99991\n"})
    return [*tests[:-1], wrong]


def _crashing(solutions: Sequence[Solution]) -> list[Solution]:
    accepted = solutions[0]
    return [accepted.model_copy(update={"code": f"{accepted.code}\nprint(a[n*n+99])"}), *solutions[1:]]
