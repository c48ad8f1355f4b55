"""What SFT is taught: rows of prompt and completion, or accepted solutions of problems, as the arena selects them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from data_curation import load_problems
from data_curation.arena import Arena, hard_repeat
from rlvr.config import PromptSection, RecipeError
from rlvr.config.sft import ArenaSection
from rlvr.rollouts.prompts import render_prompt

Row = dict[str, Any]


def load_demonstrations(
    path: str, limit: int | None, prompt: PromptSection, arena: ArenaSection | None = None
) -> Dataset:
    """Returns a dataset with columns prompt and completion.

    `path` holds rows of both (parquet or JSONL), or problems, whose accepted solutions are then the completions,
    rendered by `prompt` as they will be in RL. With `arena`, only what its books select. RecipeError names what is
    missing.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{path}: no such file of demonstrations; make one with `rlvr curate`")
    if file.suffix == ".parquet" and "statement" in _parquet(pq.read_schema, file).names:
        rows = solutions_as_demonstrations(path, prompt)
    else:
        rows = _rows(file)
    if arena is not None:
        rows = selected(rows, arena, path)
    return Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows[:limit]])


def _rows(file: Path) -> list[Row]:
    if file.suffix == ".parquet":
        rows = _parquet(pq.read_table, file).to_pylist()
    else:
        rows = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise RecipeError(f"{file}: line {number}: not JSON ({error})") from None
    if not rows:
        raise RecipeError(f"{file}: holds no demonstrations")
    for number, row in enumerate(rows, 1):
        for column in ("prompt", "completion"):
            if not isinstance(row, dict) or not row.get(column):
                raise RecipeError(f"{file}: row {number}: column {column!r} is missing or empty")
            if not isinstance(row[column], str | list):
                raise RecipeError(
                    f"{file}: row {number}: column {column!r} is a text or a list of messages (got {row[column]!r})"
                )
    return rows


def _parquet(read: Callable[[Path], Any], file: Path) -> Any:
    try:
        return read(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise RecipeError(f"{file}: not a parquet file ({str(error).splitlines()[0]})") from None


def solutions_as_demonstrations(path: str, prompt: PromptSection) -> list[Row]:
    """Returns problem_id, prompt and completion of every accepted solution in `prompt.language` in `path`."""
    rows: list[Row] = []
    for problem in load_problems(path):
        for solution in problem.solutions:
            if solution.verdict == "accepted" and solution.language == prompt.language:
                rendered = render_prompt(problem, prompt)
                code = solution.code.strip("\n")
                if isinstance(rendered, str):
                    row: Row = {"prompt": rendered, "completion": code}
                else:
                    answer = f"```{prompt.language}\n{code}\n```"
                    row = {"prompt": rendered, "completion": [{"role": "assistant", "content": answer}]}
                rows.append({"problem_id": problem.id, **row})
    if not rows:
        raise RecipeError(f"{path}: none of its problems has an accepted solution in {prompt.language}")
    return rows


def selected(rows: Sequence[Row], arena: ArenaSection, path: str) -> list[Row]:
    """Returns the rows of the problems that the books select, in the books' order, hard ones `hard_repeat` times.

    The copies stand behind the whole first pass. RecipeError where no row is of a selected problem.
    """
    books = Arena.load(arena.books)
    if arena.teach == "training_ids":
        ids = books.training_ids()
    else:
        hard = books.hard_ids(keep_first=False)
        ids = hard_repeat(books.hard_ids(arena.keep_first), hard, arena.hard_repeat)
    by_problem: dict[str, list[Row]] = {}
    for number, row in enumerate(rows, 1):
        if not row.get("problem_id"):
            raise RecipeError(f"{path}: row {number}: column 'problem_id' is missing or empty; the arena selects by it")
        by_problem.setdefault(str(row["problem_id"]), []).append(row)
    found = [row for name in ids for row in by_problem.get(name, ())]
    if not found:
        raise RecipeError(
            f"{path}: none of the {len(set(ids))} problems that {arena.books} selects ({arena.teach}) has a "
            f"demonstration there"
        )
    return found
