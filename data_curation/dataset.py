"""The published form of curated problems: a folder that `datasets.load_dataset` reads, with prompts and tests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_curation.config import OutputOptions
from data_curation.prompts import chat_prompt
from data_curation.schema import Problem
from data_curation.sources.published import WITHHELD
from data_curation.storage import PROBLEM_SCHEMA, save_bytes, save_table

ROWS_PER_FILE = 10_000
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.large_string())])
_TESTS = PROBLEM_SCHEMA.field("tests").type.value_type
DATASET_SCHEMA = pa.schema(
    [
        ("prompt", pa.list_(_MESSAGE)),
        *[field for field in PROBLEM_SCHEMA if field.name not in WITHHELD],
        ("tests_file", pa.string()),
        ("number_of_tests", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)


def write_dataset(folder: Path, splits: Mapping[str, Sequence[Problem]], options: OutputOptions, card: str) -> None:
    """Writes `data/SPLIT-00000-of-00001.parquet`, large tests under `tests/`, and the card as README.md.

    The folder is replaced. A split without problems gets no file, for `datasets` cannot load one; without any
    problem there is no folder. Tests of more than `inline_tests_kb` stand in a file of their own, named in
    `tests_file`.
    """
    fresh = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    if not any(splits.values()):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for split, problems in splits.items():
        files = -(-len(problems) // ROWS_PER_FILE)
        source = iter(problems)
        for number in range(files):
            part = islice(source, ROWS_PER_FILE)
            path = fresh / "data" / f"{split}-{number:05d}-of-{files:05d}.parquet"
            save_table((_row(problem, options, fresh) for problem in part), DATASET_SCHEMA, path)
    save_bytes(card.encode(), fresh / "README.md")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _row(problem: Problem, options: OutputOptions, folder: Path) -> dict[str, Any]:
    values = problem.model_dump(exclude=set(WITHHELD))
    size = sum(test.characters for test in problem.tests)
    name = ""
    if size > options.inline_tests_kb << 10:
        name = f"tests/{problem.fingerprint}.parquet"
        save_table(values["tests"], pa.schema(list(_TESTS)), folder / name)
        values["tests"] = []
    return {
        **values,
        "prompt": chat_prompt(problem, options.template, options.system, options.language),
        "tests_file": name,
        "number_of_tests": len(problem.tests),
        "fingerprint": problem.fingerprint,
    }
