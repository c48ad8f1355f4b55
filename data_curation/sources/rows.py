"""Rows that cannot become problems: errors that name file and row, a record of them, and going on after one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from data_curation.schema import Problem
from data_curation.sources.decoding import Unreadable


class RowError(ValueError):
    """One row of a source cannot become a problem. `file`, `row` (from 1; None: the whole file) and `what` say why."""

    def __init__(self, file: str | Path, row: int | None, what: str) -> None:
        self.file, self.row, self.what = str(file), row, what
        super().__init__(f"{self.file}: {what}" if row is None else f"{self.file}: row {row}: {what}")


@dataclass
class RejectedRows:
    """Rows a reader passed over, with the reason of each. Give one to a loader to go on after a bad row."""

    errors: list[RowError] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.errors)

    def __iter__(self) -> Iterator[RowError]:
        return iter(self.errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def convert(
    rows: Iterator[tuple[int | None, Any]],
    make: Callable[[Any, int | None], Problem],
    file: str | Path,
    rejected: RejectedRows | None,
) -> Iterator[Problem]:
    """The problems of `rows`. A row that fails raises RowError, or goes to `rejected` where one is given.

    `make` says that a row is not usable by RowError, by Unreadable, or by the schema's own ValidationError.
    """
    for row, value in rows:
        try:
            problem = _made(make, value, row, file)
        except RowError as error:
            if rejected is None:
                raise
            rejected.errors.append(error)
        else:
            yield problem


def _made(make: Callable[[Any, int | None], Problem], value: Any, row: int | None, file: str | Path) -> Problem:
    if isinstance(value, RowError):
        raise value
    try:
        return make(value, row)
    except Unreadable as error:
        raise RowError(file, row, str(error)) from None
    except ValidationError as error:
        raise RowError(file, row, first_fault(error, Problem)) from None


def problem_from_row(file: str | Path, row: int | None, value: Any) -> Problem:
    """The row as a `Problem`; RowError if it lacks tests or does not fit the schema."""
    if not isinstance(value, dict):
        raise RowError(file, row, f"expected an object with the fields of a problem, got {type(value).__name__}")
    if "tests" not in value and not value.get("generator"):
        raise RowError(file, row, "no tests: give `tests` (input and output of each) or a `generator`")
    try:
        return Problem.model_validate(value)
    except ValidationError as error:
        raise RowError(file, row, first_fault(error, Problem)) from None


def first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first fault pydantic found: the key, what is wrong, and the nearest known key."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), model.model_fields, n=1)
        return f"unknown key `{key}`" + (f"; did you mean `{near[0]}`?" if near else "")
    if fault["type"] == "missing":
        return f"`{key}` is missing"
    shown = repr(fault["input"])
    return f"`{key}`: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {shown[:80]}"


def existing(path: Path, *, folder: bool = False) -> Path:
    """`path`, which must exist; FileNotFoundError in one line otherwise."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such {'folder' if folder else 'file'}")
    return path
