"""The whole pipeline: planted faults, files, equal bytes, continuing after interruption, recipes."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data_curation import (
    ConfigError,
    CurationConfig,
    CurationResult,
    builtin,
    curate,
    load_config,
    load_problems,
    save_problems,
)
from data_curation.builtin.planted import EXPECTED, kind_of, planted_problems
from data_curation.pipeline import STAGES, NothingLeft
from data_curation.steps import DONE

REPOSITORY = Path(__file__).parents[2]
REAL_MBPP = REPOSITORY.parent / "shared" / "data" / "mbpp.jsonl.gz"
DATA = ("train.parquet", "heldout.parquet", "sft.parquet", "dropped.parquet", "verification.parquet", "funnel.json")
SMALL = {
    "pipelines": {"stage1": 30, "stage2": 20, "heldout": 12, "heldout_hard": 3},
    "sft": {"demonstrations": 200},
    "generate": {"enabled": False},
    "verify": {"too_slow": False},
}


def recipe(**changes) -> CurationConfig:
    return CurationConfig.model_validate({**SMALL, "sources": ["builtin:pipelines"], **changes})


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> CurationResult:
    """A raw set like the built-in one, only smaller: some contest problems, few pipelines, and faults of every kind."""
    folder = tmp_path_factory.mktemp("raw")
    contest = builtin.contest_problems()[::5]
    pool = builtin.pipeline_pool(recipe().pipelines, recipe().sft)
    save_problems([*contest, *pool, *planted_problems(contest, pool)], folder / "raw.parquet")
    return curate(recipe(sources=[str(folder / "raw.parquet")]), folder, show_progress=False)


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> CurationResult:
    return curate(recipe(), tmp_path_factory.mktemp("clean"), show_progress=False)


def stage_folder(out: Path, name: str) -> Path:
    number = [stage for stage, _ in STAGES].index(name) + 1
    return out / "stages" / f"{number}-{name}"


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in DATA}


def test_every_planted_fault_is_found_by_its_stage_and_for_its_reason(raw):
    dropped = {d.id: (stage, d.reason) for stage, d in raw.dropped}
    loaded = [p.id for p in load_problems(raw.out / "stages" / "0-load" / "problems.parquet")]
    planted = [name for name in loaded if kind_of(name)]
    assert {kind_of(name) for name in planted} == set(EXPECTED)
    for name in planted:
        stage, reason = EXPECTED[kind_of(name) or ""]
        assert dropped[name][0] == stage, name
        assert dropped[name][1].startswith(reason), name


def test_nothing_but_the_planted_faults_is_dropped(raw):
    assert [d for _, d in raw.dropped if not kind_of(d.id)] == []


def test_duplicates_name_the_problem_that_stands_for_them(raw):
    kept = {p.id for p in (*raw.train, *raw.heldout)}
    for _, dropped in raw.dropped:
        if kind_of(dropped.id) in ("copy", "near"):
            assert dropped.kept_instead in kept
            assert dropped.id.endswith(dropped.kept_instead)


def test_kept_problems_gain_nothing_from_planted_copies(raw):
    originals = {p.id: p for p in load_problems(stage_folder(raw.out, "normalise") / "problems.parquet")}
    for problem in (*raw.train, *raw.heldout):
        assert problem.tests == originals[problem.id].tests
        assert problem.solutions == originals[problem.id].solutions


def test_every_problem_left_is_verified_and_graded(raw):
    rows = {row["id"]: row for row in pq.read_table(raw.out / "verification.parquet").to_pylist()}
    for problem in (*raw.train, *raw.heldout):
        assert rows[problem.id]["accepted"] == rows[problem.id]["accepted_passed"] > 0
        assert problem.difficulty in {*"12345678", *(f"depth {n}" for n in range(1, 5))}


def test_the_pools_arrive_whole_and_on_their_side(clean):
    def count(side, tag):
        return sum(tag in p.tags for p in side)

    assert (count(clean.train, "stage1"), count(clean.train, "stage2"), len(clean.train)) == (30, 20, 50)
    assert (count(clean.heldout, "heldout"), count(clean.heldout, "hard"), len(clean.heldout)) == (15, 3, 15)
    assert not {p.family for p in clean.train} & {p.family for p in clean.heldout}


def test_the_sft_corpus_shares_no_statement_with_the_pools_and_no_family_with_held_out(clean):
    rows = pq.read_table(clean.out / "sft.parquet").to_pylist()
    assert len(rows) == 200
    assert list(rows[0]) == ["problem_id", "prompt", "completion", "family", "passes"]
    assert all(row["prompt"].endswith("\n# program\n") and row["completion"].startswith("n=int") for row in rows)
    funnel = json.loads((clean.out / "funnel.json").read_text())
    shared = {key: value for key, value in funnel["sft"].items() if "shared" in key}
    assert len(shared) == 3 and not any(shared.values())


def test_the_funnel_adds_up(raw):
    funnel = json.loads((raw.out / "funnel.json").read_text())
    stages = funnel["stages"]
    assert stages[0]["stage"] == "load"
    for before, after in itertools.pairwise(stages):
        assert after["in"] == before["out"]
    for stage in stages:
        assert stage["in"] - stage["dropped"] == stage["out"]
        assert sum(stage["reasons"].values()) == stage["dropped"]
    assert stages[-1]["out"] == sum(funnel["problems"][side]["count"] for side in ("train", "heldout"))
    assert pq.read_table(raw.out / "dropped.parquet").num_rows == sum(stage["dropped"] for stage in stages)


def test_the_report_is_one_page_without_outside_references(raw):
    page = (raw.out / "report.html").read_text()
    assert "planted-copy-" in page and "Tests that let a wrong solution through" in page
    assert "<script" not in page and "http" not in page.split("<h2>Recipe</h2>")[0]


def test_the_recipe_and_environment_lie_beside_the_output(clean):
    assert load_config(clean.out / "config.resolved.yaml") == recipe()
    environment = json.loads((clean.out / "environment.json").read_text())
    assert set(environment["data_sha256"]) == {name for name in DATA if name.endswith(".parquet")} - {
        "verification.parquet"
    }
    assert environment["seconds"].keys() >= {"load", "verify"}


def test_two_runs_give_the_same_bytes(clean, tmp_path):
    curate(recipe(), tmp_path, show_progress=False)
    assert contents(tmp_path) == contents(clean.out)


def test_another_seed_gives_other_problems(clean, tmp_path):
    other = curate(recipe(seed=1), tmp_path, show_progress=False)
    assert len(other.train) == len(clean.train)
    assert not {p.id for p in other.heldout} & {p.id for p in clean.heldout}


def test_finished_stages_are_not_run_again(clean):
    before = contents(clean.out)
    again = curate(recipe(), clean.out, show_progress=False)
    assert all(step.reused for step in again.steps)
    assert contents(clean.out) == before


def test_a_changed_option_runs_its_stage_and_only_what_depends_on_it(tmp_path):
    few = {"sources": ["builtin:pipelines"], "pipelines": {"stage1": 6, "stage2": 0, "heldout": 3, "heldout_hard": 0}}
    curate(recipe(**few), tmp_path, show_progress=False)
    changed = curate(recipe(**few, split={"heldout": 0.5}), tmp_path, show_progress=False)
    assert {step.name for step in changed.steps if not step.reused} == {"split"}
    with pytest.raises(NothingLeft, match="removed by filter: 9 too few tests") as stop:
        curate(recipe(**few, filter={"minimum_tests": 11}), tmp_path, show_progress=False)
    assert [step.name for step in stop.value.steps if step.reused] == ["load", "normalise"]


def test_a_damaged_stage_is_run_again(clean, tmp_path):
    few = {"pipelines": {"stage1": 6, "stage2": 0, "heldout": 3, "heldout_hard": 0}}
    first = curate(recipe(**few), tmp_path, show_progress=False)
    before = contents(tmp_path)
    (stage_folder(tmp_path, "verify") / "problems.parquet").write_bytes(b"cut")
    (stage_folder(tmp_path, "difficulty") / DONE).write_text("{")
    again = curate(recipe(**few), tmp_path, show_progress=False)
    assert {step.name for step in again.steps if not step.reused} == {"verify", "difficulty"}
    assert again.train == first.train and contents(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_stopped_in_the_middle_continues_and_ends_the_same(clean, tmp_path, number):
    (tmp_path / "recipe.yaml").write_text((clean.out / "config.resolved.yaml").read_text())
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"  # also in a background job
        "from data_curation import curate, load_config;"
        "curate(load_config(sys.argv[1]), sys.argv[2], show_progress=False)"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    journal = stage_folder(out, "verify") / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.002)
    process.send_signal(number)
    assert process.wait() != 0
    assert not (out / "train.parquet").exists()
    assert not list(out.rglob("*.part")) or number == signal.SIGKILL
    continued = curate(recipe(), out, show_progress=False)
    assert {step.name for step in continued.steps if step.reused} >= {"load", "normalise", "filter"}
    assert not list(out.rglob("*.part"))
    assert contents(out) == contents(clean.out)


def test_rows_that_cannot_be_read_are_dropped_with_their_place_or_stop_the_run(tmp_path):
    good = {"id": "a", "statement": "Say hello to all of them.", "tests": [{"output": "hello"}]}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(good) + "\n{broken\n")
    result = curate(recipe(sources=[str(path)]), tmp_path / "out", show_progress=False)
    assert [(stage, d.id, d.reason) for stage, d in result.dropped] == [("load", "p.jsonl row 2", "row not readable")]
    with pytest.raises(ValueError, match=r"maximum_rejected_rows \(0\); the first: .*row 2: not JSON"):
        curate(recipe(sources=[str(path)], maximum_rejected_rows=0), tmp_path / "none", show_progress=False)


def test_changed_source_files_are_read_again(tmp_path):
    path = tmp_path / "p.jsonl"
    row = {"id": "a", "statement": "Say hello to all of them.", "tests": [{"output": "hello"}]}
    path.write_text(json.dumps(row) + "\n")
    curate(recipe(sources=[str(path)]), tmp_path / "out", show_progress=False)
    path.write_text(json.dumps({**row, "id": "b"}) + "\n")
    result = curate(recipe(sources=[str(path)]), tmp_path / "out", show_progress=False)
    assert [p.id for p in (*result.train, *result.heldout)] == ["b"]


@pytest.mark.slow
def test_of_the_whole_built_in_set_only_the_planted_faults_are_dropped(tmp_path):
    result = curate(recipe(sources=["builtin"]), tmp_path, show_progress=False)
    loaded = load_problems(tmp_path / "stages" / "0-load" / "problems.parquet")
    assert {d.id for _, d in result.dropped} == {p.id for p in loaded if kind_of(p.id)}


@pytest.mark.slow
@pytest.mark.skipif(not REAL_MBPP.exists(), reason=f"{REAL_MBPP.name} is not at hand")
def test_mbpp_references_pass_their_tests(tmp_path):
    config = load_config(REPOSITORY / "configs/curation/mbpp.yaml", sources=[f"mbpp:{REAL_MBPP}"])
    result = curate(config, tmp_path, show_progress=False)
    figures = next(step.figures for step in result.steps if step.name == "verify")
    assert figures["true-positive rate"] > 0.99
    assert len(result.train) + len(result.heldout) > 900
    names = {problem.id for problem in (*result.train, *result.heldout)}
    assert {"mbpp-367", "mbpp-927"} <= names


@pytest.mark.parametrize("name", ["builtin", "contests", "mbpp"])
def test_shipped_recipes_are_valid(name):
    assert load_config(REPOSITORY / f"configs/curation/{name}.yaml").name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: 1", "unknown key `sead`; did you mean `seed`?"),
        ("verify: {languages: [cobol]}", "`verify.languages`: value error, unknown language 'cobol': known are c, cpp"),
        ("filter: {minimum_test: 3}", "unknown key `filter.minimum_test`; did you mean `minimum_tests`?"),
        ("split: {heldout: 2}", "`split.heldout`: input should be less than or equal to 1, got 2"),
        ("sources: []", "`sources`"),
        ("pipelines: {stage1_depths: [-1]}", "`pipelines.stage1_depths.0`"),
        ("- a", "expected keys and values, got list"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_recipe_is_one_line_with_file_and_key(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_refuses_unknown_keys_in_code_too():
    with pytest.raises(ValidationError):
        CurationConfig.model_validate({"sorces": ["builtin"]})
