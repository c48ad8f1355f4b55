"""docs/data-sources.md names every format, option and column there is, so that the page stays true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_curation import outputs
from data_curation.dataset import DATASET_SCHEMA
from data_curation.exports import SCHEMAS
from data_curation.schema import Problem, Solution, Subtask, Test
from data_curation.sources.catalogue import FORMATS, WINDOW

PAGE = (Path(__file__).parents[2] / "docs" / "data-sources.md").read_text()
NAMES = set(re.findall(r"`([\w.-]+)`", PAGE))
TABLES = {name: schema for name, schema in vars(outputs).items() if name.endswith("_SCHEMA")}


def test_every_format_has_its_line():
    assert set(FORMATS) <= NAMES
    for layout in FORMATS.values():
        assert layout.hub in PAGE
        assert all(f"?{option}=" in PAGE for option in layout.options)
    assert set(WINDOW) <= NAMES


@pytest.mark.parametrize("model", [Problem, Test, Solution, Subtask])
def test_every_column_of_a_problem_is_explained(model):
    assert set(model.model_fields) <= NAMES


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_column_of_every_table_is_named(name):
    assert set(TABLES[name].names) <= NAMES


def test_columns_of_published_files_are_named():
    assert set(DATASET_SCHEMA.names) <= NAMES
    assert {name for schema in SCHEMAS.values() for name in schema.names} <= NAMES
