"""pass@k against its definition, intervals against their promises, results files there and back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.evaluation import (
    Cost,
    Results,
    SampleRecord,
    SuiteMetrics,
    adjust,
    bootstrap_ci,
    build_results,
    by_difficulty,
    compare,
    difficulty_key,
    holm,
    mean_ci,
    mean_pass_at_k,
    paired_difference,
    pass_at_k,
    read_results,
    read_samples,
    standard_error,
    wilson_ci,
    write_results,
    write_samples,
)
from rlvr.evaluation.degeneration import is_repetitive, mixes_languages


def exact_pass_at_k(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


@st.composite
def counts(draw: st.DrawFn, largest: int = 300) -> tuple[int, int, int]:
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


# --- pass@k ---


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(10, 1, 1, 0.1), (10, 1, 5, 0.5), (10, 3, 5, 11 / 12), (64, 1, 10, 0.15625), (8, 0, 8, 0.0), (8, 1, 8, 1.0)],
)
def test_pass_at_k_gives_known_values(n: int, c: int, k: int, value: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-15)


@given(counts())
def test_pass_at_k_equals_its_definition(nck: tuple[int, int, int]) -> None:
    assert pass_at_k(*nck) == pytest.approx(float(exact_pass_at_k(*nck)), rel=1e-11, abs=0)


@pytest.mark.parametrize(
    ("n", "c", "k"), [(10_000, 1, 1), (10_000, 1, 9_999), (10_000, 5_000, 100), (10_000, 37, 8), (10_000, 9_000, 900)]
)
def test_pass_at_k_is_exact_to_rounding_for_ten_thousand_samples(n: int, c: int, k: int) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(float(exact_pass_at_k(n, c, k)), rel=1e-11)


@given(counts())
def test_pass_at_k_grows_with_successes_and_with_k(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    here = pass_at_k(n, c, k)
    assert 0.0 <= here <= 1.0
    if c < n:
        assert pass_at_k(n, c + 1, k) >= here - 1e-12
    if k < n:
        assert pass_at_k(n, c, k + 1) >= here - 1e-12


@given(counts())
def test_pass_at_1_is_the_share_that_passed(nck: tuple[int, int, int]) -> None:
    n, c, _ = nck
    assert pass_at_k(n, c, 1) == pytest.approx(c / n, abs=1e-14)


@pytest.mark.parametrize(
    ("n", "c", "k", "named"),
    [(0, 0, 1, "n=0"), (4, 5, 1, "c=5"), (4, -1, 1, "c=-1"), (4, 1, 0, "k=0"), (4, 1, 5, "k=5"), (4.0, 1, 1, "4.0")],
)
def test_pass_at_k_refuses_impossible_counts_and_names_them(n: int, c: int, k: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        pass_at_k(n, c, k)


def test_mean_pass_at_k_averages_over_problems_with_their_own_sample_counts() -> None:
    assert mean_pass_at_k([0, 8], 8, 1) == 0.5
    assert mean_pass_at_k([1, 1], [2, 4], 2) == pytest.approx((1.0 + 0.5) / 2)
    with pytest.raises(ValueError, match="no problems"):
        mean_pass_at_k([], 8, 1)
    with pytest.raises(ValueError, match="2 counts of successes but 1"):
        mean_pass_at_k([1, 1], [4], 1)


# --- intervals ---

shares = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@settings(max_examples=50)
@given(shares)
def test_bootstrap_intervals_stay_among_the_values_and_repeat(values: list[float]) -> None:
    low, high = bootstrap_ci(values, resamples=300)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_ci(values, resamples=300) == (low, high)  # same seed, same interval


def test_bootstrap_agrees_with_the_normal_interval_on_many_problems() -> None:
    values = np.random.default_rng(1).random(2000)
    low, high = bootstrap_ci(values)
    half = 1.96 * standard_error(values)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_bootstrap_and_wilson_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held_bootstrap = held_wilson = 0
    for trial in range(300):
        rates = rng.beta(0.6, 1.2, size=120)  # true mean 1/3
        low, high = bootstrap_ci(rng.binomial(8, rates) / 8, seed=trial, resamples=500)
        held_bootstrap += low <= 1 / 3 <= high
        low, high = wilson_ci(int(rng.binomial(40, 0.1)), 40)
        held_wilson += low <= 0.1 <= high
    assert 0.90 <= held_bootstrap / 300 <= 0.985
    assert 0.90 <= held_wilson / 300 <= 0.995


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_never_certain_and_mirrors_failures(pair: tuple[int, int]) -> None:
    successes, n = pair
    low, high = wilson_ci(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0 and low < high
    mirrored = wilson_ci(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert wilson_ci(successes, n, level=0.5)[0] >= low


def test_wilson_gives_the_textbook_interval() -> None:
    assert wilson_ci(8, 10) == pytest.approx((0.4901, 0.9433), abs=1e-4)
    assert wilson_ci(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_a_set_never_solved_or_evenly_solved_does_not_get_a_certain_interval() -> None:
    assert bootstrap_ci([0.0] * 20) == (0.0, 0.0)
    assert mean_ci([0.0] * 20)[1] > 0.1
    assert mean_ci([1.0] * 20)[0] < 0.9
    assert mean_ci([0.25] * 20) == wilson_ci(5, 20)
    assert mean_ci([0.25])[1] - mean_ci([0.25])[0] > 0.7
    assert mean_ci([0.1] * 20 + [0.2])[1] < 0.12


@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [[0.1]]])
def test_statistics_refuse_what_is_no_list_of_numbers(bad: list[float]) -> None:
    for function in (bootstrap_ci, standard_error, mean_ci):
        with pytest.raises(ValueError):
            function(bad)


# --- paired differences ---


def test_paired_difference_sees_a_gain_that_unpaired_intervals_hide() -> None:
    rng = np.random.default_rng(3)
    before = rng.random(80)
    after = before + 0.05 + rng.normal(0, 0.02, 80)
    result = paired_difference(before, after)
    assert result.difference == pytest.approx(0.05, abs=0.01)
    assert result.ci95[0] > 0.04 and result.p_value < 0.001
    assert bootstrap_ci(before)[1] > bootstrap_ci(after)[0]


def test_paired_difference_of_equal_results_is_no_evidence() -> None:
    result = paired_difference([0.5, 0.25], [0.5, 0.25])
    assert (result.difference, result.ci95, result.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_sign_flips_are_enumerated_for_few_problems() -> None:
    assert paired_difference([0, 0, 0], [1, 1, 1]).p_value == 2 / 8  # all up or all down, of 8 flips
    assert paired_difference([0, 0, 0], [1, 1, -1]).p_value == 1.0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_paired_difference_turns_its_sign_with_its_arguments(pairs: list[tuple[float, float]]) -> None:
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    forth = paired_difference(a, b, resamples=200, permutations=500)
    back = paired_difference(b, a, resamples=200, permutations=500)
    assert forth.difference == pytest.approx(-back.difference)
    assert forth.p_value == pytest.approx(back.p_value)
    assert 0 < forth.p_value <= 1


def test_paired_difference_refuses_different_lengths() -> None:
    with pytest.raises(ValueError, match="2 values against 1"):
        paired_difference([0.1, 0.2], [0.1])


# --- difficulty ---


def test_difficulties_run_from_easy_to_hard() -> None:
    assert sorted(["10", "2", "1"], key=difficulty_key) == ["1", "2", "10"]
    assert sorted(["hard", "easy", "Medium", "very hard"], key=difficulty_key) == [
        "easy",
        "Medium",
        "hard",
        "very hard",
    ]
    assert sorted(["div2-c", "", "div2-a", "3"], key=difficulty_key) == ["3", "div2-a", "div2-c", ""]
    assert by_difficulty(["2", "10", "2"], [1, 2, 3]) == {"2": [1, 3], "10": [2]}


# --- results files ---


def sampled(problem: str, verdicts: str, difficulty: str = "1", greedy: str | None = None) -> list[SampleRecord]:
    """Records of one problem: verdicts as a text like "AC WA AC"."""
    records = [
        SampleRecord(problem_id=problem, sample=i, verdict=v, difficulty=difficulty, completion_tokens=10, tests=3)
        for i, v in enumerate(verdicts.split())
    ]
    if greedy:
        records.append(SampleRecord(problem_id=problem, greedy=True, verdict=greedy, difficulty=difficulty))
    return records


def two_levels() -> list[SampleRecord]:
    return [
        *sampled("p1", "AC AC WA AC", "1", greedy="AC"),
        *sampled("p2", "WA WA AC RE", "2", greedy="WA"),
        *sampled("p3", "WA WA WA WA", "2", greedy="WA"),
    ]


def built(records: list[SampleRecord], **options: object) -> Results:
    return build_results({"heldout": records}, **options)  # type: ignore[arg-type]


def test_results_hold_rates_by_difficulty_and_verdict_shares() -> None:
    metrics = built(two_levels(), ks=[1, 2]).results["heldout"]
    assert metrics.pass_at[1].value == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert metrics.pass_at[2].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics.greedy is not None and metrics.greedy.value == pytest.approx(1 / 3)
    assert list(metrics.by_difficulty) == ["1", "2"]
    assert metrics.by_difficulty["2"].pass_at[1].value == pytest.approx(1 / 8)
    assert metrics.verdicts == pytest.approx({"WA": 7 / 12, "AC": 4 / 12, "RE": 1 / 12})


def test_a_judge_failure_is_no_wrong_answer() -> None:
    metrics = built(sampled("p1", "AC IE IE AC")).results["heldout"]
    assert metrics.pass_at[1].value == 1.0
    assert metrics.infrastructure_errors == 2
    assert "IE" not in metrics.verdicts


def test_a_problem_with_too_few_graded_samples_is_left_out_of_pass_at_k_only() -> None:
    metrics = built(sampled("p1", "AC WA WA WA") + sampled("p2", "AC IE IE IE"), ks=[1, 4]).results["heldout"]
    assert metrics.pass_at[1].value == pytest.approx((0.25 + 1) / 2)
    assert metrics.pass_at[4].value == 1.0
    assert metrics.problems == 2


def test_asking_for_more_than_was_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match=r"suite 'heldout': pass@k for k=\[8\] needs 1 <= k <= 4"):
        built(sampled("p1", "AC WA WA WA"), ks=[8])
    with pytest.raises(ValueError, match="no graded sample"):
        built(sampled("p1", "IE IE"))


def test_results_survive_the_file_and_have_the_documented_keys(tmp_path: Path) -> None:
    results = built(two_levels(), checkpoint="checkpoint-80", config={"temperature": 1.0}, cost=Cost(tokens=9))
    path = write_results(results, tmp_path / "deep" / "heldout")
    assert read_results(path) == results == read_results(path.parent)
    body = json.loads(path.read_text())
    assert {
        "results",
        "n_samples",
        "n_problems",
        "config",
        "versions",
        "git_revision",
        "date",
        "checkpoint",
        "cost",
    } <= set(body)
    flat = body["results"]["heldout"]
    assert {"pass@1", "pass@1_stderr", "pass@1_ci95", "greedy", "greedy_ci95", "by_difficulty", "verdicts"} <= set(flat)
    assert body["n_samples"] == 4 and body["n_problems"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]  # no temporary file left


def test_samples_survive_the_file(tmp_path: Path) -> None:
    records = two_levels()
    path = write_samples(records, tmp_path)
    assert path.name == "samples.jsonl" and read_samples(tmp_path) == records


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_samples(two_levels(), tmp_path)
    before = (tmp_path / "samples.jsonl").read_bytes()

    def dying():  # type: ignore[no-untyped-def]
        yield two_levels()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(dying(), tmp_path)
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["samples.jsonl"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("{", "results.json:1: not JSON"),
        ("[]", "key 'results'"),
        ('{"results": {"s": {}}}', "suite 's': key 'problems'"),
        ('{"results": {"s": {"problems": 1, "pass@1": 0.5}}}', "'pass@1_ci95' must be"),
        ('{"results": {"s": {"problems": 1, "pass@1": "x"}}}', "'pass@1' must be a number"),
        ('{"results": {}, "n_samples": "many", "n_problems": 0}', "key 'n_samples'"),
    ],
)
def test_a_bad_results_file_is_named_with_its_key_in_one_line(tmp_path: Path, body: str, named: str) -> None:
    (tmp_path / "results.json").write_text(body)
    with pytest.raises(ValueError) as caught:
        read_results(tmp_path)
    assert named in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_sample_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = write_samples(two_levels(), tmp_path)
    with path.open("a") as file:
        file.write('{"problem_id": "p9", "verdict": "MAYBE"}\n')
    with pytest.raises(ValueError, match=r"samples\.jsonl:16: key 'verdict'"):
        read_samples(path)
    with pytest.raises(FileNotFoundError, match="no such samples file"):
        read_samples(tmp_path / "elsewhere")


def test_comparison_pairs_problems_and_counts_those_it_cannot() -> None:
    before = built(two_levels() + sampled("old", "AC AC AC AC"), checkpoint="a", ks=[1])
    after = built(
        [
            *sampled("p3", "AC AC WA WA", "2", greedy="AC"),
            *sampled("p2", "AC WA AC RE", "2", greedy="WA"),
            *sampled("p1", "AC AC AC AC", "1", greedy="AC"),
        ],
        checkpoint="b",
        ks=[1],
    )
    comparison = compare(before, after)
    assert (comparison.problems, comparison.only_a, comparison.only_b) == (3, 1, 0)
    gain = comparison.differences["all"]["pass@1"]
    assert gain.difference == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)
    assert list(comparison.differences) == ["all", "1", "2"]
    assert comparison.differences["2"]["greedy"].difference == 0.5
    assert "a -> b, 3 problems" in str(comparison) and "1 problems only in the first" in str(comparison)


def test_a_comparison_across_versions_of_the_judge_says_so() -> None:
    old, new = (built(two_levels(), config={"grader": version}) for version in ("0.1.0+a", "0.2.0+b"))
    assert "graded by different judges (0.1.0+a, 0.2.0+b): --regrade" in str(compare(old, new))
    assert "different judges" not in str(compare(new, new))


def test_results_without_common_problems_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no problem in common"):
        compare(built(sampled("p1", "AC")), built(sampled("p2", "AC")))
    with pytest.raises(ValueError, match="other"):
        compare(built(sampled("p1", "AC")), build_results({"other": sampled("p1", "AC")}))


def test_evaluation_and_report_import_no_torch() -> None:
    check = "import sys, rlvr.evaluation, rlvr.report; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "set()"


# --- several comparisons at once ---


def test_holm_gives_the_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_only_raises_and_keeps_the_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(before <= after <= min(1.0, before * len(values)) + 1e-12
               for before, after in zip(values, adjusted, strict=True))  # fmt: skip
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_holm_keeps_false_alarms_of_many_comparisons_at_their_level() -> None:
    rng = np.random.default_rng(4)
    false_alarms = plain = 0
    for _ in range(300):
        values = list(rng.random(20))
        plain += min(values) < 0.05
        false_alarms += min(holm(values)) < 0.05
    assert plain > 150 and false_alarms <= 30


def test_comparisons_are_adjusted_together() -> None:
    rng = np.random.default_rng(0)

    def checkpoint(shift: float) -> Results:
        return built([
            record
            for i in range(60)
            for record in sampled(f"p{i}", " ".join("AC" if rng.random() < 0.4 + shift else "WA" for _ in range(4)))
        ], ks=[1])  # fmt: skip

    base, better, same = checkpoint(0), checkpoint(0.3), checkpoint(0)
    together = adjust([compare(base, better), compare(base, same)])
    for comparison in together:
        assert comparison.adjusted["all"]["pass@1"] >= comparison.differences["all"]["pass@1"].p_value
    assert "real at 5%" in str(together[0]) and "real at 5%" not in str(together[1])


# --- what else a results file says ---


def test_rates_by_month_and_tag_and_an_estimated_rating() -> None:
    records = [
        SampleRecord(problem_id=p, sample=i, verdict=v, tags=tags, rating=rating, date=date, repetitive=i == 0)
        for p, verdicts, tags, rating, date in (
            ("p1", "AC AC", ["dp", "math"], 1200, "2025-03-09"),
            ("p2", "AC WA", ["dp"], 1600, "2025-03-30"),
            ("p3", "WA WA", [], 2400, "2025-04-01"),
        )
        for i, v in enumerate(verdicts.split())
    ]
    results = built(records, ks=[1])
    metrics = results.results["heldout"]
    assert {name: part.pass_at_1.value for name, part in metrics.by_month.items()} == {"2025-03": 0.75, "2025-04": 0.0}
    assert [(name, part.problems) for name, part in metrics.by_tag.items()] == [("dp", 2), ("math", 1)]
    assert metrics.estimated_rating is not None and metrics.estimated_rating.problems == 3
    assert metrics.estimated_rating.ci95[0] < 1600 < metrics.estimated_rating.ci95[1]
    assert metrics.repetition_rate == 0.5
    flat = results.to_json()["results"]["heldout"]
    assert SuiteMetrics.from_json(json.loads(json.dumps(flat)), "here") == metrics


def test_duplicate_samples_and_mixed_graders_are_refused() -> None:
    with pytest.raises(ValueError, match="sample 0 of problem 'p1' stands 2 times"):
        built(sampled("p1", "AC") + sampled("p1", "WA"))
    mixed = [record.model_copy(update={"grader": str(record.sample)}) for record in sampled("p1", "AC WA")]
    with pytest.raises(ValueError, match=r"different graders \(0, 1\)"):
        built(mixed)


# --- degenerate text ---


def test_loops_are_seen_and_plain_texts_are_not() -> None:
    prose = " ".join(f"word{i} stands {i * i} times" for i in range(200))
    assert not is_repetitive(prose)
    assert is_repetitive("Wait, let me check the case again. " * 60)
    assert is_repetitive(prose + " Hmm, maybe try n equal to two." * 200)  # a loop only at the end
    assert is_repetitive("让我再检查一下这个情况" * 60)
    assert not is_repetitive("x = 1\n" * 5)  # too short to judge


def test_languages_mix_outside_code_only() -> None:
    english = "First we sort the array and then we take the largest element. " * 5
    assert not mixes_languages(english)
    assert mixes_languages(english + "然后我们取最大的元素并输出答案即可完成")
    assert not mixes_languages(english + "\n```python\n# 然后我们取最大的元素并输出答案即可\nx = 1\n```\n")
    assert not mixes_languages(english + " αβγδεζηθικλμ λμ ≤ ∑")
    assert mixes_languages(english + "теперь отсортируем массив по убыванию")
