"""Exported rows are judged by the functions that TRL, verl and SkyRL call."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

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


@pytest.mark.parametrize("layout", ["trl", "verl", "skyrl"])
def test_exported_files_load_with_the_datasets_library_as_they_are(source, layout, tmp_path):
    import datasets

    rows, _ = exported(source, layout)
    path = str(source.with_name(f"{layout}.parquet"))
    found = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert found.to_list() == rows and found[0]["prompt"][0].keys() == {"role", "content"}


@pytest.mark.slow
def test_trls_own_trainer_takes_a_step_on_an_exported_set_with_the_exported_reward(source, tmp_path, tiny_model):
    """The stock trainer; its policy can only answer with one right and one wrong program, so that rewards differ."""
    import datasets
    import torch
    import trl
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answers = {"```python\nprint(sum(map(int, input().split())))\n```": 1.0, "```python\nprint(3)\n```": 0.0}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, padding_side="left")
    tokenizer.add_tokens([AddedToken(answer, special=False, normalized=False) for answer in answers])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    possible = {tokenizer.convert_tokens_to_ids(answer) for answer in answers}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[tuple[str, float]] = []

    def reward(completions, **columns):
        found = trl_reward(completions, **columns)
        seen.extend((completion[0]["content"], score) for completion, score in zip(completions, found, strict=True))
        return found

    exported(source, "trl", "--limit", "1")
    rows = datasets.load_dataset("parquet", data_files=str(source.with_name("trl.parquet")), split="train")
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=reward,
        train_dataset=rows,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "run"),
            max_steps=1,
            per_device_train_batch_size=8,
            num_generations=8,
            max_completion_length=1,
            generation_kwargs={"suppress_tokens": [n for n in range(len(tokenizer)) if n not in possible]},
            use_cpu=True,
            bf16=False,
            learning_rate=1e-2,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            seed=3,
        ),
    )
    trainer.train()
    assert len(seen) == 8 and {score for _, score in seen} == {0.0, 1.0}
    assert all(answers[answer] == score for answer, score in seen)
    (log,) = [line for line in trainer.state.log_history if "reward" in line]
    assert log["reward"] == pytest.approx(sum(score for _, score in seen) / 8)
    after = trainer.model.state_dict()
    assert any(not torch.equal(before[name], after[name].cpu()) for name in before)
