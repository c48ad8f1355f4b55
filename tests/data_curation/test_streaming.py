"""Sources larger than the memory a reader may use: rows come one after the other, whatever the kind of file."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation import Problem, Test, storage
from data_curation.stored import StoredProblems

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


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.zip", "rows.parquet"])
def test_a_large_source_is_read_in_little_memory(tmp_path, name):
    path = large_file(tmp_path / name)
    found = subprocess.run([sys.executable, "-c", COUNT, path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    count, growth = map(int, found.stdout.split())
    assert count == ROWS and growth < ALLOWED_MB < ROWS * ROW_MB / 2


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
