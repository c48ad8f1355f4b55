"""Success rates read from what a user has: a run, a measurement, curation's difficulties, an export, rates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlvr.budget.success_rates import Group, SuccessRates

KNOWN = 1000  # outcomes that a rate without a number of rollouts stands for: it is taken at its word


def read_history(path: Path) -> SuccessRates:
    """Returns the success rates a file or folder holds.

    `path`: a stage's folder, a checkpoint, its rlvr_state.json, a pre_grpo.json, or a table (.parquet, else JSONL) of
    `problem_id` or `id` with `history` (the groups that `rlvr plan rates` writes), `outcomes` (a list of 0 and 1),
    passes and rollouts (`successes` of `rollouts`; `passed` of `samples`, as in curation's difficulty.parquet), or
    `rate`, with `rollouts` where it was measured and without where it is known. ValueError and FileNotFoundError name
    file, row and what is wrong.
    """
    if path.is_dir():
        path = _state_of(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    found = SuccessRates()
    if path.suffix == ".json":
        _read_state(path, found)
    else:
        for where, row in _rows(path):
            if isinstance(row.get("history"), list):
                _add_groups(found, where, row)
                continue
            key, outcomes = _outcomes(where, row)
            if key in found and "outcomes" not in row:
                raise ValueError(f"{where}: problem {key!r} stands there twice")
            _record(found, where, key, outcomes)
    if not len(found):
        raise ValueError(f"{path}: holds no problem with an outcome")
    return found


def _state_of(folder: Path) -> Path:
    direct = [folder / "rlvr_state.json", folder / "final" / "rlvr_state.json"]
    numbered = sorted(folder.glob("checkpoint-*/rlvr_state.json"), key=lambda p: int(p.parent.name.split("-")[1]))
    for path in [*direct, *reversed(numbered), folder / "pre_grpo.json"]:
        if path.exists():
            return path
    stages = sorted(child.parent.name for child in folder.glob("*/rollouts"))
    hint = f"; name one of its stages: {', '.join(stages)}" if stages else ""
    raise FileNotFoundError(f"{folder}: holds neither a checkpoint's rlvr_state.json nor pre_grpo.json{hint}")


def _read_state(path: Path, found: SuccessRates) -> None:
    try:
        state = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if isinstance(state, dict) and "success_rates" in state:
        found.load_state_dict(state["success_rates"])
    elif isinstance(state, dict) and all(isinstance(outcomes, list) for outcomes in state.values()):
        for key, outcomes in state.items():
            _record(found, str(path), key, outcomes)
    else:
        raise ValueError(f"{path}: neither the state of a GRPO run nor outcomes by problem")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands, and the row."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path}: not a parquet file ({str(error).splitlines()[0]})") from None
        for number, row in enumerate(rows, 1):
            yield f"{path}: row {number}", row
        return
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text; give .json, .jsonl or .parquet") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: not a JSON object with problem_id")
        yield where, row


def _outcomes(where: str, row: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The problem of a row, and its outcomes."""
    key = row.get("problem_id", row.get("id"))
    if not isinstance(key, str) or not key:
        raise ValueError(f"{where}: not a JSON object with problem_id")
    if "outcomes" in row:
        if not isinstance(row["outcomes"], list):
            raise ValueError(f"{where}: `outcomes` is a list of 0 and 1 (got {row['outcomes']!r})")
        return key, row["outcomes"]
    for passes, tries in (("successes", "rollouts"), ("passed", "samples")):
        if passes in row and tries in row:
            count = _count(where, tries, row[tries])
            passed = row[passes]
            if isinstance(passed, bool) or not isinstance(passed, int) or not 0 <= passed <= count:
                raise ValueError(f"{where}: `{passes}` is a whole number from 0 to {count} (got {passed!r})")
            return key, [1] * passed + [0] * (count - passed)
    if "rate" not in row:
        raise ValueError(f"{where}: neither `outcomes` nor `rate`")
    rate = row["rate"]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:  # nan is in no interval
        raise ValueError(f"{where}: rate {rate!r} is not in [0, 1]")
    count = KNOWN if row.get("rollouts") is None else _count(where, "rollouts", row["rollouts"], 1)
    passed = math.floor(rate * count + 0.5)
    if abs(rate - passed / count) > 0.005:  # half a unit of a rate written with two digits
        raise ValueError(
            f"{where}: rate {rate} is not a share of {count} rollouts; leave `rollouts` out if it is known"
        )
    return key, [1] * passed + [0] * (count - passed)


def _add_groups(found: SuccessRates, where: str, row: Mapping[str, Any]) -> None:
    key = row.get("problem_id")
    try:
        if not isinstance(key, str):
            raise ValueError("no problem_id")
        if key in found:
            raise ValueError(f"problem {key!r} stands there twice")
        for entry in row["history"]:
            found.add(key, Group(int(entry["step"]), str(entry["passed"]), int(entry["tokens"])))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where}: history: not as `rlvr plan rates` writes it ({error})") from None


def _count(where: str, name: str, value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{where}: `{name}` is a whole number from {least} on (got {value!r})")
    return value


def _record(found: SuccessRates, where: str, key: str, outcomes: list[Any]) -> None:
    try:
        found.record(key, outcomes, 0)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
