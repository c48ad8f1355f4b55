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
