"""Continuous batching samples with the policy: tokens and log-probabilities, heard as they end; failures by name."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
import torch
from test_grpo_trainer import recipe
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

from rlvr.config import RecipeError
from rlvr.rollouts import continuous
from rlvr.rollouts.continuous import sample_continuously
from rlvr.rollouts.policy_engine import EngineFailure
from rlvr.rollouts.sampling import sample
from rlvr.training import engines
from rlvr.training.grpo import train_grpo

LIMIT = 12


@pytest.fixture
def policy(warm_model) -> tuple[Any, list[list[int]], list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(warm_model)
    texts = ["reverse the list"] * 3 + ["sort the list and print its first"] * 2 + ["print"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    return AutoModelForCausalLM.from_pretrained(warm_model), prompts, [tokenizer.eos_token_id]


def drawn(
    policy: tuple[Any, list[list[int]], list[int]], finished: Any = None, patience_s: float = 45, **config: Any
) -> Any:
    model, prompts, ends = policy
    return sample_continuously(
        model,
        prompts,
        list(reversed(range(len(prompts)))),
        generation_config=GenerationConfig(max_new_tokens=LIMIT, pad_token_id=0, eos_token_id=ends, **config),
        batching=ContinuousBatchingConfig(block_size=8),
        end_token_ids=ends,
        finished=finished,
        patience_s=patience_s,
    )


def test_greedy_rollouts_are_those_of_the_default_engine_in_the_prompts_order(policy):
    model, prompts, ends = policy
    heard: dict[int, list[int]] = {}
    done = drawn(policy, heard.__setitem__, do_sample=False)
    config = GenerationConfig(max_new_tokens=LIMIT, pad_token_id=0, eos_token_id=ends, do_sample=False)
    tokens, logps = sample(
        model, prompts, generation_config=config, pad_token_id=0, end_token_ids=ends, fast=True, finished=None
    )
    assert done.tokens == tokens and heard == dict(enumerate(tokens))
    assert logps is not None and len({len(row) for row in tokens}) > 1
    for ours, other in zip(done.logps, logps, strict=True):
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(other), atol=1e-4, rtol=0)


def test_a_seed_fixes_what_is_drawn_and_cut_probabilities_are_not_given(policy):
    rows = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        rows.append(drawn(policy, do_sample=True, temperature=1.0, top_k=0).tokens)
    assert rows[0] == rows[1] != rows[2]
    assert drawn(policy, do_sample=True, top_k=4).logps is None
    assert drawn(policy, do_sample=True, top_k=0, top_p=0.9).logps is None


def test_a_rollout_that_fails_is_an_engine_failure_with_its_reason(policy):
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no kernel for this")

    policy[0].model.layers[0].register_forward_hook(broken)
    with pytest.raises(EngineFailure, match=r"^continuous batching: a rollout failed \(no kernel for this\)$"):
        drawn(policy, do_sample=False)


def test_a_thread_that_ends_is_an_engine_failure(policy, monkeypatch):
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

    monkeypatch.setattr(ContinuousBatchingManager, "_run_generation_loop", lambda self, *arguments: None)
    with pytest.raises(EngineFailure, match=r"^continuous batching: its thread ended with 0 of 6 rollouts done"):
        drawn(policy, do_sample=False)


def test_a_thread_that_hangs_is_an_engine_failure_and_one_at_work_is_not(policy, monkeypatch):
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

    let_go = threading.Event()
    monkeypatch.setattr(continuous, "_SLICE_S", 0.2)
    inner = policy[0].forward
    slow = iter(range(1))

    def at_work(*arguments: Any, **options: Any) -> Any:
        ends = time.process_time() + (1.2 if next(slow, None) is not None else 0)
        while time.process_time() < ends:
            pass
        return inner(*arguments, **options)

    monkeypatch.setattr(policy[0], "forward", at_work)
    assert len(drawn(policy, do_sample=False, patience_s=0.6).tokens) == 6
    monkeypatch.setattr(ContinuousBatchingManager, "_run_generation_loop", lambda self, *arguments: let_go.wait())
    monkeypatch.setattr(ContinuousBatchingManager, "stop", lambda self, **options: let_go.set())  # that would wait 5 s
    with pytest.raises(EngineFailure, match=r"^continuous batching: has hung for 1 s with 0 of 6 rollouts done$"):
        drawn(policy, do_sample=False, patience_s=0.6)


@pytest.mark.parametrize("adapter", [None, {"rank": 4}], ids=["whole", "lora"])
def test_a_run_trains_on_what_it_sampled(warm_model, problems_file, tmp_path, adapter):
    few = {"problems_per_step": 3, "max_completion_length": 20, "max_steps": 2, "learning_rate": 1e-2}
    few["extra"] = {"use_transformers_continuous_batching": True}
    shaped = {"overlong_buffer": 18}  # lengths differ, so there is something to learn whatever passes
    train_grpo(recipe(warm_model, problems_file, tmp_path / "run", grpo=few, reward=shaped, lora=adapter))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["grad_norm"] > 0
    assert all(line["sampling/logprob_gap"] < 1e-4 for line in lines)  # of the second step's too: no copy is stale


def test_sharded_weights_are_refused(warm_model, problems_file, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "shards_weights", lambda accelerator: True)
    few = {"problems_per_step": 3, "max_completion_length": 20, "max_steps": 1}
    few["extra"] = {"use_transformers_continuous_batching": True}
    with pytest.raises(RecipeError, match=r"continuous_batching needs every process to hold the whole model"):
        train_grpo(recipe(warm_model, problems_file, tmp_path / "run", grpo=few))
