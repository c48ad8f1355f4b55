"""Codeforces' algorithm against official deltas, CodeElo's protocol, and estimates against simulated solvers."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.cli import cli
from rlvr.evaluation import SampleRecord, write_samples
from rlvr.evaluation.codeelo import Round, codeelo, contest_and_index, place_rating, read_rounds, score
from rlvr.evaluation.codeforces import Contestant, Field, ranks, rating_changes
from rlvr.evaluation.estimated_rating import calibrate, estimate_rating
from sandbox import Verdict

DATA = Path(__file__).parents[2].parent / "shared" / "data"
ROUNDS = DATA / "codeforces_rating_rounds.jsonl.gz"
LEETCODE = DATA / "leetcode_contest_ratings.jsonl.gz"
needs_rounds = pytest.mark.skipif(not ROUNDS.is_file(), reason=f"{ROUNDS} is not here")
AC, WA, IE = Verdict.AC, Verdict.WA, Verdict.IE


def real_rounds() -> list[dict[str, Any]]:
    with gzip.open(ROUNDS, "rt") as lines:
        return [json.loads(line) for line in lines]


# --- Codeforces ---


@needs_rounds
def test_every_official_delta_is_reproduced() -> None:
    contestants = 0
    for body in real_rounds():
        rows = body["rows"]
        changes = rating_changes([Contestant(r["points"], r["penalty"], r["old_rating"]) for r in rows])
        wrong = [(r["user"], r["actual_delta"], c.delta) for r, c in zip(rows, changes, strict=True)
                 if r["actual_delta"] != c.delta]  # fmt: skip
        assert wrong == [], f"contest {body['contest_id']}"
        contestants += len(rows)
    assert contestants == 46954


def plain_deltas(contestants: list[Contestant]) -> list[int]:
    """The algorithm as published, in plain sums and a linear search."""
    old = [c.effective_rating for c in contestants]
    size = len(old)

    def seed(rating: int, me: int) -> float:
        return 1 + math.fsum(1 / (1 + 10 ** ((rating - old[j]) / 400)) for j in range(size) if j != me)

    deltas = []
    for me, c in enumerate(contestants):
        place = sum((-o.points, o.penalty) <= (-c.points, c.penalty) for o in contestants)
        middle = math.sqrt(place * seed(old[me], me))
        need = 1
        while need < 6000 and seed(need + 1, me) >= middle - 1e-12:
            need += 1
        deltas.append(int((need - old[me]) / 2))
    shift = int(-sum(deltas) / size) - 1
    deltas = [d + shift for d in deltas]
    top = sorted(range(size), key=lambda i: -old[i])[: min(4 * math.floor(math.sqrt(size) + 0.5), size)]
    shift = min(max(int(-sum(deltas[i] for i in top) / len(top)), -10), 0)
    return [d + shift for d in deltas]


rows = st.builds(
    Contestant,
    st.integers(0, 4),
    st.integers(0, 2),
    st.none() | st.integers(800, 1600),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(rows, min_size=2, max_size=5))
def test_the_convolution_equals_plain_sums(contestants: list[Contestant]) -> None:
    assert [c.delta for c in rating_changes(contestants)] == plain_deltas(contestants)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, min_size=2, max_size=60), st.randoms())
def test_deltas_do_not_depend_on_the_order_of_rows_and_never_create_rating(contestants: Any, random: Any) -> None:
    changes = rating_changes(contestants)
    assert sum(c.delta for c in changes) <= 0
    order = list(range(len(contestants)))
    random.shuffle(order)
    shuffled = rating_changes([contestants[i] for i in order])
    # who of equally rated contestants belongs to the strongest is the only thing left open
    if len({c.effective_rating for c in contestants}) == len(contestants):
        assert [changes[i].delta for i in order] == [c.delta for c in shuffled]


def test_ties_share_the_last_place_and_newcomers_count_as_1400() -> None:
    people = [Contestant(3, 10, 1500), Contestant(3, 10, None), Contestant(5), Contestant(3, 11, 1400)]
    assert ranks(people) == [3, 3, 1, 4]
    seeds = [c.seed for c in rating_changes(people)]
    assert seeds[1] == pytest.approx(seeds[3])


def test_a_performance_is_the_rating_that_the_result_confirms() -> None:
    people = [Contestant(100 - i, 0, 1200 + 13 * (i * 7 % 40)) for i in range(40)]
    changes = rating_changes(people, performances=True)
    assert changes[0].performance is None
    assert [c.performance for c in changes[1:]] == sorted((c.performance for c in changes[1:]), reverse=True)
    again = rating_changes([Contestant(p.points, 0, c.performance or p.rating) for p, c in zip(people, changes,
                           strict=True)])  # fmt: skip
    assert sum(abs(c.delta) for c in again[1:]) < sum(abs(c.delta) for c in changes[1:]) / 3


def test_ratings_out_of_range_and_empty_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one contestant"):
        rating_changes([])
    with pytest.raises(ValueError, match="between -500 and 6000, got 9000"):
        Field([9000])


# --- CodeElo ---


def test_scores_follow_the_protocol() -> None:
    attempts = {"A": [AC], "B": [WA, WA, AC, WA], "C": [WA] * 8 + [AC], "D": [IE, WA, AC]}
    assert score(attempts, {"A": 500, "B": 1000, "C": 1500, "D": 50}) == (3, 500 + 900 + 0, 0)
    assert score(attempts, dict.fromkeys("ABCD")) == (3, 3.0, 30.0)


@pytest.mark.parametrize(("worse_than", "rating"), [(500, 1500), (749, 1310), (899, 1120)])
def test_places_among_equals_give_the_known_ratings(worse_than: int, rating: int) -> None:
    field = [Contestant(10, 0, 1500)] * worse_than + [Contestant(1, 0, 1500)] * (1000 - worse_than)
    rank, found, bounded = place_rating(field, 5, 0)
    assert (rank, bounded) == (worse_than + 1, True) and abs(found - rating) <= 1  # published figures are rounded


def test_first_and_last_have_a_bound_beyond_the_old_cap() -> None:
    field = [Contestant(10, 0, 1500)] * 1000
    rank, rating, bounded = place_rating(field, 11, 0)
    assert rank == 1 and not bounded and rating > 1500 + 100
    rank, lowest, bounded = place_rating(field, 1, 0)
    assert rank == 1001 and not bounded and lowest < 500


@needs_rounds
def test_a_contestant_replayed_against_his_real_round_gets_about_his_performance() -> None:
    body = next(b for b in real_rounds() if b["contest_id"] == 1342)
    people = [Contestant(r["points"], r["penalty"], r["old_rating"]) for r in body["rows"]]
    for at in (200, 1000, 5000, 12000):
        row = body["rows"][at]
        others = people[:at] + people[at + 1 :]
        _, rating, bounded = place_rating(others, row["points"], row["penalty"])
        assert bounded
        # Codeforces takes a little from everyone before a change is 0, CodeElo does not
        assert 0 <= rating - row["performance"] < 100


def a_round(contest: str = "7", people: int = 300) -> Round:
    return Round(contest, {"A": 500, "B": 1000}, [Contestant(5 * i, 0, 1000 + 2 * i) for i in range(people)])


def test_rounds_that_cannot_be_rated_are_named_and_skipped() -> None:
    full = {"A": [AC], "B": [WA, AC]}
    found = codeelo(
        {"7": full, "8": full, "9": {"A": [AC]}, "10": full}, [a_round("7"), a_round("8", 150), a_round("9")]
    )
    assert [r.contest_id for r in found.rounds] == ["7"]
    assert set(found.skipped) == {"8", "9", "10"}
    assert "150 rated contestants" in found.skipped["8"] and "no samples for problem B" in found.skipped["9"]
    assert found.rounds[0].points == 1450 and "skipped: no standings" in str(found)
    assert found.ci95 is None and "over 1 round, too few for an interval" in str(found)
    with pytest.raises(ValueError, match="no round can be rated"):
        codeelo({"8": full}, [a_round("8", 150)])


def test_percentile_counts_those_below() -> None:
    found = codeelo({"7": {"A": [AC], "B": [WA]}}, [a_round()], population=[0.0, 100.0, 5000.0, 6000.0])
    assert found.percentile == 50.0


def test_problem_ids_name_their_round() -> None:
    assert contest_and_index("1305/A") == contest_and_index("cf-1305A") == ("1305", "A")
    assert contest_and_index("1305-B1") == ("1305", "B1")
    with pytest.raises(ValueError, match="mbpp-12"):
        contest_and_index("mbpp-12")


def test_api_answers_are_joined_by_the_handles_both_hold(tmp_path: Path) -> None:
    def member(handle: str, points: float, kind: str = "CONTESTANT") -> dict[str, Any]:
        party = {"members": [{"handle": handle}], "participantType": kind}
        return {"party": party, "points": points, "penalty": 0}

    problems = [{"index": "A", "points": 500.0}, {"index": "B"}]
    rows = [member("ann", 500), member("guest", 400), member("bob", 9, "OUT_OF_COMPETITION")]
    standings = {"contest": {"id": 7, "name": "Round"}, "problems": problems, "rows": rows}
    changes = [{"handle": h, "oldRating": r} for h, r in (("ann", 1600), ("bob", 1500), ("elsewhere", 1400))]
    (tmp_path / "7.standings.json").write_text(json.dumps({"status": "OK", "result": standings}))
    with pytest.raises(FileNotFoundError, match=r"7\.ratingChanges\.json"):
        read_rounds(tmp_path)
    (tmp_path / "7.ratingChanges.json").write_text(json.dumps({"status": "OK", "result": changes}))
    (one,) = read_rounds(tmp_path)
    assert one.contestants == [Contestant(500, 0, 1600)] and one.problems == {"A": 500.0, "B": None}
    (tmp_path / "7.ratingChanges.json").write_text(json.dumps({"status": "FAILED", "comment": "call limit exceeded"}))
    with pytest.raises(ValueError, match="call limit exceeded"):
        read_rounds(tmp_path)


# --- estimates ---


def test_an_even_record_at_one_rating_is_that_rating() -> None:
    found = estimate_rating([1500] * 100, [0.5] * 100)
    assert found.rating == pytest.approx(1500, abs=1) and found.informative
    assert found.ci95[0] < 1500 < found.ci95[1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(800, 3500), st.floats(0, 1)), min_size=1, max_size=40))
def test_the_estimate_maximises_the_posterior_and_lies_in_its_interval(rows: list[tuple[float, float]]) -> None:
    ratings, rates = [r for r, _ in rows], [s for _, s in rows]
    found = estimate_rating(ratings, rates)
    assert found.ci95[0] < found.ci95[1] and found.ci95[0] - 1 <= found.rating <= found.ci95[1] + 1

    def posterior(value: float) -> float:
        x = [(value - d) * math.log(10) / 400 for d in ratings]
        return -0.5 * ((value - 1500) / 400) ** 2 - math.fsum(
            s * np.logaddexp(0, -t) + (1 - s) * np.logaddexp(0, t) for s, t in zip(rates, x, strict=True)
        )

    assert posterior(found.rating) >= max(posterior(found.rating - 2), posterior(found.rating + 2)) - 1e-9


def test_solving_one_problem_more_never_lowers_the_estimate() -> None:
    ratings = [1200, 1500, 1800, 2100, 2400]
    estimates = [estimate_rating(ratings, [1] * n + [0] * (5 - n)).rating for n in range(6)]
    assert estimates == sorted(estimates) and estimates[0] < 1300 and estimates[-1] > 2000
    assert not estimate_rating(ratings, [0] * 5).informative


def test_estimates_of_simulated_solvers_are_calibrated_on_real_problem_ratings() -> None:
    if not LEETCODE.is_file():
        pytest.skip(f"{LEETCODE} is not here")
    with gzip.open(LEETCODE, "rt") as lines:
        pool = [json.loads(line)["Rating"] for line in lines]
    rows = calibrate(pool, [1300, 1800, 2200], problems=150, solvers=100)
    for row in rows:
        assert abs(row.mean_estimate - row.true_rating) < 25  # the prior pulls a little
        assert row.coverage >= 0.88
        assert row.rmse < 60 and row.width < 260


def test_estimates_recover_simulated_solvers_without_data_files() -> None:
    pool = np.linspace(900, 2900, 400)
    (row,) = calibrate(pool, [1600], problems=200, solvers=60)
    assert abs(row.mean_estimate - 1600) < 25 and row.coverage >= 0.85


# --- the commands ---


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["rating", *arguments])


def records() -> list[SampleRecord]:
    verdicts = {"7/A": [AC, AC], "7/B": [WA, AC]}
    return [
        SampleRecord(problem_id=p, sample=i, verdict=v, rating=r)
        for (p, vs), r in zip(verdicts.items(), (900, 1400), strict=True)
        for i, v in enumerate(vs)
    ]


def test_codeelo_and_estimate_run_from_samples(tmp_path: Path) -> None:
    samples = write_samples(records(), tmp_path)
    rows = [{"points": 5 * i, "penalty": 0, "old_rating": 1000 + 2 * i} for i in range(300)]
    body = {"contest_id": 7, "problems": [{"index": "A", "points": 500}, {"index": "B", "points": 1000}], "rows": rows}
    rounds = tmp_path / "rounds.jsonl"
    rounds.write_text(json.dumps(body) + "\n")
    answer = run("codeelo", str(samples), "--rounds", str(rounds), "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.output)
    assert found["rounds"][0]["points"] == 1450 and found["rounds"][0]["rank"] == 1 + 300 - 290
    answer = run("estimate", str(samples))
    assert answer.exit_code == 0 and "estimated rating" in answer.output and "2 rated problems" in answer.output
    twice = write_samples([*records(), records()[0]], tmp_path / "twice")
    assert "sample 0 of problem '7/A' stands 2 times" in str(run("estimate", str(twice)).exception)
    mixed = write_samples([r.model_copy(update={"grader": str(r.sample)}) for r in records()], tmp_path / "mixed")
    assert "records of different graders (0, 1)" in str(run("codeelo", str(mixed), "--rounds", str(rounds)).exception)
    rounds.write_text(json.dumps(body | {"problems": []}) + "\n")
    assert "key 'problems' is missing" in str(run("codeelo", str(samples), "--rounds", str(rounds)).exception)
    assert run("changes", str(rounds)).output.splitlines()[0].endswith("300 contestants")


def test_estimates_need_ratings(tmp_path: Path) -> None:
    samples = write_samples([r.model_copy(update={"rating": None}) for r in records()], tmp_path)
    answer = run("estimate", str(samples))
    assert "none of its 2 problems has a rating" in str(answer.exception)
    ratings = tmp_path / "ratings.tsv"
    ratings.write_text("7/A\t900\n7/B\t1400\n")
    assert "2 rated problems" in run("estimate", str(samples), "--ratings", str(ratings)).output
    ratings.write_text('{"TitleSlug": "A", "ID": 3, "Rating": 900}\n')  # as LeetCode's are published
    assert "1 rated problems" in run("estimate", str(samples), "--ratings", str(ratings)).output
    ratings.write_text("two-sum\t1100\n")
    assert "rates none of the problems of" in str(run("estimate", str(samples), "--ratings", str(ratings)).exception)


def row(**fields: Any) -> str:
    return json.dumps({"contest_id": 1, "rows": [{"points": 3, "penalty": 0, "old_rating": 1500} | fields]}) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no rounds"),
        (b"{}\n", "rounds.jsonl:1: key 'contest_id' is missing"),
        (b'{"contest_id": 1}\n', "rounds.jsonl:1: key 'rows' is missing"),
        (b'{"contest_id": 1, "rows": []}\n', "'rows' must list the contestants"),
        (b'{"contest_id": 1, "rows": [{"points": 3}]}\n', "row 1: key 'old_rating' is missing; it has points"),
        (row(points="3").encode(), "row 1: 'points' must be a number, got \"3\""),
        (row(points=float("nan")).encode(), "row 1: 'points' must be a number, got NaN"),
        (
            row()[:-2].encode() + b', "problems": [{"index": "A", "points": "500"}]}\n',
            'points of problem A must be a number, got "500"',
        ),
        (b"[1]\n", "rounds.jsonl:1: expected an object, got list"),
        (b"\xff\xfe\x00", "not text"),
        (gzip.compress(row().encode() * 99, 0)[:500], "cut short"),
    ],
)
def test_what_is_wrong_with_a_file_of_rounds_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(content)
    error = run("changes", str(path)).exception
    assert isinstance(error, ValueError) and message in str(error) and "\n" not in str(error)


def test_rounds_are_read_packed_whatever_the_name_and_newcomers_have_no_rating(tmp_path: Path) -> None:
    path = tmp_path / "rounds.txt"
    path.write_bytes(gzip.compress(row(old_rating=None).encode()))
    assert "1400" in run("changes", str(path)).output
    assert "no round 9; it has 1" in str(run("changes", str(path), "--contest", "9").exception)
