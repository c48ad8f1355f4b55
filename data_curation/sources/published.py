"""Reading back what a curation run published: its data set, with tests kept apart, and rows for other trainers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.parquet as pq

from data_curation.schema import Problem
from data_curation.sources.decoding import Unreadable, decoded, objects, text
from data_curation.sources.files import given
from data_curation.sources.places import Place, part_of
from data_curation.sources.testcases import checker_for
from data_curation.sources.verifiable import case_tests, user_message

COLUMNS = frozenset({"prompt", "statement", "tests_file", "fingerprint"})
TRL_COLUMNS = frozenset({"prompt", "problem_id", "problem"})
SKYRL_COLUMNS = frozenset({"data_source", "prompt", "env_class", "reward_spec"})
WITHHELD = ("solutions", "generator")  # a reward needs neither, and a data set that holds answers teaches them


def bind(place: Place, options: Mapping[str, str]) -> Callable[[Mapping[str, Any], int], Problem]:
    """A reader of such rows that finds tests kept in files of their own beside the data."""
    if place.root is not None and place.root.is_file():  # FOLDER/data/train-00000-of-00001.parquet
        place = Place(place.name, place.root.parent.parent)

    def read(row: Mapping[str, Any], number: int) -> Problem:
        name = row.get("tests_file")
        if not name:
            return dataset_problem(row, number)
        path = place.file(str(name))
        if not path.is_file():
            raise Unreadable(f"its tests are in {name}, which is not beside the data")
        return dataset_problem({**row, "tests": pq.read_table(path).to_pylist(), "tests_file": ""}, number)

    return read


def dataset_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of a row that holds its tests; Unreadable if they are elsewhere or were changed."""
    if row.get("tests_file"):
        raise Unreadable(f"its tests are in {row['tests_file']}; read it as dataset:FOLDER")
    values = {name: value for name, value in given(dict(row)).items() if name in Problem.model_fields}
    problem = Problem.model_validate(values)
    if problem.fingerprint != row["fingerprint"]:
        raise Unreadable("its fingerprint is not that of its statement and tests: the row or its tests were changed")
    return problem


def data_files(names: list[str], part: str) -> list[str]:
    """The files of a split that hold problems; those of tests do not."""
    return [name for name in part_of(names, part) if "tests" not in name.split("/")[:-1]]


def trl_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of a row exported for TRL."""
    return Problem.model_validate_json(text(row, "problem"))


def skyrl_problem(row: Mapping[str, Any], number: int) -> Problem:
    """The problem of a row in SkyRL's layout, exported by us or made by its LiveCodeBench script."""
    spec = row.get("reward_spec")
    truth = decoded(spec.get("ground_truth") if isinstance(spec, Mapping) else None, "reward_spec.ground_truth")
    if isinstance(truth, Mapping) and "statement" in truth:
        return Problem.model_validate(truth)
    cases = objects(truth, "reward_spec.ground_truth")
    metadata = (case.get("metadata") for case in cases)
    name = next((str(m["func_name"]) for m in metadata if isinstance(m, Mapping) and m.get("func_name")), "")
    tests = case_tests(cases, "reward_spec.ground_truth", name, "")
    statement = user_message(row)
    return Problem(
        id=f"skyrl/{number}", statement=statement, tests=tests, checker=checker_for(tests, statement), source="skyrl"
    )
