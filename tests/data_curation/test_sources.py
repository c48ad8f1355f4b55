"""Reading and writing problems: round trips, streaming, and one clear line for every bad row."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation import Problem, RejectedRows, RowError, Solution, Test, iter_problems, load_problems, save_problems
from data_curation.schema import Generator

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
problems = st.builds(
    Problem,
    id=st.uuids().map(str),
    title=text,
    statement=text,
    tests=st.lists(
        st.builds(Test, input=text, output=text, call=st.none() | text, weight=st.floats(0, 9), sample=st.booleans()),
        max_size=2,
    ),
    generator=st.none() | st.builds(Generator, code=text, arguments=st.lists(text, max_size=2)),
    solutions=st.lists(
        st.builds(Solution, code=text, verdict=st.sampled_from(["accepted", "wrong_answer"])), max_size=2
    ),
    rating=st.none() | st.floats(0, 4000),
    tags=st.lists(text, max_size=2),
    date=st.none() | st.dates(),
)

GOOD = {"id": "a", "statement": "Add two numbers.", "tests": [{"input": "1 2", "output": "3"}]}


def write_rows(path: Path, rows: list) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize("name", ["p.parquet", "p.jsonl", "p.jsonl.gz"])
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(problems, max_size=4))
def test_what_is_saved_is_what_is_loaded(name, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / name
    save_problems(rows, path)
    assert load_problems(path) == rows
    first = path.read_bytes()
    save_problems(rows, path)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "p.parquet"
    save_problems([Problem(id="a", statement="s")], path)
    before = path.read_bytes()

    def broken():
        yield Problem(id="b", statement="s")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        save_problems(broken(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_file_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="saved as"):
        save_problems([], tmp_path / "p.csv")


def test_a_yaml_folder_is_read_in_the_order_of_names(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.yaml").write_text(f"id: {name}\nstatement: Say hello to all.\ntests: []\n")
    assert [problem.id for problem in load_problems(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "statement": "s"}, "row 2: no tests: give `tests`"),
        (
            {"id": "a", "statement": "s", "tests": [], "solutoins": []},
            "row 2: unknown key `solutoins`; did you mean `solutions`",
        ),
        ({"id": "a", "tests": []}, "row 2: `statement` is missing"),
        ({"id": 3, "statement": "s", "tests": []}, "row 2: `id`: input should be a valid string, got 3"),
        ({"id": "a", "statement": "s", "tests": [{"input": 4}]}, "row 2: `tests.0.input`: "),
        ([1], "row 2: expected an object"),
        ("{not json", "row 2: not JSON: "),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_reason(tmp_path, row, message):
    path = write_rows(tmp_path / "p.jsonl", [GOOD, row, GOOD])
    with pytest.raises(RowError) as caught:
        load_problems(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_rows_can_be_passed_over_and_are_reported(tmp_path):
    path = write_rows(tmp_path / "p.jsonl", [GOOD, "{", GOOD, {"id": "b", "statement": "s"}])
    rejected = RejectedRows()
    assert len(load_problems(path, rejected=rejected)) == 2
    assert [error.row for error in rejected] == [2, 4]
    assert len(str(rejected).splitlines()) == 2


def test_undecodable_text_is_named_by_row_and_byte(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"id": "\xff"}\n')
    with pytest.raises(RowError, match="row 2: not UTF-8 text: byte 0xff at position 8"):
        load_problems(path)


def test_a_cut_gzip_file_gives_its_rows_then_one_line(tmp_path):
    path = tmp_path / "p.jsonl.gz"
    lines = b"".join(
        json.dumps({**GOOD, "id": str(n), "title": f"{n * 7919 % 1000003}"}).encode() + b"\n" for n in range(5000)
    )
    path.write_bytes(gzip.compress(lines)[:-2000])
    stream = iter_problems(path)
    assert next(stream).id == "0"
    with pytest.raises(RowError, match=r"row \d+: cannot be unpacked"):
        list(stream)


def test_a_file_that_is_no_parquet_is_one_line(tmp_path):
    path = tmp_path / "p.parquet"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(RowError, match="not a readable parquet file") as caught:
        load_problems(path)
    assert "\n" not in str(caught.value)


def test_broken_yaml_is_one_line_with_its_place(tmp_path):
    (tmp_path / "a.yaml").write_text("id: [a\nstatement: b: c\n")
    with pytest.raises(RowError, match=r"a\.yaml: not YAML: .*line 2") as caught:
        load_problems(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["none.jsonl", "none.parquet", "none/", "mbpp:none.jsonl", "./none"])
def test_a_missing_file_is_one_line(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none.*no such"):
        load_problems(source)


@pytest.mark.parametrize("source", ["builtn:contest", "problems.csv", "hub:", "mbpp:"])
def test_an_unknown_source_lists_the_known_ones(source):
    with pytest.raises(ValueError, match="builtin"):
        load_problems(source)


def test_an_unknown_builtin_part_lists_the_parts():
    with pytest.raises(ValueError, match="known: contest, pipelines, planted"):
        load_problems("builtin:contests")


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.yaml files"):
        load_problems(tmp_path)


def test_limit_reads_no_further(tmp_path):
    path = write_rows(tmp_path / "p.jsonl", [GOOD, "{"])
    assert len(load_problems(path, limit=1)) == 1


def test_contest_problems_are_complete():
    contest = load_problems("builtin:contest")
    assert len({problem.id for problem in contest}) == len(contest) > 0
    for problem in contest:
        assert problem.family and problem.license == "Apache-2.0" and problem.difficulty in set("12345678")
        assert any(solution.verdict == "accepted" for solution in problem.solutions), problem.id


@pytest.mark.slow
def test_a_hub_data_set_needs_the_library_or_is_read_by_its_columns(tmp_path):
    row = {
        "task_id": 7,
        "text": "Double a number.",
        "code": "def f(x):\n  return 2*x",
        "test_list": ["assert f(2) == 4"],
    }
    write_rows(tmp_path / "train.jsonl", [row])
    code = (
        f"from data_curation import load_problems; p, = load_problems('hub:{tmp_path}'); print(p.id, p.tests[0].call)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert found.stdout == "mbpp-7 f(2)\n", found.stderr


def test_importing_the_package_and_its_recipes_loads_no_heavy_library():
    code = (
        "import sys, data_curation.config, data_curation.pipeline;"
        "print(sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
