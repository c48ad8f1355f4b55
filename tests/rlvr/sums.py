"""Five small problems, and what evaluations of them need: suites, files of samples, answers of a server."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from endpoint_server import completion

from data_curation import Problem, Solution, Test
from rlvr.cli import cli
from rlvr.config import EvaluationRecipe

WORDS = [a + b for a in ("harb", "lant", "grav", "orch", "velv") for b in ("our", "ern", "el", "id", "et")]


def make_problem(number: int, **fields: Any) -> Problem:
    story = " ".join(random.Random(number).choices(WORDS, k=60))
    values: dict[str, Any] = {
        "id": f"sum/{number}",
        "title": f"Sum and {number}",
        "statement": f"Read one number and print it plus {number}. {story}",
        "tests": [Test(input=f"{x}\n", output=f"{x + number}\n") for x in (1, 5)],
        "solutions": [Solution(code=f"print(int(input()) + {number})")],
        "difficulty": "easy" if number < 3 else "hard",
        "rating": 1000.0 + 200 * number,
        "date": datetime.date(2025, 1 + number % 12, 1),
        "tags": ["math"],
    }
    return Problem(**values | fields)


PROBLEMS = [make_problem(number) for number in range(5)]


def fenced(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


def solver(body: dict[str, Any], number: int) -> tuple[int, str]:
    """Solves the problems with an even number, whatever the temperature."""
    wanted = int(body["messages"][-1]["content"].split("plus ")[1].split(".")[0])
    return completion(fenced(f"print(int(input()) + {wanted if wanted % 2 == 0 else 99})"))


def recipe_for(problems: Path, out: Path, **fields: Any) -> EvaluationRecipe:
    base: dict[str, Any] = {
        "suite": "sums",
        "output_dir": str(out),
        "data": {"problems": str(problems)},
        "sampling": {"n": 2, "k": [1, 2], "temperature": 0.7, "batch_size": 4},
        "judge": {"workers": 1},
    }
    return EvaluationRecipe.model_validate(base | fields)


def asking(url: str, **fields: Any) -> dict[str, Any]:
    return {"endpoint": {"url": url, "model": "tiny", "tries": 3, **fields}}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sample_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for problem in PROBLEMS:
        rows.append({"task_id": problem.title.upper(), "completion": fenced(problem.solutions[0].code)})
        rows.append({"problem_id": problem.id, "program": "print(1)", "tokens": 3, "finish_reason": "length"})
    return rows


def own_suite(tmp_path: Path, **data: Any) -> Path:
    path = tmp_path / "own.yaml"
    body = {"suite": "own", "description": "ours", "data": {"problems": "{data}"} | data,
            "sampling": {"n": 1, "k": [1], "greedy": False}}  # fmt: skip
    path.write_text(json.dumps(body))
    return path


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])
