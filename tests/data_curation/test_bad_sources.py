"""What a user gives wrongly is one line that says what and where, before anything is written."""

from __future__ import annotations

import fcntl
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_curation import CurationConfig, Problem, RowError, Test, curate, load_problems, save_problems
from data_curation.inputs import faults_of_inputs
from data_curation.sources import check_source
from data_curation.storage import replace_with

ROW = Problem(
    id="sum", statement="Add the two numbers of the line.", tests=[Test(input="1 2\n", output="3\n")]
).model_dump(mode="json", exclude_defaults=True)
LINE = json.dumps(ROW).encode() + b"\n"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", gzip.compress(LINE, mtime=0)),
        ("a.jsonl", b"\xef\xbb\xbf" + LINE),
        ("A.JSONL.GZ", gzip.compress(LINE, mtime=0)),
    ],
)
def test_packing_and_byte_order_marks_are_told_by_the_bytes(tmp_path, name, content):
    assert [problem.id for problem in load_problems(write(tmp_path / name, content))] == ["sum"]


def test_plain_text_under_a_gzip_name_is_said_to_be_that(tmp_path):
    with pytest.raises(RowError, match=r"a\.jsonl\.gz: its name ends in \.gz, but it is not a gzip file"):
        load_problems(write(tmp_path / "a.jsonl.gz", LINE))


def test_a_folder_of_data_files_is_read_by_their_columns(tmp_path):
    write(tmp_path / "set" / "a.jsonl", LINE)
    save_problems(load_problems(tmp_path / "set" / "a.jsonl"), tmp_path / "set" / "b.parquet")
    assert [problem.id for problem in load_problems(tmp_path / "set")] == ["sum", "sum"]
    assert [problem.id for problem in load_problems(f"{tmp_path / 'set'}")] == ["sum", "sum"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("", ValueError, "an empty source; give one of builtin"),
        ("aps:rows.jsonl", ValueError, "unknown format `aps`; did you mean `apps:rows.jsonl`"),
        ("apps:", ValueError, "nothing behind the colon; did you mean `apps:PLACE`"),
        ("rows.csv", ValueError, r"rows\.csv: not a source: known data files are \.jsonl"),
        ("none.jsonl", FileNotFoundError, r"none\.jsonl: no such file"),
        ("apps:none.jsonl", FileNotFoundError, r"none\.jsonl: no such file"),
        ("kattis:none", FileNotFoundError, "none: no such folder"),
        ("builtin:contests", ValueError, "unknown part; known: contest"),
        ("mbpp:folder@test", ValueError, "no data files of test there; it has train.jsonl"),
        ("mbpp:folder?colour=red", ValueError, "unknown option `colour`"),
        ("hub:", ValueError, "nothing behind the colon"),
    ],
)
def test_a_source_that_means_nothing_is_refused_before_it_is_read(tmp_path, monkeypatch, source, error, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.csv", b"a,b\n")
    write(tmp_path / "folder" / "train.jsonl", LINE)
    with pytest.raises(error, match=message) as caught:
        check_source(source)
    assert "\n" not in str(caught.value)


def test_names_of_the_hub_are_not_looked_up_to_be_checked():
    check_source("codeparrot/apps")
    check_source("apps:someone/apps-again@test")
    check_source("hub:someone/something")


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ["builtin:contest", "none.jsonl"]},
        {"sources": ["builtin:contest"], "decontaminate": {"against": ["none.jsonl"]}},
        {"sources": ["builtin:contest"], "difficulty": {"samples": "none.jsonl"}},
    ],
)
def test_inputs_that_are_not_there_stop_the_run_before_a_folder_is_made(tmp_path, monkeypatch, changes):
    monkeypatch.chdir(tmp_path)
    config = CurationConfig.model_validate(changes)
    assert len(list(faults_of_inputs(config))) == 1
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        curate(config, tmp_path / "out", show_progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "no problem could be read from {}: no rows there"),
        ("empty.parquet", b"", "{}: not a readable parquet file"),
        ("columns.jsonl", b'{"question": "a", "answer": "b"}\n', "the first bad row: {}: row 1: no tests"),
        ("broken.jsonl", b"{\n", "the first bad row: {}: row 1: not JSON"),
        ("cut.jsonl.gz", gzip.compress(LINE * 9, mtime=0)[:-20], "{}: row 1: cannot be unpacked after this row"),
        ("utf16.jsonl", LINE.decode().encode("utf-16"), "the first bad row: {}: row 1: not UTF-8 text"),
    ],
)
def test_a_file_without_a_usable_row_stops_the_run_with_one_line(tmp_path, name, content, message):
    source = write(tmp_path / name, content)
    with pytest.raises(ValueError) as caught:
        curate(CurationConfig(sources=(str(source),)), tmp_path / "out", show_progress=False)
    assert message.format(source) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()  # not even the recipe


GOOD_SET = b'{"id": "e", "statement": "Add the numbers.", "tests": [{"input": "1", "output": "1"}]}\n'


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("decontaminate.against", GOOD_SET + b"{\n", "row 2: not JSON"),
        ("decontaminate.against", GOOD_SET + b'{"id": "f"}\n', "row 2: "),
        ("decontaminate.against", b"", "an evaluation set without problems"),
        ("difficulty.samples", b"", "holds no samples"),
        ("difficulty.samples", b"[1]\n", "row 1: expected problem_id with passed and samples"),
        ("difficulty.samples", b'{"problem_id": "a", "passed": 1, "samples": 2}\nx\n', "row 2: not JSON"),
        ("difficulty.samples", b'{"problem_id": "a", "passed": 3, "samples": 2}\n', "row 1: `passed` must be from 0"),
        ("difficulty.samples", b'{"problem_id": "a", "passed": 0, "samples": 0}\n', "row 1: `passed` must be from 0"),
        ("difficulty.samples", b'{"problem_id": "a", "passed": 0.5, "samples": 1}\n', "row 1: expected problem_id"),
        ("difficulty.samples", b'{"problem_id": "a", "program": null}\n', "row 1: `program` must be source text"),
        (
            "difficulty.samples",
            b'{"problem_id": "a", "program": "p", "language": "cobol"}\n',
            "row 1: `language`: unknown language 'cobol'",
        ),
    ],
)
def test_the_last_row_of_every_file_is_read_before_a_run_begins(tmp_path, key, content, message):
    source, file = write(tmp_path / "source.jsonl", GOOD_SET), write(tmp_path / "file.jsonl", content)
    section, name = key.split(".")
    config = CurationConfig.model_validate(
        {"sources": [str(source)], section: {name: [str(file)] if name == "against" else str(file)}}
    )
    with pytest.raises(ValueError) as caught:
        curate(config, tmp_path / "out", show_progress=False)
    assert str(caught.value).startswith(str(file)) and message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_says_it_in_one_line_and_by_its_exit_code(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"sources: ['{write(tmp_path / 'empty.jsonl', b'')}']\n")
    found = subprocess.run(
        [sys.executable, "-m", "rlvr.cli", "curate", "--config", recipe, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert [line for line in found.stderr.replace("\r", "\n").splitlines() if line.startswith("rlvr: ")] == [
        f"rlvr: no problem could be read from {tmp_path / 'empty.jsonl'}: no rows there"
    ]


def test_a_dry_run_names_what_is_not_there_and_reads_nothing(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sources: [none.jsonl]\n")
    found = subprocess.run(
        [sys.executable, "-m", "rlvr.cli", "curate", "--config", recipe, "--out", tmp_path / "out", "--dry-run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0 and "# not usable yet: none.jsonl: no such file" in found.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.dry-run.yaml"]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"sources: ['{write(tmp_path / 'a.jsonl', LINE)}']\n")
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".running").open("w") as there:
        fcntl.flock(there, fcntl.LOCK_EX)
        there.write("77")
        there.flush()
        found = subprocess.run(
            [sys.executable, "-m", "rlvr.cli", "curate", "--config", recipe, "--out", out],
            capture_output=True,
            text=True,
            check=False,
        )
    assert found.returncode == 2 and [path.name for path in out.iterdir()] == [".running"]
    assert f"{out}: process 77 is running here; wait for it, or choose another --out" in found.stderr


def test_an_output_that_is_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the output is a folder, and this is a file"):
        curate(CurationConfig(sources=("builtin:contest",)), write(tmp_path / "out", b""), show_progress=False)


def test_a_full_disk_names_the_file_that_was_written_and_leaves_the_old_one(tmp_path):
    file = write(tmp_path / "a.parquet", b"old")
    with pytest.raises(OSError, match="No space left on device") as raised:
        replace_with(lambda _: Path("/dev/full").write_bytes(b"new"), file)
    assert raised.value.filename == str(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"] and file.read_bytes() == b"old"
