"""What a run publishes: the data set with prompts and tests, its card, and rows for other trainers; all read back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from data_curation import CurationConfig, Problem, RowError, Solution, Test, curate, load_problems
from data_curation.config import OutputOptions
from data_curation.dataset import write_dataset
from data_curation.exports import FORMATS, export_rows, write_export
from data_curation.sources.calls import PREAMBLE, call_test, target
from data_curation.storage import replace_with

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
PLAIN = Problem(
    id="sum",
    statement="Add two numbers {given}.",
    tests=[Test(input="1 2\n", output="3\n", sample=True), Test(input="3 4\n", output="7\n")],
    solutions=[Solution(code=ADD)],
    cpu_s=1.5,
    memory_mb=64,
    source="apps",
    license="MIT",
    rating=800,
)
CALLED = PLAIN.model_copy(
    update={
        "id": "join",
        "preamble": PREAMBLE,
        "starter_code": "class Solution:\n    def join(self, values, last):\n",
        "tests": [call_test(target("join"), [[1, "b"], None], [[1, "b", None]])],
        "checker": "floats:1e-9",
    }
)
LARGE = PLAIN.model_copy(update={"id": "large", "tests": [Test(input="1 " * 2000, output="x")]})
OWN_CHECKER = PLAIN.model_copy(update={"id": "checked", "checker": "python:import sys; sys.exit(0)"})
FILES = PLAIN.model_copy(update={"id": "files", "input_file": "a.in", "output_file": "a.out"})
PROBLEMS = [PLAIN, CALLED, LARGE, OWN_CHECKER, FILES]


def bare(problem: Problem) -> Problem:
    return problem.model_copy(update={"solutions": [], "generator": None})


def test_the_data_set_reads_back_with_small_tests_inside_and_large_ones_beside(tmp_path):
    options = OutputOptions(inline_tests_kb=1, system="Be brief.")
    write_dataset(tmp_path / "set", {"train": PROBLEMS, "test": []}, options, "card")
    (name,) = (path.name for path in (tmp_path / "set/tests").iterdir())
    assert name == f"{LARGE.fingerprint}.parquet"
    rows = pq.read_table(tmp_path / "set/data/train-00000-of-00001.parquet").to_pylist()
    assert [row["tests_file"] for row in rows] == ["", "", f"tests/{name}", "", ""]
    assert rows[0]["prompt"][0] == {"role": "system", "content": "Be brief."}
    assert "Add two numbers {given}." in rows[0]["prompt"][1]["content"]
    assert "```python\nclass Solution:\n    def join(self, values, last):\n```" in rows[1]["prompt"][1]["content"]
    assert "solutions" not in rows[0]
    expected = [bare(problem) for problem in PROBLEMS]
    assert load_problems(f"dataset:{tmp_path / 'set'}") == expected
    assert load_problems(f"dataset:{tmp_path / 'set/data/train-00000-of-00001.parquet'}") == expected
    with pytest.raises(ValueError, match="no data files of test there"):
        load_problems(f"dataset:{tmp_path / 'set'}@test")


def test_changed_or_absent_tests_are_noticed(tmp_path):
    write_dataset(tmp_path / "set", {"train": [LARGE]}, OutputOptions(inline_tests_kb=1), "card")
    (path,) = (tmp_path / "set/tests").iterdir()
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(RowError, match="its fingerprint is not that of its statement and tests"):
        load_problems(f"dataset:{tmp_path / 'set'}")
    path.unlink()
    with pytest.raises(RowError, match=r"its tests are in tests/.*, which is not beside the data"):
        load_problems(f"dataset:{tmp_path / 'set'}")


def test_a_new_data_set_replaces_the_old_one_whole(tmp_path):
    write_dataset(tmp_path / "set", {"train": PROBLEMS}, OutputOptions(inline_tests_kb=1), "card")
    write_dataset(tmp_path / "set", {"train": [PLAIN]}, OutputOptions(), "card")
    assert sorted(p.name for p in (tmp_path / "set").rglob("*")) == [
        "README.md",
        "data",
        "train-00000-of-00001.parquet",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curated")
    rows = [
        {**PLAIN.model_dump(mode="json"), "id": f"p{n}", "statement": f"Add two numbers, {word} style, and say so."}
        for n, word in enumerate(("plain", "fancy"))
    ]
    source = folder / "problems.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "no tests", "statement": "s"}]))
    config = CurationConfig.model_validate(
        {
            "name": "two-sums",
            "sources": [str(source)],
            "filter": {"samples_in_statement": False},
            "deduplicate": {"candidate_jaccard": 1.0, "text_jaccard": 1.0},
            "split": {"heldout": 0.0},
            "outputs": {"exports": ["trl", "verl", "skyrl"]},
        }
    )
    curate(config, folder / "out", show_progress=False)
    return config, folder / "out"


def test_the_card_names_splits_licences_and_that_nothing_was_decontaminated(curated):
    _, out = curated
    text = (out / "dataset/README.md").read_text()
    matter = yaml.safe_load(text.split("---\n")[1])
    assert matter["license"] == "mit"
    assert matter["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-*"}
    assert "**Not checked against any evaluation set.**" in text and "| MIT |" in text


def test_two_runs_publish_the_same_bytes(curated, tmp_path):
    config, out = curated
    curate(config, tmp_path / "again", show_progress=False)
    for name in ("dataset", "exports"):
        files = sorted(path.relative_to(out) for path in (out / name).rglob("*") if path.is_file())
        assert files
        for path in files:
            assert (out / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path


def test_the_published_folder_loads_with_the_datasets_library(curated):
    _, out = curated
    code = (
        f"import datasets; found = datasets.load_dataset({str(out / 'dataset')!r}); print(sorted(found));"
        "row = found['train'][0]; print(row['prompt'][0]['role'], row['tests'][0]['output'].strip())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "home"), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert found.stdout == "['train']\nuser 3\n", found.stderr


def test_a_side_without_problems_has_no_export(curated):
    _, out = curated
    assert sorted(path.relative_to(out / "exports").as_posix() for path in out.glob("exports/*/*")) == [
        "skyrl/train.parquet",
        "trl/train.parquet",
        "verl/train.parquet",
    ]


def read_back(layout: str, path: Path) -> list[Problem]:
    return load_problems(f"{'skywork' if layout == 'verl' else layout}:{path}")


@pytest.mark.parametrize("layout", FORMATS)
def test_whole_problems_make_the_round_trip(tmp_path, layout):
    export = write_export(layout, PROBLEMS, tmp_path / "rows.parquet", OutputOptions(), own_reward=True)
    assert (export.rows, export.left_out) == (len(PROBLEMS), [])
    assert read_back(layout, tmp_path / "rows.parquet") == [bare(problem) for problem in PROBLEMS]


@pytest.mark.parametrize("layout", ["verl", "skyrl"])
def test_plain_rows_hold_what_the_trainers_own_rewards_read(tmp_path, layout):
    path = tmp_path / "rows.parquet"
    export = write_export(layout, PROBLEMS, path, OutputOptions(), split="test")
    assert dict(export.left_out) == {"checked": "its checker is python", "files": "its programs read and write files"}
    assert str(export).splitlines() == [
        f"{path}: 3 rows",
        "1 left out: its checker is python",
        "1 left out: its programs read and write files",
    ]
    found = read_back(layout, path)
    assert [[(test.input, test.output) for test in problem.tests] for problem in found] == [
        [(test.input, test.output) for test in problem.tests] for problem in (PLAIN, CALLED, LARGE)
    ]
    rows = pq.read_table(path).to_pylist()
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2]
    assert rows[0]["extra_info"]["cpu_s"] == 1.5 and rows[0]["extra_info"]["split"] == "test"
    assert rows[0]["prompt"][0]["role"] == "user"


def test_verl_rows_name_a_data_source_that_verl_runs_code_for(tmp_path):
    write_export("verl", [PLAIN, CALLED], tmp_path / "rows.parquet", OutputOptions())
    first, second = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert (first["data_source"], first["ability"], first["reward_model"]["style"]) == ("apps", "code", "rule")
    assert json.loads(first["reward_model"]["ground_truth"]) == {
        "inputs": ["1 2\n", "3 4\n"],
        "outputs": ["3\n", "7\n"],
    }
    assert json.loads(second["reward_model"]["ground_truth"]) == {
        "inputs": ['[1, "b"]\nnull'],
        "outputs": ['[[1, "b", null]]'],
        "fn_name": "join",
    }


def test_skyrl_rows_name_their_environment_and_kind_of_test(tmp_path):
    write_export("skyrl", [CALLED], tmp_path / "rows.parquet", OutputOptions())
    (row,) = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert (row["env_class"], row["reward_spec"]["method"]) == ("lcb", "rule")
    (case,) = json.loads(row["reward_spec"]["ground_truth"])
    assert (case["testtype"], case["metadata"]) == ("functional", {"func_name": "join"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tests": []}, "it has no tests"),
        ({"interactor": "python:pass"}, "it is interactive"),
        ({"tests": [Test(call="len(f(1))", output="1")]}, "its calls are more than a function on JSON arguments"),
        ({"tests": [Test(input="[1]", call="f(*args)", output='{"__set__": [1]}')]}, "its values are sets"),
        ({"tests": CALLED.tests, "preamble": "class Node: pass"}, "its programs need definitions that are given"),
    ],
)
def test_what_other_harnesses_would_judge_wrongly_is_left_out(tmp_path, change, reason):
    export = export_rows("verl", [PLAIN.model_copy(update=change)], tmp_path / "rows.parquet", OutputOptions())
    assert export.rows == 0 and export.left_out[0][1].startswith(reason)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_with_the_file_that_was_to_be_written_which_stays_as_it_was(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="No space left on device") as caught:
        replace_with(lambda _: Path("/dev/full").write_bytes(b"x" * 10_000), path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
