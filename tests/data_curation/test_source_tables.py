"""The same rows from every kind of file, from folders and from a local copy of a hub repository."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation import RejectedRows, RowError, load_problems
from data_curation.sources import local_files
from data_curation.sources.livecodebench import release_files
from data_curation.sources.places import part_of
from data_curation.sources.tables import rows_of

ROWS = [
    {"task_id": n, "text": f"Add {n}.", "code": f"def f(x):\n  return x+{n}", "test_list": [f"assert f(1) == {n + 1}"]}
    for n in (700, 701, 702)
]


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(folder: Path, name: str, rows: list[dict] = ROWS) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    elif name.endswith(".arrow"):
        kind = pa.ipc.new_stream if "stream" in name else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
            writer.write_table(table)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines(rows)))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_bytes(lines(rows))
    return path


KINDS = ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.parquet", "stream.arrow", "file.arrow"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_problems(tmp_path, name):
    path = write(tmp_path, name)
    assert [row for row, _ in rows_of(path)] == [1, 2, 3]
    expected = load_problems(f"mbpp:{write(tmp_path, 'expected.jsonl')}")
    assert load_problems(f"mbpp:{path}") == load_problems(path) == expected
    assert load_problems(f"mbpp:{path}", limit=2) == expected[:2]


@pytest.mark.parametrize("name", KINDS)
def test_a_zip_archive_is_read_in_place(tmp_path, name):
    path = write(tmp_path, name)
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(path, f"a/{name}")
        packed.writestr("README.md", "no rows")
    assert [problem.id for problem in load_problems(f"mbpp:{archive}")] == ["mbpp-700", "mbpp-701", "mbpp-702"]


def test_a_file_that_is_not_what_its_name_says_is_one_line(tmp_path):
    for name in ("a.arrow", "a.zip", "a.parquet"):
        (tmp_path / name).write_bytes(b"nothing of the kind, at some length")
        with pytest.raises(RowError, match="not a readable") as caught:
            load_problems(f"mbpp:{tmp_path / name}")
        assert "\n" not in str(caught.value)


def test_an_archive_without_rows_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("README.md", "no rows")
    with pytest.raises(RowError, match="no data file"):
        load_problems(f"mbpp:{tmp_path / 'a.zip'}")


def test_a_folder_is_read_part_by_part(tmp_path):
    write(tmp_path, "data/train-00000-of-00002.parquet", ROWS[:1])
    write(tmp_path, "data/train-00001-of-00002.parquet", ROWS[1:2])
    write(tmp_path, "data/test-00000-of-00001.parquet", ROWS[2:])
    (tmp_path / "README.md").write_text("card")
    ids = [[problem.id for problem in load_problems(f"mbpp:{tmp_path}{part}")] for part in ("@train", "@test", "")]
    assert ids == [["mbpp-700", "mbpp-701"], ["mbpp-702"], ["mbpp-702", "mbpp-700", "mbpp-701"]]
    assert len(local_files(f"mbpp:{tmp_path}@train")) == 2
    with pytest.raises(ValueError, match="no data files of validation there; it has data/test"):
        load_problems(f"mbpp:{tmp_path}@validation")


def test_parts_are_folders_or_beginnings_of_names():
    names = ["lcbv5/test-0.parquet", "lcbv5/train-0.parquet", "taco/train-0.parquet", "train.jsonl", "trainer.jsonl"]
    assert part_of(names, "lcbv5/train") == ["lcbv5/train-0.parquet"]
    assert part_of(names, "train") == ["lcbv5/train-0.parquet", "taco/train-0.parquet", "train.jsonl"]
    assert part_of([*names, "README.md"], "") == names


def test_a_missing_column_names_the_format(tmp_path):
    path = write(tmp_path, "rows.jsonl", [ROWS[0], {"text": "a", "code": "b"}])
    rejected = RejectedRows()
    assert len(load_problems(f"mbpp:{path}", rejected=rejected)) == 1
    assert "row 2: `test_list` is missing; mbpp rows have" in str(rejected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mbpp:{}?colour=red", "unknown option `colour`; known: after, before"),
        ("mbpp:{}?after=spring", "`after` must be a date such as 2024-08-01"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        load_problems(source.format(write(tmp_path, "rows.jsonl")))


def test_a_window_of_dates_needs_dates(tmp_path):
    with pytest.raises(RowError, match="has no date, but a window of dates is asked for"):
        load_problems(f"mbpp:{write(tmp_path, 'rows.jsonl')}?after=2024-01-01")


def test_releases_of_livecodebench_are_cumulative():
    names = ["README.md", *(f"test{n}.jsonl" for n in ("", 2, 3, 4, 5, 6))]
    assert release_files(names, "release_v2") == ["test.jsonl", "test2.jsonl"]
    assert release_files(names, "") == release_files(names, "release_v6") == names[1:]
    assert release_files(names, "v5") == ["test5.jsonl"]
    assert release_files(names, "v1_v3") == ["test.jsonl", "test2.jsonl", "test3.jsonl"]
    assert release_files(names[:3], "") == ["test.jsonl", "test2.jsonl"]
    with pytest.raises(ValueError, match=r"test3\.jsonl is not there"):
        release_files(names[:3], "release_v3")
    with pytest.raises(ValueError, match="no release of LiveCodeBench"):
        release_files(names, "newest")


HUB = """
import sys
from data_curation import load_problems
print([problem.id for problem in load_problems(sys.argv[1])])
"""


def from_the_hub(source: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HUB, source],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PATH": "/usr/bin:/bin"},
        check=False,
    )


def test_a_hub_repository_is_read_from_the_local_cache(tmp_path):
    repository = tmp_path / "hub" / "datasets--some--set"
    snapshot = repository / "snapshots" / ("0" * 40)
    write(snapshot, "data/train-00000-of-00001.parquet", ROWS[:2])
    write(snapshot, "data/test-00000-of-00001.parquet", ROWS[2:])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    found = from_the_hub("mbpp:some/set@train", tmp_path)
    assert found.stdout == "['mbpp-700', 'mbpp-701']\n", found.stderr
    missing = from_the_hub("mbpp:some/other@train", tmp_path)
    assert "ValueError: some/other: not a local path, and the hub cannot be read" in missing.stderr
