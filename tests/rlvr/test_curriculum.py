"""Which problems a step trains on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.config import PhaseSection, RecipeError
from rlvr.curriculum import ProblemSchedule, hardest

KEYS = [f"p{i}" for i in range(20)]
RATES = {key: i / 20 for i, key in enumerate(KEYS)}


def test_hardest_ranks_by_pass_rate_with_stable_ties_and_unmeasured_last():
    assert hardest(["a", "b", "c", "d"], {"a": 0.5, "b": 0.1, "c": 0.1, "d": None}) == ["b", "c", "a", "d"]
    assert hardest(["a", "b"], {"a": 0.0, "b": 0.4}, min_rate=0.1) == ["b"]


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_step_holds_distinct_problems_and_is_a_pure_function(size, step, seed):
    first = ProblemSchedule(KEYS, size, [], seed=seed).problems(step, {})
    again = ProblemSchedule(KEYS, size, [], seed=seed).problems(step, {})
    assert first == again and len(set(first)) == len(first) == size


def test_an_epoch_visits_every_problem_once():
    schedule = ProblemSchedule(KEYS, 5, [])
    visited = [key for step in range(4) for key in schedule.problems(step, {})]
    assert sorted(visited) == sorted(KEYS)


def test_phases_are_nested_and_ranked_by_the_rates_known_when_they_begin():
    phases = [PhaseSection(steps=2, problems=8), PhaseSection(steps=2, problems=3)]
    schedule = ProblemSchedule(KEYS, 4, phases)
    first = schedule.problems(0, RATES)
    assert set(first) <= set(KEYS[:8])
    reversed_rates = {key: 1 - rate for key, rate in RATES.items()}
    second = schedule.problems(2, reversed_rates)
    assert set(second) == {"p5", "p6", "p7"}  # the hardest now, out of the first phase's eight
    assert set(schedule.subsets[1]) < set(schedule.subsets[0])


def test_a_subset_smaller_than_a_batch_is_taken_whole():
    schedule = ProblemSchedule(KEYS, 8, [PhaseSection(steps=5, problems=3)])
    assert sorted(schedule.problems(4, RATES)) == ["p0", "p1", "p2"]


def test_a_share_of_easier_problems_is_mixed_in():
    schedule = ProblemSchedule(KEYS, 8, [PhaseSection(steps=5, problems=10)], keep_easy=0.25)
    chosen = schedule.problems(1, RATES)
    assert len(set(chosen)) == 8 and sum(key in KEYS[:10] for key in chosen) == 6


def test_a_resumed_schedule_keeps_the_subsets_of_its_phases():
    phases = [PhaseSection(steps=2, problems=8), PhaseSection(steps=9, problems=3)]
    schedule = ProblemSchedule(KEYS, 2, phases)
    schedule.problems(0, RATES)
    schedule.problems(2, RATES)
    resumed = ProblemSchedule(KEYS, 2, phases)
    resumed.load_state_dict(schedule.state_dict())
    shuffled_rates = {key: 0.5 for key in KEYS}
    assert [resumed.problems(s, shuffled_rates) for s in range(2, 9)] == [schedule.problems(s, {}) for s in range(2, 9)]


def test_other_data_than_the_checkpoint_was_made_with_is_refused():
    schedule = ProblemSchedule(KEYS[:3], 2, [])
    with pytest.raises(RecipeError, match="no longer holds"):
        schedule.load_state_dict({"subsets": [["p7"]]})


def test_no_problem_in_the_pass_rate_range_is_one_clear_error():
    schedule = ProblemSchedule(KEYS, 2, [PhaseSection(steps=1)], min_rate=0.99, max_rate=1.0)
    with pytest.raises(RecipeError, match="min_pass_rate"):
        schedule.problems(0, RATES)
