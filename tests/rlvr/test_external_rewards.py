"""Exported rows are judged by the functions that TRL, verl and SkyRL call."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from data_curation import Problem, Test, save_problems
from data_curation.sources.calls import call_test, target
from rlvr.cli import cli
from rlvr.rewards.external import compute_score, trl_reward

SUM = Problem(id="sum", statement="Add.", tests=[Test(input="1 2\n", output="3\n"), Test(input="3 4\n", output="7\n")])
TWICE = Problem(id="twice", statement="Double.", tests=[call_test(target("twice"), [n], 2 * n) for n in (1, 5)])
RIGHT = {
    "sum": "```python\nprint(sum(map(int, input().split())))\n```",
    "twice": "So:\n```python\ndef twice(n):\n    return 2 * n\n```",
}
WRONG = {"sum": "```python\nprint(3)\n```", "twice": "```python\ndef twice(n):\n    return 2\n```"}


@pytest.fixture
def source(tmp_path):
    save_problems([SUM, TWICE], tmp_path / "problems.parquet")
    return tmp_path / "problems.parquet"


def exported(source, layout, *options):
    out = source.with_name(f"{layout}.parquet")
    done = CliRunner().invoke(cli, ["export", layout, str(source), "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    return pq.read_table(out).to_pylist(), done.output


def test_trl_reads_the_problem_column(source):
    rows, output = exported(source, "trl")
    assert output == f"{source.with_name('trl.parquet')}: 2 rows\n"
    ids = [row["problem_id"] for row in rows for _ in range(2)]
    completions = [[{"role": "assistant", "content": text[i]}] for i in ("sum", "twice") for text in (RIGHT, WRONG)]
    rewards = trl_reward(completions, [row["problem"] for row in rows for _ in range(2)], prompts=ids)
    assert rewards == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("options", [(), ("--own-reward",)])
@pytest.mark.parametrize(("layout", "column"), [("verl", "reward_model"), ("skyrl", "reward_spec")])
def test_verl_and_skyrl_read_the_ground_truth(source, layout, column, options):
    rows, _ = exported(source, layout, *options)
    for row in rows:
        name = row["extra_info"]["problem_id"]
        for answer, reward in ((RIGHT[name], 1.0), (WRONG[name], 0.0)):
            truth = row[column]["ground_truth"]
            assert compute_score(row["data_source"], answer, truth, row["extra_info"]) == reward


def test_a_dry_run_writes_nothing(source):
    done = CliRunner().invoke(cli, ["export", "verl", str(source), "--out", str(source.with_name("v")), "--dry-run"])
    assert "2 rows" in done.output and not source.with_name("v").exists()
