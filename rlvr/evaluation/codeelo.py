"""CodeElo's protocol (arXiv 2501.01257): a model's samples as submissions to real rounds, its place as a rating.

Where the released script errs it is not followed: standings and rating changes are joined by the handles both hold
(the script's `set(a) and set(b)` is the second set), places count from 1 like the expected place does (the script's
place is one too good), and no bound is set at the best contestant's rating + 100.
"""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.evaluation.codeforces import Contestant, Field
from rlvr.evaluation.lines import numbered_objects
from rlvr.evaluation.statistics import bootstrap_ci
from sandbox import Verdict

ATTEMPTS = 8
LEAST_CONTESTANTS = 200  # rounds with no more matched contestants say too little
_FAILED_TRY_POINTS, _FAILED_TRY_PENALTY = 50.0, 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """A round as it was: points of its problems (None: ICPC style, one point a problem) and its rated contestants."""

    contest_id: str
    problems: Mapping[str, float | None]  # index ("A", "B1") -> points
    contestants: Sequence[Contestant]
    name: str = ""


@dataclass(frozen=True, slots=True)
class RoundRating:
    """What a model's submissions to one round are worth. `bounded` False: first or last, so the rating is a bound."""

    contest_id: str
    name: str
    solved: int
    problems: int
    points: float
    penalty: float
    rank: int
    contestants: int
    rating: int
    bounded: bool


@dataclass(frozen=True, slots=True)
class CodeEloRating:
    """`rating` is the mean over rounds, `ci95` a bootstrap over rounds (None for one round, which cannot tell how far
    rounds differ), `percentile` the share of people below the rating."""

    rating: float
    ci95: tuple[float, float] | None
    percentile: float | None
    rounds: list[RoundRating]
    skipped: dict[str, str]  # contest -> why

    def __str__(self) -> str:
        lines = [
            f"{'round':<10} {'solved':>7} {'points':>8} {'penalty':>8} {'place':>14} {'rating':>7}",
            *(
                f"{r.contest_id:<10} {f'{r.solved}/{r.problems}':>7} {r.points:>8g} {r.penalty:>8g} "
                f"{f'{r.rank}/{r.contestants + 1}':>14} {r.rating if r.bounded else _bound(r):>7}"
                for r in self.rounds
            ),
            *(f"{contest:<10} skipped: {why}" for contest, why in self.skipped.items()),
            f"rating by CodeElo's protocol: {self.rating:.0f} "
            + (
                f"[{self.ci95[0]:.0f}, {self.ci95[1]:.0f}] over {len(self.rounds)} rounds"
                if self.ci95
                else "over 1 round, too few for an interval"
            ),
        ]
        if self.percentile is not None:
            lines[-1] += f"; above {self.percentile:.1f}% of the rated population given"
        return "\n".join(lines)


def _bound(r: RoundRating) -> str:
    return f">{r.rating}" if r.rank == 1 else f"<{r.rating}"


def score(attempts: Mapping[str, Sequence[Verdict]], problems: Mapping[str, float | None]) -> tuple[int, float, float]:
    """(solved, points, penalty) of a round's submissions: `attempts` are the verdicts of a problem in their order.

    Accepted after a failed tries: points - 50 a, never below 0, or one point and a penalty of 10 a where the problem
    has no points. There is no term of time. Failures of the judge are no tries. Only the first 8 tries count.
    """
    solved, points, penalty = 0, 0.0, 0.0
    for index, verdicts in attempts.items():
        tries = [verdict for verdict in verdicts if not verdict.is_infrastructure][:ATTEMPTS]
        if Verdict.AC not in tries:
            continue
        failed = tries.index(Verdict.AC)
        worth = problems[index]
        solved += 1
        if worth is None:
            points += 1.0
            penalty += _FAILED_TRY_PENALTY * failed
        else:
            points += max(0.0, worth - _FAILED_TRY_POINTS * failed)
    return solved, points, penalty


def place_rating(contestants: Sequence[Contestant], points: float, penalty: float) -> tuple[int, int, bool]:
    """(place, rating, bounded) of a newcomer with `points` and `penalty` among real contestants.

    The place is 1 + the number of contestants who are not strictly worse, as Codeforces places ties. The rating is the
    largest whole one whose expected place is at least that. First and last places have none: there the rating of half
    a place inwards is given, with `bounded` False.
    """
    rank = 1 + sum((-c.points, c.penalty) <= (-points, penalty) for c in contestants)
    field = Field([c.effective_rating for c in contestants])
    bounded = 1 < rank <= len(contestants)
    place = float(rank) if bounded else (1.5 if rank == 1 else rank - 0.5)
    return rank, int(field.rating_for_place(np.array([place]))[0]), bounded


def codeelo(
    attempts: Mapping[str, Mapping[str, Sequence[Verdict]]],
    rounds: Iterable[Round],
    *,
    population: Sequence[float] | None = None,
    least_contestants: int = LEAST_CONTESTANTS,
) -> CodeEloRating:
    """Rating of a model from `attempts[contest][problem index]`, verdicts in the order the samples were drawn.

    Rounds of which a problem was not tried, or with too few rated contestants, are skipped and named. `population`:
    ratings of all users, for the percentile. ValueError when no round is left.
    """
    found, skipped = [], {}
    known = {one.contest_id: one for one in rounds}
    for contest in sorted(set(attempts) - set(known)):
        skipped[contest] = "no standings of it were given"
    for contest, one in known.items():
        tried = attempts.get(contest)
        if tried is None:
            continue
        strange = sorted(set(tried) - set(one.problems))
        missing = sorted(set(one.problems) - set(tried))
        if strange:
            skipped[contest] = f"its standings have no problem {', '.join(strange)}"
        elif missing:
            skipped[contest] = f"no samples for problem {', '.join(missing)}: the score would be too low"
        elif len(one.contestants) <= least_contestants:
            skipped[contest] = f"{len(one.contestants)} rated contestants, more than {least_contestants} are needed"
        else:
            solved, points, penalty = score(tried, one.problems)
            rank, rating, bounded = place_rating(one.contestants, points, penalty)
            found.append(
                RoundRating(contest, one.name, solved, len(one.problems), points, penalty, rank, len(one.contestants),
                            rating, bounded)
            )  # fmt: skip
    if not found:
        why = "; ".join(f"{contest}: {reason}" for contest, reason in skipped.items()) or "samples and standings differ"
        raise ValueError(f"no round can be rated: {why}")
    ratings = [one.rating for one in found]
    mean = float(np.mean(ratings))
    percentile = None
    if population:
        ordered = sorted(population)
        percentile = 100.0 * bisect.bisect_left(ordered, mean) / len(ordered)
    interval = bootstrap_ci(ratings) if len(ratings) > 1 else None
    return CodeEloRating(mean, interval, percentile, found, skipped)


_PROBLEM = re.compile(r"(?:^|[^0-9])(\d{1,6})[/_:-]?([A-Z]\d{0,2})$")


def contest_and_index(problem_id: str) -> tuple[str, str]:
    """("1305", "A") of an id such as "1305/A", "1305A" or "codeforces-1305-A". ValueError for others."""
    match = _PROBLEM.search(problem_id)
    if match is None:
        raise ValueError(f"problem {problem_id!r} names no round: expected an id like 1305/A")
    return match[1], match[2]


def read_rounds(path: Path, *, problems: bool = True) -> list[Round]:
    """Rounds of a .jsonl[.gz] file, or of a folder of Codeforces API answers; without `problems` none need be named.

    A line: {"contest_id", "problems": [{"index", "points"}], "rows": [{"points", "penalty", "old_rating"}]}; points
    null or absent means ICPC style. A folder holds ID.standings.json and ID.ratingChanges.json as the API methods
    contest.standings and contest.ratingChanges answer. ValueError or FileNotFoundError naming file and key.
    """
    if path.is_dir():
        names = sorted(path.glob("*.standings.json"))
        if not names:
            raise FileNotFoundError(f"{path}: holds no ID.standings.json (the answer of contest.standings)")
        return [_api_round(name) for name in names]
    rounds = [_round(row, f"{path}:{line}", problems) for line, row in numbered_objects(path, "file of rounds")]
    if not rounds:
        raise ValueError(f"{path}: holds no rounds")
    return rounds


def _round(body: dict[str, Any], where: str, need_problems: bool) -> Round:
    for key in ("contest_id", "rows"):
        if key not in body:
            raise ValueError(
                f"{where}: key {key!r} is missing; a round has contest_id and rows of points, penalty, old_rating"
            )
    if not isinstance(body["rows"], list) or not body["rows"]:
        raise ValueError(f"{where}: 'rows' must list the contestants, got {json.dumps(body['rows'])[:60]}")
    try:
        if need_problems and not body.get("problems"):
            raise ValueError(f'{where}: key \'problems\' is missing: [{{"index": "A", "points": 500}}, ...]')
        return Round(
            contest_id=str(body["contest_id"]),
            problems={str(p["index"]): _worth(p, where) for p in body.get("problems", [])},
            contestants=[_contestant(row, f"{where}: row {number}") for number, row in enumerate(body["rows"], 1)],
            name=body.get("name", ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: not a round: {type(error).__name__} {error}") from None


def _worth(problem: dict[str, Any], where: str) -> float | None:
    points = problem.get("points")
    if points is None:
        return None
    if isinstance(points, bool) or not isinstance(points, int | float) or not math.isfinite(points):
        raise ValueError(
            f"{where}: points of problem {problem['index']} must be a number, got {json.dumps(points)[:60]}"
        )
    return float(points)


def _contestant(row: Any, where: str) -> Contestant:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected points, penalty and old_rating by name, got {json.dumps(row)[:60]}")
    for key in ("points", "old_rating"):
        if key not in row:
            raise ValueError(f"{where}: key {key!r} is missing; it has {', '.join(row) or 'none'}")
    points, penalty, old = row["points"], row.get("penalty", 0), row["old_rating"]
    for key, value in (("points", points), ("penalty", penalty), ("old_rating", old)):
        if value is None and key == "old_rating":
            continue  # unrated so far
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{where}: {key!r} must be a number, got {json.dumps(value)[:60]}")
    return Contestant(points, penalty, None if old is None else round(old))


def _api_round(standings: Path) -> Round:
    changes = standings.with_name(standings.name.replace(".standings.", ".ratingChanges."))
    answer, rated = _api_answer(standings), _api_answer(changes)
    try:
        old = {change["handle"]: change["oldRating"] for change in rated}
        contestants = [
            Contestant(row["points"], row["penalty"], old[member["handle"]])
            for row in answer["rows"]
            for member in row["party"]["members"]
            if member["handle"] in old and row["party"].get("participantType", "CONTESTANT") == "CONTESTANT"
        ]
        return Round(
            contest_id=str(answer["contest"]["id"]),
            problems={str(problem["index"]): _worth(problem, str(standings)) for problem in answer["problems"]},
            contestants=contestants,
            name=answer["contest"].get("name", ""),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{standings}: not an answer of contest.standings: key {error} is missing") from None


def _api_answer(path: Path) -> Any:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: missing; a round needs standings and rating changes") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text; give the answer of the API as it came") from None
    if not isinstance(body, dict) or body.get("status") != "OK":
        comment = body.get("comment", "no status OK") if isinstance(body, dict) else "no object"
        raise ValueError(f"{path}: not a successful answer of the Codeforces API: {comment}")
    return body["result"]
