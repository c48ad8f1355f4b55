"""What a run says of its stages, and what it does when nothing is left."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from data_curation import CurationConfig, curate
from data_curation.pipeline import NothingLeft

TEXT = "Read two integers and print their {}. The input has one line with the two integers a and b, for example 1 2."


def source(tmp_path, *rows):
    file = tmp_path / "raw.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CurationConfig(sources=(str(file),))


def row(name, word, **fields):
    tests = [{"input": "1 2\n", "output": "3\n"}]
    return {"id": name, "statement": TEXT.format(word), "tests": tests, "license": "MIT", **fields}


def test_every_stage_says_what_it_removed_and_why(tmp_path):
    config = source(tmp_path, row("a", "sum"), row("b", "sum"), row("c", "product", tests=[]))
    said: list[str] = []
    curate(config, tmp_path / "out", show_progress=False, say=said.append)
    text = "\n".join(said)
    assert "filter: 3 in, 1 removed, 2 out" in text and "- 1 no tests, e.g. c: neither tests nor a generator" in text
    assert "deduplicate: 2 in, 1 removed, 1 out" in text and "e.g. b (kept: a)" in text
    again: list[str] = []
    curate(config, tmp_path / "out", show_progress=False, say=again.append)
    assert all("(from the last run)" in line.splitlines()[0] for line in again) and len(again) == len(said)
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())
    licences = [funnel["problems"][side]["by_license"] for side in ("train", "heldout")]
    assert {"MIT": 1} in licences


def test_nothing_left_is_an_error_that_names_the_reasons_and_leaves_the_rows_to_read(tmp_path):
    config = source(tmp_path, row("a", "sum", tests=[]), row("b", "product", tests=[]))
    with pytest.raises(NothingLeft, match=r"nothing is left of 2 problems; removed by filter: 2 no tests\. Row by row"):
        curate(config, tmp_path / "out", show_progress=False)
    assert not (tmp_path / "out" / "dataset").exists(), "a data set of no rows would be trained on, or published"
    rows = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert [(row["id"], row["stage"], row["reason"]) for row in rows] == [
        ("a", "filter", "no tests"),
        ("b", "filter", "no tests"),
    ]
