import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.budget import SuccessRates

outcomes = st.lists(st.sampled_from([0, 1]), max_size=40)


def history(*groups: list[int], **settings: object) -> SuccessRates:
    rates = SuccessRates(**settings)  # type: ignore[arg-type]
    for step, group in enumerate(groups):
        rates.record("p", group, step)
    return rates


def test_nothing_is_known_before_eight_outcomes() -> None:
    assert SuccessRates().window("p") is None
    assert history([1] * 7).window("p") is None
    assert history([1] * 4, [0] * 4).window("p") == 0.5


def test_a_large_latest_group_stands_alone() -> None:
    assert history([1] * 20, [0] * 15 + [1] * 5).window("p") == 0.25


def test_a_small_latest_group_is_filled_up_from_earlier_ones_to_sixteen() -> None:
    assert history([1] * 30, [0] * 8, [1, 1, 0, 0]).window("p") == (4 + 0 + 2) / 16
    assert history([1] * 8, [0] * 2).window("p") == 0.8


def test_infrastructure_failures_say_nothing() -> None:
    rates = SuccessRates()
    rates.record("p", [None, 1, None], 1)
    rates.record("q", [None, None], 1)
    assert rates.rollouts("p") == 1 and "q" not in rates and len(rates) == 1


def test_minus_one_and_booleans_are_outcomes_and_shaped_rewards_are_refused() -> None:
    rates = SuccessRates()
    rates.record("p", [True, False, -1, 1.0], 0)
    assert rates.groups("p")[0].passed == "1001"
    with pytest.raises(ValueError, match=r"reward 0\.3 of problem 'p'.*not a shaped reward"):
        rates.record("p", [1, 0.3], 1)
    assert rates.rollouts("p") == 4


def test_posterior_starts_from_the_prior_and_tells_unknown_from_hopeless() -> None:
    rates = history([0] * 8, half_life=None)
    few = rates.posterior("p")
    rates.record("p", [0] * 792, 1)
    many = rates.posterior("p")
    assert few is not None and many is not None
    assert (few.alpha, few.beta) == (1, 9) and (many.alpha, many.beta) == (1, 801)
    assert rates.posterior("unseen") is None


def test_old_outcomes_fade_by_half_each_half_life() -> None:
    rates = SuccessRates(half_life=10)
    rates.record("p", [1] * 8, 0)
    rates.record("p", [0] * 4, 20)
    posterior = rates.posterior("p", now=30)
    assert posterior is not None
    assert posterior.alpha == pytest.approx(1 + 8 / 8) and posterior.beta == pytest.approx(1 + 4 / 2)
    assert rates.posterior("p") == rates.posterior("p", now=20)


def test_a_predicted_difficulty_is_a_prior_of_one_problem() -> None:
    rates = SuccessRates()
    rates.set_prior("hard", 0.0, strength=4)
    posterior = rates.posterior("hard")
    assert posterior is not None and (posterior.alpha, posterior.beta) == (0.5, 4.5)
    assert rates.window("hard") is None
    with pytest.raises(ValueError, match="rate 2"):
        rates.set_prior("hard", 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), outcomes), max_size=12))
def test_state_survives_json_and_gives_the_same_estimates(groups: list[tuple[str, list[int]]]) -> None:
    rates = SuccessRates()
    for step, (problem, group) in enumerate(groups):
        rates.record(problem, group, step)
    rates.set_prior("d", 0.2)
    loaded = SuccessRates()
    loaded.load_state_dict(json.loads(json.dumps(rates.state_dict())))
    assert loaded.export() == rates.export()
    assert list(loaded) == list(rates) and loaded.latest_step == rates.latest_step
    for problem in "abcd":
        assert loaded.window(problem) == rates.window(problem)
        assert loaded.posterior(problem) == rates.posterior(problem)
    assert loaded.state_dict() == rates.state_dict()


@given(st.lists(outcomes, min_size=1, max_size=8))
def test_estimates_are_probabilities(groups: list[list[int]]) -> None:
    rates = history(*groups)
    window = rates.window("p")
    assert (window is None) == (sum(map(len, groups)) < 8)
    assert window is None or 0.0 <= window <= 1.0
    posterior = rates.posterior("p")
    assert posterior is None or 0.0 < posterior.mean < 1.0


def test_export_has_one_row_a_problem_for_ranking() -> None:
    rates = history([1] * 8, [0] * 8, half_life=None)
    assert rates.export() == [
        {
            "problem_id": "p",
            "groups": 2,
            "rollouts": 16,
            "successes": 8,
            "window_rate": 0.5,
            "posterior_mean": 0.5,
            "mean_tokens": None,
            "first_step": 0,
            "last_step": 1,
            "history": [
                {"step": 0, "passed": "11111111", "tokens": 0},
                {"step": 1, "passed": "00000000", "tokens": 0},
            ],
        }
    ]


def test_an_unreadable_state_changes_nothing() -> None:
    rates = history([1] * 8)
    with pytest.raises(ValueError, match="format 99"):
        rates.load_state_dict({"format": 99})
    with pytest.raises(ValueError, match="problem 'x'"):
        rates.load_state_dict({"format": 1, "history": {"x": [[0, "012"]]}})
    assert rates.window("p") == 1.0


@pytest.mark.parametrize("settings", [{"window": 0}, {"min_rollouts": 0}, {"prior": (0.0, 1.0)}, {"half_life": 0.0}])
def test_senseless_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="success rates"):
        SuccessRates(**settings)
