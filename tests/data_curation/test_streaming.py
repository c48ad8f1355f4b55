"""Sources larger than the memory a reader may use: rows come one after the other, whatever the kind of file."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BufferedReader, BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_curation import Problem, Test, storage
from data_curation.pipeline import STAGES
from data_curation.sources import RowError, tables
from data_curation.stored import StoredProblems

ROOT = Path(__file__).parents[2]
ROWS, ROW_MB, ALLOWED_MB = 130, 1, 64
COUNT = """
import resource, sys
from data_curation.sources import iter_problems
import data_curation.sources.tables
import pyarrow.parquet
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
print(sum(1 for _ in iter_problems(sys.argv[1])), peak() - before)
"""


def rows() -> Iterator[dict]:
    for n in range(ROWS):
        tests = [{"input": f"{n} " * (ROW_MB * 1_000_000 // len(f"{n} ")), "output": "x"}]
        yield {"id": f"p{n}", "statement": "Say the first number of the line again.", "tests": tests}


def lines() -> Iterator[bytes]:
    return (json.dumps(row).encode() + b"\n" for row in rows())


def large_file(path: Path) -> Path:
    if path.name.endswith(".gz"):
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.writelines(lines())
    elif path.suffix == ".json":
        with path.open("wb") as file:
            file.write(b"[")
            for n, row in enumerate(rows()):
                file.write((b"," if n else b"") + json.dumps(row).encode())
            file.write(b"]")
    elif path.suffix == ".zip":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("rows.jsonl", "w") as file,
        ):
            file.writelines(lines())
    else:
        writer = None
        for row in rows():  # a page is what a reader must hold, so each row group is small
            table = pa.Table.from_pylist([row])
            writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=False)
            writer.write_table(table)
        assert writer is not None
        writer.close()
    return path


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json", "rows.zip", "rows.parquet"])
def test_a_large_source_is_read_in_little_memory(tmp_path, name):
    path = large_file(tmp_path / name)
    found = subprocess.run([sys.executable, "-c", COUNT, path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    count, growth = map(int, found.stdout.split())
    assert count == ROWS and growth < ALLOWED_MB < ROWS * ROW_MB / 2


LOST = "; what follows cannot be read"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_an_array_read_in_pieces_is_the_array(items, indent, ascii_only, piece):
    body = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assume(b"\xed" not in body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BUFFER_BYTES", piece)
        assert [item for _, item in tables.array_items(BufferedReader(BytesIO(body)), Path("a.json"))] == items


@pytest.mark.parametrize(
    ("body", "good", "said"),
    [
        (b'[{"a": 1}, {"a": }, {"a": 3}]', 1, f"row 2: not JSON: Expecting value{LOST}"),
        (b'[{"a": 1}, {"a": 2}', 2, f"row 3: not JSON: expected , or ] after row 2{LOST}"),
        (
            b'[{"a": 1}, {"a": "2',
            1,
            f"row 2: not JSON: Unterminated string starting at{LOST}",
        ),
        (b'[{"a": 1}]\n[{"a": 2}]\n', 1, "row 2: more after the array's end; rows are one array, or a line each"),
        (b'[{"a": 1}, {"a": "\xff"}]', 1, f"row 2: not UTF-8 text: byte 0xff{LOST}"),
    ],
)
def test_the_row_where_an_array_breaks_is_named_and_those_before_it_are_read(tmp_path, body, good, said):
    (tmp_path / "a.json").write_bytes(body)
    rows = tables.json_rows(tmp_path / "a.json")
    assert [next(rows) for _ in range(good)] == [(n + 1, {"a": n + 1}) for n in range(good)]
    with pytest.raises(RowError) as raised:
        next(rows)
    assert str(raised.value) == f"{tmp_path / 'a.json'}: {said}"


def test_an_array_in_a_cut_gzip_file_gives_the_rows_before_the_cut(tmp_path):
    rows = [{"a": n, "b": hashlib.sha256(str(n).encode()).hexdigest()} for n in range(5000)]
    packed = gzip.compress(json.dumps(rows).encode())
    (tmp_path / "a.json.gz").write_bytes(packed[: len(packed) // 2])
    read = []
    with pytest.raises(RowError, match=r"row \d+: cannot be unpacked after this row: Compressed file ended") as raised:
        for _, value in tables.json_rows(tmp_path / "a.json.gz"):
            read.append(value)
    assert 2000 < len(read) < 3000 and read == rows[: len(read)] and raised.value.row == len(read) + 1


def test_an_integer_of_many_digits_in_an_array_is_read(tmp_path):
    (tmp_path / "a.json").write_text(f'\ufeff [{{"n": {"7" * 9000}}}, {{"n": NaN}}]', encoding="utf-8")
    (_, first), (row, second) = tables.json_rows(tmp_path / "a.json")
    assert first["n"] % 10 == 7 and row == 2 and second["n"] != second["n"]


def test_stored_problems_are_a_sequence_that_reads_what_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "CHARACTERS_PER_GROUP", 2000)
    problems = [
        Problem(id=f"p{n}", statement=f"Print {n}.", tests=[Test(input="7" * n * 10, output="1")], tags=[f"t{n % 3}"])
        for n in range(60)
    ]
    storage.save_problems(problems, tmp_path / "p.parquet")
    stored = StoredProblems(tmp_path / "p.parquet")
    assert len(stored) == 60 and stored == problems and problems == list(stored)
    assert [stored[n] for n in (59, 0, 31, -1)] == [problems[n] for n in (59, 0, 31, -1)]
    assert stored[5:9] == problems[5:9] and stored != problems[:-1]
    assert [p.tags for p in stored.light()] == [p.tags for p in problems]
    assert not any(p.tests for p in stored.light())
    with pytest.raises(IndexError):
        stored[60]


CURATED = """
import resource, sys
from data_curation import CurationConfig, curate
import data_curation.pipeline
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
result = curate(CurationConfig(sources=(sys.argv[1],)), sys.argv[2], show_progress=False)
print(len(result.train) + len(result.heldout), peak() - before)
"""


def test_a_whole_run_takes_less_memory_than_the_tests_that_pass_through_it(tmp_path):
    with gzip.open(tmp_path / "p.jsonl.gz", "wt", compresslevel=1) as stream:
        for n in range(2 * ROWS):
            statement = f"Print the number {n} of the given list, and the numbers after it, in one line."
            tests = [{"input": f"{n:>1000000}", "output": str(n)}]
            row = {"id": f"p{n}", "title": f"Case {n}a", "statement": statement, "tests": tests}
            stream.write(json.dumps(row) + "\n")
    command = [sys.executable, "-c", CURATED, str(tmp_path / "p.jsonl.gz"), str(tmp_path / "out")]
    counted, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    assert int(counted) > 0 and int(grown) < 2 * ROWS * ROW_MB * 0.85


@pytest.mark.thorough
def test_no_stage_takes_more_memory_for_three_times_the_problems():
    command = [sys.executable, "benchmarks/curation_memory.py", "--problems", "1500", "4500", "--stages"]
    stages = ["load", *(name for name, _ in STAGES)]
    found = subprocess.run([*command, *stages], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in found.stdout.splitlines()[1:]]
    assert [line[0] for line in lines] == stages
    grown = {line[0]: int(line[4]) for line in lines}
    assert max(grown.values()) < ALLOWED_MB / 2, grown  # of 120 MB more tests
