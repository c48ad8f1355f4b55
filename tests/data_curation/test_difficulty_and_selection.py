"""Pass rates and their intervals, selection for the RL stages, splits by date, arena folds."""

from __future__ import annotations

import datetime
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_curation import Problem, Solution, Test
from data_curation.arena import Arena, hard_repeat
from data_curation.config import DifficultyOptions, SelectOptions, SplitOptions
from data_curation.stages.difficulty import difficulty, measured_rate
from data_curation.stages.pass_rates import Rate
from data_curation.stages.result import Workplace
from data_curation.stages.select import difficulty_bin, evenly_spread, ranked_by_hardness, select
from data_curation.stages.split import HELDOUT, split

ADD = "print(sum(map(int, input().split())))"


@pytest.fixture
def work(tmp_path) -> Workplace:
    return Workplace(tmp_path / "stage")


def problem(name: str, rate: float | None = None, **fields) -> Problem:
    tests = [Test(input="1 2\n", output="3\n"), Test(input="4 5\n", output="9\n")]
    tags = [*fields.pop("tags", []), *([f"pass-rate:{rate:.3f}"] if rate is not None else [])]
    values = {"id": name, "statement": "Add two numbers.", "tests": tests, "solutions": [Solution(code=ADD)]}
    return Problem(**{**values, "tags": tags, **fields})


# intervals


@pytest.mark.parametrize(
    ("passed", "samples", "low", "high"),
    # quantiles of Beta(1 + passed, 1 + failed) from a table: 5 and 95 percent, one-sided at the ends
    [(4, 8, 0.2514, 0.7486), (0, 8, 0.0, 0.2257), (8, 8, 0.7743, 1.0), (1, 64, 0.0055, 0.0708)],
)
def test_intervals_are_those_of_the_beta_posterior(passed, samples, low, high):
    assert Rate(passed, samples).interval(0.9) == pytest.approx((low, high), abs=2e-4)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_an_interval_holds_the_rate_and_more_samples_narrow_it(counts, mass):
    passed, samples = counts
    low, high = Rate(passed, samples).interval(mass)
    assert 0 <= low <= high <= 1
    wider = Rate(10 * passed, 10 * samples).interval(mass)
    assert wider[1] - wider[0] < high - low


# difficulty from a policy


def test_programs_in_a_samples_file_are_judged(work, tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [{"problem_id": "a", "program": ADD if n < 3 else "print(3)"} for n in range(4)]
    rows += [{"problem_id": "a", "passed": 1, "samples": 4}, {"problem_id": "unknown", "program": ADD}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = difficulty([problem("a", rating=1200)], DifficultyOptions(samples=path), work)
    (row,) = result.rows
    assert (row["passed"], row["samples"], row["rating"]) == (4, 8, 1200)
    assert 0.2 < row["low"] < 0.5 < row["high"] < 0.8
    assert measured_rate(result.problems[0]) == 0.5


class Policy:
    """Solves problem "p<n>" in n of its programs."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, problems, rollouts):
        for each in problems:
            self.asked.append(each.id)
            good = int(each.id[1:])
            yield [f"{ADD}\n#{n}" if n < good else f"print({n} + 100)" for n in range(rollouts)]


def test_a_policy_passed_in_is_asked_once_and_grades(tmp_path):
    policy = Policy()
    work = Workplace(tmp_path / "stage", sampler=policy, policy="first")
    problems = [problem(f"p{n}") for n in (0, 2, 8)]
    result = difficulty(problems, DifficultyOptions(drop_always_solved=False), work)
    assert [measured_rate(p) for p in result.problems] == [0.0, 0.25, 1.0]
    assert [[t for t in p.tags if "solved" in t] for p in result.problems] == [["never-solved"], [], ["always-solved"]]
    assert difficulty(problems, DifficultyOptions(drop_always_solved=False), work) == result
    assert policy.asked == ["p0", "p2", "p8"]
    other = Workplace(tmp_path / "stage", sampler=policy, policy="second")
    dropped = difficulty(problems, DifficultyOptions(drop_never_solved=True), other).dropped
    assert [(d.id, d.reason) for d in dropped] == [("p0", "never solved"), ("p8", "always solved")]
    assert len(policy.asked) == 6


# selection

rates = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=60)


@given(rates, st.integers(1, 40), st.integers(1, 12))
def test_a_spread_is_as_even_as_there_are_problems_for(values, size, bins):
    problems = [problem(f"p{n}", rate) for n, rate in enumerate(values)]
    chosen = evenly_spread(problems, size, bins, seed=0)
    assert len(chosen) == min(size, len(problems))
    assert chosen == [p for p in problems if p in chosen]
    counts = Counter(difficulty_bin(p, bins) for p in chosen)
    available = Counter(difficulty_bin(p, bins) for p in problems)
    most = max(counts.values(), default=0)
    assert all(counts[name] >= min(most - 1, available[name]) for name in available)


def test_the_hardest_come_first_measured_before_rated_before_unknown():
    problems = [problem("unknown"), problem("rated", rating=2400), problem("easy", 0.9), problem("hard", 0.1)]
    problems.append(problem("higher", rating=3000))
    assert [p.id for p in ranked_by_hardness(problems)] == ["hard", "easy", "higher", "rated", "unknown"]


def test_stages_are_tagged_disjoint_and_only_on_training_problems(work):
    problems = [problem(f"p{n}", n / 50) for n in range(50)] + [problem("held", 0.0, tags=[HELDOUT])]
    result = select(problems, SelectOptions(stage1=20, stage2=5, stage1_bins=5), work)
    stage1 = {p.id for p in result.problems if "stage1" in p.tags}
    stage2 = {p.id for p in result.problems if "stage2" in p.tags}
    assert stage2 == {f"p{n}" for n in range(5)}
    assert len(stage1) == 20 and not stage1 & stage2 and "held" not in stage1
    assert result.figures["stage1, pass rate 0.80 to 1.00"] == 4
    again = select(result.problems, SelectOptions(stage1=20, stage2=5, stage1_bins=5), work)
    assert again.problems == result.problems
    assert {
        p.id for p in select(problems, SelectOptions(stage1=20, seed=1), work).problems if "stage1" in p.tags
    } != stage1


def test_without_sizes_tags_stay_as_they_are(work):
    problems = [problem("a", tags=["stage1"])]
    assert select(problems, SelectOptions(), work).problems == problems


def test_new_problems_are_held_out_with_their_families(work):
    day = datetime.date(2024, 8, 1)
    problems = [
        problem("old", family="f", tags=["split:train"], date=day - datetime.timedelta(500)),
        problem("new", family="f", date=day),
        problem("other", family="g", tags=["split:train"]),
    ]
    result = split(problems, SplitOptions(heldout_from=day), work)
    assert [HELDOUT in p.tags for p in result.problems] == [True, True, False]


# arena learning


def arena(count: int = 40, folds: int = 5) -> Arena:
    return Arena.of({f"p{n}": f"f{n // 2}" for n in range(count)}, folds, seed=3)


def test_folds_hold_everything_once_and_never_cut_a_family():
    books = arena()
    assert sorted(name for fold in books.folds for name in fold) == sorted(f"p{n}" for n in range(40))
    place = {name: number for number, fold in enumerate(books.folds) for name in fold}
    assert all(place[f"p{n}"] == place[f"p{n + 1}"] for n in range(0, 40, 2))
    assert {len(fold) for fold in books.folds} == {8}
    assert arena().folds == books.folds
    with pytest.raises(ValueError, match="cannot be cut into 5 folds"):
        Arena.of({"a": "x", "b": "x"}, 5)


def test_only_failures_go_on_and_the_books_survive_a_restart(tmp_path):
    books = arena()
    assert books.training_ids() == books.folds[0] and books.ids_to_predict() == books.folds[1]
    failures = books.record({name: number % 2 == 0 for number, name in enumerate(books.folds[1])})
    assert failures == books.folds[1][1::2] == books.training_ids()
    books.save(tmp_path / "arena.json")
    books = Arena.load(tmp_path / "arena.json")
    assert books.round == 1
    while not books.is_finished:
        books.record(dict.fromkeys(books.ids_to_predict(), True))
    assert books.hard_ids() == [*books.folds[0], *failures]
    assert books.hard_ids(keep_first=False) == failures
    assert books.ids_to_predict() == []
    with pytest.raises(ValueError, match="all folds"):
        books.record({})


def test_a_missing_prediction_is_named_and_nothing_is_noted(tmp_path):
    books = arena()
    with pytest.raises(ValueError, match=r"8 problems of fold 2 of \d have no result, for example p"):
        books.record({})
    assert books.round == 0
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match=r"bad\.json: not the books of an arena"):
        Arena.load(tmp_path / "bad.json")


def test_hard_ids_are_seen_twice():
    assert hard_repeat(["a", "b", "c"], {"b"}) == ["a", "b", "c", "b"]
    assert Counter(hard_repeat(["a", "b"], ["a"], exposures=3)) == {"a": 3, "b": 1}
    with pytest.raises(ValueError, match="at least 1"):
        hard_repeat(["a"], [], exposures=0)
