"""`rlvr rating`: rating changes of a round, CodeElo's protocol on real standings, an estimate from problem ratings."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rlvr.evaluation import SampleRecord

_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
_FILE = click.Path(path_type=Path)


@click.group()
def rating() -> None:
    """Ratings: Codeforces' own algorithm, CodeElo's protocol, estimates from problem ratings."""


@rating.command()
@click.argument("rounds", type=_FILE)
@click.option("--contest", default=None, help="Only this contest_id.")
@click.option("--performances", is_flag=True, help="Also the rating at which each result would have changed nothing.")
@_JSON
def changes(rounds: Path, contest: str | None, performances: bool, as_json: bool) -> None:
    """Rating changes of the rounds in ROUNDS (.jsonl[.gz]: contest_id and rows of points, penalty, old_rating)."""
    from rlvr.evaluation.codeelo import read_rounds
    from rlvr.evaluation.codeforces import rating_changes

    every = read_rounds(rounds, problems=False)
    chosen = [one for one in every if contest in (None, one.contest_id)]
    if not chosen:
        raise ValueError(f"{rounds}: no round {contest}; it has {', '.join(one.contest_id for one in every[:8])}")
    for one in chosen:
        found = rating_changes(one.contestants, performances=performances)
        if as_json:
            click.echo(json.dumps({"contest_id": one.contest_id, "changes": [dataclasses.asdict(c) for c in found]}))
            continue
        click.echo(f"{one.contest_id} {one.name}: {len(found)} contestants")
        click.echo(f"{'place':>7} {'seed':>9} {'old':>6} {'delta':>6} {'new':>6}" + "  performance" * performances)
        for person, change in sorted(zip(one.contestants, found, strict=True), key=lambda pair: pair[1].rank):
            old = person.effective_rating
            tail = (
                "" if not performances else f"  {change.performance if change.performance is not None else 'inf':>11}"
            )
            line = f"{change.rank:>7} {change.seed:>9.1f} {old:>6} {change.delta:>+6} {old + change.delta:>6}"
            click.echo(line + tail)


@rating.command()
@click.argument("samples", type=_FILE)
@click.option("--rounds", type=_FILE, required=True, help="Standings: .jsonl[.gz], or a folder of API answers.")
@click.option("--population", type=_FILE, default=None, help="Ratings of all users, one a line, for the percentile.")
@click.option("--least-contestants", type=click.IntRange(min=1), default=200, show_default=True)
@_JSON
def codeelo(samples: Path, rounds: Path, population: Path | None, least_contestants: int, as_json: bool) -> None:
    """Rate the samples of an evaluation against real standings (CodeElo: 8 tries in order, penalties, place).

    SAMPLES is a samples.jsonl whose problem ids name their round, such as 1305/A.
    """
    from rlvr.evaluation import codeelo as protocol

    attempts: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    records = sorted((r for r in _records(samples) if not r.greedy), key=lambda r: (r.problem_id, r.sample))
    for record in records:
        contest, index = protocol.contest_and_index(record.problem_id)
        attempts[contest][index].append(record.verdict)
    found = protocol.codeelo(
        attempts,
        protocol.read_rounds(rounds),
        population=_numbers(population) if population else None,
        least_contestants=least_contestants,
    )
    click.echo(json.dumps(dataclasses.asdict(found), indent=1) if as_json else str(found))


@rating.command()
@click.argument("samples", type=_FILE)
@click.option(
    "--ratings",
    type=_FILE,
    default=None,
    help="problem id<TAB>rating lines or JSON rows, before what the samples hold.",
)
@click.option("--prior", type=float, nargs=2, default=(1500.0, 400.0), show_default=True, help="Mean and deviation.")
@_JSON
def estimate(samples: Path, ratings: Path | None, prior: tuple[float, float], as_json: bool) -> None:
    """Estimate a rating from problem ratings alone (MAP with a Gaussian prior and a 95% interval)."""
    from rlvr.evaluation.estimated_rating import estimate_rating
    from rlvr.evaluation.records import outcomes

    known = dict(_pairs(ratings)) if ratings else {}
    tried = {problem: outcome for problem, outcome in outcomes(_records(samples)).items() if outcome.samples}
    given = {problem: known.get(problem, known.get(problem.rpartition("/")[2])) for problem in tried}
    if ratings and all(value is None for value in given.values()):
        raise ValueError(
            f"{ratings}: rates none of the problems of {samples}, such as {next(iter(tried), '')}; "
            f"it rates {', '.join(list(known)[:3])}"
        )
    rows = [
        (outcome.rating if given[problem] is None else given[problem], outcome.passed / outcome.samples)
        for problem, outcome in tried.items()
    ]
    rated = [(value, rate) for value, rate in rows if value is not None]
    if not rated:
        raise ValueError(f"{samples}: none of its {len(rows)} problems has a rating; give --ratings")
    found = estimate_rating([value for value, _ in rated], [rate for _, rate in rated], prior=prior)
    click.echo(json.dumps(dataclasses.asdict(found)) if as_json else str(found))
    if len(rated) < len(rows) and not as_json:
        click.echo(f"{len(rows) - len(rated)} problems without a rating were left out")


@rating.command()
@click.argument("ratings", type=_FILE)
@click.option("--problems", type=click.IntRange(min=2), default=100, show_default=True, help="Problems of each solver.")
@click.option("--solvers", type=click.IntRange(min=10), default=200, show_default=True)
@click.option("--true", "truths", type=float, multiple=True, default=(1200, 1500, 1800, 2100, 2400), show_default=True)
def calibrate(ratings: Path, problems: int, solvers: int, truths: tuple[float, ...]) -> None:
    """How far estimates of simulated solvers fall from the truth on problems of the RATINGS in a file."""
    from rlvr.evaluation.estimated_rating import calibrate as run

    rows = list(run(_numbers(ratings), truths, problems=problems, solvers=solvers))
    click.echo(f"{'true':>6} {'mean':>7} {'rmse':>6} {'95% holds':>10} {'width':>6}   {problems} problems")
    for row in rows:
        values = f"{row.true_rating:>6.0f} {row.mean_estimate:>7.0f} {row.rmse:>6.0f}"
        click.echo(f"{values} {row.coverage:>10.1%} {row.width:>6.0f}")


def _records(path: Path) -> list[SampleRecord]:
    """The records of one judge, each sample once."""
    from rlvr.evaluation.records import check_records, read_samples

    records = read_samples(path)
    check_records(records, str(path))
    return records


def _numbers(path: Path) -> list[float]:
    """The number at the end of every line."""
    return [value for _, value in _pairs(path)]


def _pairs(path: Path) -> list[tuple[str, float]]:
    """(problem, rating) of every line: `id<TAB>rating`, a number alone, or a JSON object with `rating` and one of
    `problem_id`, `titleSlug` (as LeetCode's ratings are published) and `id`, whatever the case; gzip or not."""
    from rlvr.evaluation.lines import numbered_lines

    found = []
    for number, line in numbered_lines(path, "file of ratings"):
        parts = line.split()
        try:
            if parts[0].startswith("{"):
                row = {key.lower(): value for key, value in json.loads(line).items()}
                name = next((row[key] for key in ("problem_id", "titleslug", "id") if key in row), number)
                found.append((str(name), float(row["rating"])))
            else:
                found.append((parts[0], float(parts[-1])))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}:{number}: expected id<TAB>rating, or an object with 'rating', got {line[:60]!r}"
            ) from None
    return found
