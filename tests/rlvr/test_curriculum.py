"""Which problems a step trains on."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.budget import SuccessRates
from rlvr.config import GRPORecipe, PhaseSection, PlateauSection, RecipeError, RetireSection
from rlvr.curriculum import ProblemSchedule, hardest
from rlvr.curriculum.progress import improvement, on_plateau, pass_rate_curve

KEYS = [f"p{i}" for i in range(20)]


def known(rates: dict[str, float], step: int = 0, rollouts: int = 20, **settings) -> SuccessRates:
    """A history of one group a problem, with these pass rates."""
    history = SuccessRates(**settings)
    for key, rate in rates.items():
        history.record(key, [1] * round(rate * rollouts) + [0] * (rollouts - round(rate * rollouts)), step)
    return history


RATES = known({key: i / 20 for i, key in enumerate(KEYS)})
NOTHING = SuccessRates()


def test_hardest_ranks_by_pass_rate_with_stable_ties_and_unmeasured_last():
    assert hardest(["a", "b", "c", "d"], {"a": 0.5, "b": 0.1, "c": 0.1, "d": None}) == ["b", "c", "a", "d"]
    assert hardest(["a", "b"], {"a": 0.0, "b": 0.4}, min_rate=0.1) == ["b"]


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_step_holds_distinct_problems_and_is_a_pure_function(size, step, seed):
    first = ProblemSchedule(KEYS, size, [], seed=seed).problems(step, NOTHING)
    again = ProblemSchedule(KEYS, size, [], seed=seed).problems(step, NOTHING)
    assert first == again and len(set(first)) == len(first) == size


def test_an_epoch_visits_every_problem_once():
    schedule = ProblemSchedule(KEYS, 5, [])
    visited = [key for step in range(4) for key in schedule.problems(step, NOTHING)]
    assert sorted(visited) == sorted(KEYS)


def test_phases_are_nested_and_ranked_by_the_rates_known_when_they_begin():
    phases = [PhaseSection(steps=2, problems=8), PhaseSection(steps=2, problems=3)]
    schedule = ProblemSchedule(KEYS, 4, phases)
    first = schedule.problems(0, RATES)
    assert set(first) <= set(KEYS[:8])
    reversed_rates = known({key: 1 - i / 20 for i, key in enumerate(KEYS)})
    second = schedule.problems(2, reversed_rates)
    assert set(second) == {"p5", "p6", "p7"}  # the hardest now, out of the first phase's eight
    assert set(schedule.subsets[1]) < set(schedule.subsets[0])


@given(
    st.integers(1, 24),
    st.lists(st.one_of(st.none(), st.integers(1, 24)), max_size=3),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_the_size_of_a_phases_steps_is_known_beforehand(size, counts, keep_easy):
    phases = [PhaseSection(steps=1, problems=count) for count in counts]
    schedule = ProblemSchedule(KEYS, size, phases, keep_easy=keep_easy)
    sizes = [len(schedule.problems(step, RATES)) for step in range(max(1, len(phases)))]
    assert schedule.step_sizes() == sizes


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
    other_rates = known(dict.fromkeys(KEYS, 0.5))
    steps = range(2, 9)
    assert [resumed.problems(s, other_rates) for s in steps] == [schedule.problems(s, NOTHING) for s in steps]


def test_the_curve_weighs_problems_not_rollouts_and_knows_only_its_own():
    rates = SuccessRates()
    rates.record("a", [1] * 4, 3)
    rates.record("b", [0] * 64, 3)
    rates.record("a", [1, 0], 5)
    rates.record("other", [1] * 9, 4)
    assert pass_rate_curve(rates, ["a", "b"], 1, 9) == [0.5, 0.5]
    assert pass_rate_curve(rates, ["a", "b"], 4, 9) == [0.5]


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 8))
def test_a_plateau_needs_two_windows_and_a_rise_below_delta(curve, window):
    risen = improvement(curve, window)
    assert (risen is None) == (len(curve) < 2 * window)
    if risen is not None:
        assert abs(risen) <= 1 + 1e-12
        assert on_plateau(curve, PlateauSection(window=window, delta=min(1.0, risen + 1e-6)))
        assert not on_plateau(curve, PlateauSection(window=window, delta=max(-1.0, risen - 1e-6)))


def played(schedule: ProblemSchedule, rate_at, last: int, rates: SuccessRates | None = None, first: int = 0) -> list:
    """Phases of the steps up to `last`, or to the one at which the run is over; every problem passes at `rate_at`."""
    rates = SuccessRates() if rates is None else rates
    phases = []
    for step in range(first, last):
        if schedule.finished(step, rates):
            break
        for key in schedule.problems(step, rates):
            passed = round(10 * rate_at(step))
            rates.record(key, [1] * passed + [0] * (10 - passed), step + 1)
        phases.append(schedule.phase_at(step)[0])
    return phases


def two_phases(plateau: PlateauSection | None) -> ProblemSchedule:
    phases = [PhaseSection(steps=12), PhaseSection(steps=8, problems=5)]
    return ProblemSchedule(KEYS, 4, phases, plateau=plateau)


def test_a_phase_ends_where_its_pass_rate_no_longer_rises_else_at_its_steps():
    plateau = PlateauSection(window=3, delta=0.05)
    rising_to_four = lambda step: min(0.8, 0.2 * (step + 1))  # noqa: E731
    assert played(two_phases(plateau), rising_to_four, 99) == [0] * 9 + [1] * 6  # .8 from the fourth step on
    assert played(two_phases(None), rising_to_four, 99) == [0] * 12 + [1] * 8
    rising = lambda step: 0.1 * (step % 10)  # noqa: E731
    assert played(two_phases(PlateauSection(window=3, delta=-1)), rising, 99) == [0] * 12 + [1] * 8


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 10, 13])
def test_a_run_cut_at_any_step_ends_its_phases_where_the_whole_one_did(cut):
    plateau = PlateauSection(window=3, delta=0.05)
    rate = lambda step: min(0.8, 0.2 * (step + 1))  # noqa: E731
    whole = played(two_phases(plateau), rate, 99)
    before, rates = two_phases(plateau), SuccessRates()
    phases = played(before, rate, cut, rates)
    resumed, restored = two_phases(plateau), SuccessRates()
    resumed.load_state_dict(json.loads(json.dumps(before.state_dict())))
    restored.load_state_dict(json.loads(json.dumps(rates.state_dict())))
    assert phases + played(resumed, rate, 99, restored, first=cut) == whole


def test_a_checkpoint_from_before_phases_could_end_early_is_continued():
    schedule = two_phases(None)
    schedule.load_state_dict({"subsets": [KEYS, KEYS[:5]]})
    assert schedule.phase_at(11) == (0, 11) and schedule.phase_at(14) == (1, 2)


def test_solved_problems_are_passed_over_and_come_back_when_their_outcomes_fade():
    rates = known({key: 1.0 if i < 8 else 0.5 for i, key in enumerate(KEYS)}, half_life=5)
    schedule = ProblemSchedule(KEYS, 4, [], retire=RetireSection(above=0.9, min_rollouts=10))
    epoch = [schedule.problems(step, rates) for step in range(5)]
    assert all(len(set(batch)) == 4 for batch in epoch)
    assert not set(KEYS[:8]) & {key for batch in epoch[:4] for key in batch}
    assert set(KEYS[8:]) == {key for batch in epoch for key in batch} - set(KEYS[:8])
    assert set(schedule.retired(3, rates)) == set(KEYS[:8]) and schedule.retired(6, rates) == {}
    assert schedule.problems(6, rates) == ProblemSchedule(KEYS, 4, []).problems(6, rates)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 0.9, 1.0]), min_size=20, max_size=20), st.integers(1, 20), st.integers(0, 30)
)
@settings(max_examples=60, deadline=None)
def test_retirement_never_makes_a_step_smaller_and_takes_the_least_sure_first(values, size, step):
    rates = known(dict(zip(KEYS, values, strict=True)), half_life=None)
    schedule = ProblemSchedule(KEYS, size, [], retire=RetireSection(above=0.85, min_rollouts=5))
    chosen = schedule.problems(step, rates)
    assert len(set(chosen)) == size
    solved = schedule.retired(step, rates)
    filled = [solved[key] for key in chosen if key in solved]
    if filled:
        assert set(KEYS) - set(solved) <= set(chosen)
        assert max(filled) <= min((rate for key, rate in solved.items() if key not in chosen), default=1.0)


def test_refills_leave_retired_problems_out():
    rates = known({key: 1.0 if i < 8 else 0.5 for i, key in enumerate(KEYS)})
    schedule = ProblemSchedule(KEYS, 4, [], retire=RetireSection())
    used = schedule.problems(0, rates)
    more = schedule.refill(0, 1, used, 8, rates)
    assert not set(more) & {*KEYS[:8], *used} and len(more) == 8
    assert schedule.refill(0, 1, used, 9, rates) == []


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        ({"plateau": {}}, "curriculum.phases has none"),
        ({"plateau": {"window": 6}, "phases": [{"steps": 11}]}, "phase 1 has 11 steps, fewer than the two windows"),
        ({"retire": {"above": 1.5}}, "above"),
    ],
)
def test_a_rule_that_could_never_work_is_refused(curriculum, message):
    values = {"name": "x", "model": {"name_or_path": "m"}, "data": {"problems": "p"}, "curriculum": curriculum}
    with pytest.raises(ValueError, match=message):
        GRPORecipe.model_validate(values)


def test_other_data_than_the_checkpoint_was_made_with_is_refused():
    schedule = ProblemSchedule(KEYS[:3], 2, [])
    with pytest.raises(RecipeError, match="no longer holds"):
        schedule.load_state_dict({"subsets": [["p7"]]})


def test_no_problem_in_the_pass_rate_range_is_one_clear_error():
    schedule = ProblemSchedule(KEYS, 2, [PhaseSection(steps=1)], min_rate=0.99, max_rate=1.0)
    with pytest.raises(RecipeError, match="min_pass_rate"):
        schedule.problems(0, RATES)
