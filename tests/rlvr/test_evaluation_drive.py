"""DRIVE's five columns, from files in the published layouts to the tables; a server that answers, the real judge."""

from __future__ import annotations

import datetime
import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint_server import completion, serving
from sums import WORDS, fenced, invoke, solver, write_rows

from rlvr.evaluation import read_results
from rlvr.evaluation.problems import suite_problems
from rlvr.evaluation.suites import load_suites, suite_recipe

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "schema_samples"


def livecodebench(name: str, day: str, number: int, title: str = "") -> dict[str, Any]:
    """A row as LiveCodeBench publishes it, which asks for a number plus `number`."""
    story = " ".join(random.Random(name).choices(WORDS, k=60))
    tests = [{"input": f"{x}\n", "output": f"{x + number}\n", "testtype": "stdin"} for x in (1, 5)]
    return {
        "question_title": title or name,
        "question_content": f"Read one number and print it plus {number}. {story}",
        "platform": "atcoder",
        "question_id": name,
        "contest_id": "abc",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(tests[:1]),
        "private_test_cases": json.dumps(tests[1:]),
        "metadata": "{}",
    }


LEETCODE = {
    "task_id": "weekly-contest-500-add-two",
    "title": "add-two",
    "meta": {"title": "Add Two", "titleSlug": "add-two", "difficulty": "Easy"},
    "prompt": '"""\nReturn x plus 2. Nothing else.\n"""\nclass Solution:\n    def add(self, x: int) -> int:\n        ',
    "prompt_sft": "",
    "test": "my_solution = Solution()\n"
    + "".join(f'test_input = {{ "x": {x} }}\nassert my_solution.add(**test_input) == {x + 2}\n' for x in (1, 4)),
    "start_time": int(datetime.datetime(2025, 6, 1, tzinfo=datetime.UTC).timestamp()),
}
CODEFORCES = {
    "id": "2000/A",
    "contest_id": "2000",
    "index": "A",
    "title": "Plus",
    "description": "Read one number and print it plus 4. It is small.",
    "contest_start": int(datetime.datetime(2025, 7, 1, tzinfo=datetime.UTC).timestamp()),
    "time_limit": 1.0,
    "memory_limit": 64.0,
    "rating": 800,
    "tags": ["math"],
    "official_tests": [{"input": "5", "output": "9"}],
    "official_tests_complete": True,
    "examples": [{"input": "1\n", "output": "5\n"}],
    "input_mode": "stdio",
    "aliases": None,
    "input_format": "One number.",
    "output_format": "One number.",
    "interaction_format": None,
    "note": None,
    "generated_checker": None,
    "executable": True,
    "generated_tests": 0,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder that `--suite drive` reads."""
    folder = tmp_path / "data"
    releases = folder / "livecodebench"
    releases.mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {
        "test": [livecodebench("abc311_c", "2023-07-22", 2)],
        "test2": [livecodebench("abc360_a", "2024-06-30", 2)],
        "test3": [livecodebench("abc365_a", "2024-08-01", 2), livecodebench("abc362_c", "2024-09-01", 2)],
        "test4": [livecodebench("abc370_a", "2024-07-31", 2)],
        "test5": [livecodebench("abc382_a", "2024-11-30", 3), livecodebench("abc387_a", "2024-12-28", 2)],
        "test6": [
            livecodebench("abc390_a", "2025-02-01", 4),
            livecodebench("3466", "2025-02-02", 2, "Generate Binary Strings Without Adjacent Zeros"),
        ],
    }
    for name, members in rows.items():
        write_rows(releases / f"{name}.jsonl", members)
    with gzip.open(folder / "leetcode-contest.jsonl.gz", "wt") as file:
        file.write(json.dumps(LEETCODE) + "\n")
    pq.write_table(pa.Table.from_pylist([CODEFORCES]), folder / "codeforces.parquet")
    return folder


def problems_of(name: str, data: Path, *overrides: str) -> list[str]:
    (suite,) = load_suites(name)
    recipe = suite_recipe(suite, "out", data=str(data), model={"name_or_path": "m"}, overrides=overrides)
    return [problem.id.rpartition("/")[2] for problem in suite_problems(recipe)]


def test_columns_are_cut_by_release_by_window_and_by_the_errata(data: Path) -> None:
    assert problems_of("drive-livecode-08-11", data) == ["abc365_a", "abc382_a"]  # both ends of the window
    assert problems_of("drive-livecode-v5", data) == ["abc382_a", "abc387_a"]
    assert problems_of("drive-livecode-v6", data) == [
        "abc390_a"
    ]  # by the slug of its title the other is known as wrong
    assert problems_of("drive-leetcode", data, "data.after=2025-01-01") == ["add-two"]
    assert problems_of("drive-codeforces", data, "data.after=2025-01-01") == ["A"]


def test_the_five_columns_come_from_one_command(data: Path, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> tuple[int, str]:
        if "class Solution" in body["messages"][-1]["content"]:
            return completion(fenced("class Solution:\n    def add(self, x):\n        return x + 2\n"))
        return solver(body, number)

    with serving(answer) as (url, requests):
        done = invoke("--suite", "drive", "--data", data, "--endpoint", url, "--model", "m", "--out", tmp_path / "e",
                      "--trained-on", f"livecodebench:{data}/livecodebench@v6", "judge.workers=1")  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    assert len(requests) == 7 * 10 and {request["max_tokens"] for request in requests} == {32768}
    found = {suite.suite: read_results(tmp_path / "e" / "m" / suite.suite) for suite in load_suites("drive")}
    assert {name: (r.n_samples, r.n_problems, r.results[name].pass_at[10].value) for name, r in found.items()} == {
        "drive-livecode-08-11": (10, 2, 0.5),
        "drive-livecode-v5": (10, 2, 0.5),
        "drive-livecode-v6": (10, 1, 1.0),
        "drive-leetcode": (10, 1, 1.0),
        "drive-codeforces": (10, 1, 1.0),
    }
    overlapping = {name: r.config["contamination"]["overlapping_problems"] for name, r in found.items()}
    assert overlapping["drive-livecode-v6"] == 1 and overlapping["drive-codeforces"] == 0
    assert "avg@1 0.500" in done.output and "DRIVE RL 32B avg@1 0.703" in done.output  # V6, as published


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"needs the rows in {SAMPLES}")
def test_rows_of_the_published_layout_are_cut_to_the_window(tmp_path: Path) -> None:
    folder = tmp_path / "livecodebench"
    folder.mkdir()
    shutil.copy(SAMPLES / "livecodebench_code_generation_lite.jsonl", folder / "test5.jsonl")
    assert problems_of("drive-livecode-08-11", tmp_path) == ["3243", "3244"]
    assert len(problems_of("drive-livecode-v5", tmp_path)) == 8
