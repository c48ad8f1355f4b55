"""The decoding loop for groups: the samples of transformers' own loop, with less work and earlier news."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rlvr.rollouts.sampling import GroupSampler, same_prompts, sample

ENDS = list(range(1, 12))
GROUPS, GROUP = 5, 6


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def model(request):
    torch.manual_seed(0)
    size = {
        "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "initializer_range": 0.2,
    }  # fmt: skip
    if request.param == "llama":
        return LlamaForCausalLM(LlamaConfig(**size)).eval()
    return Qwen3ForCausalLM(Qwen3Config(**size, num_key_value_heads=1, head_dim=16)).eval()


def config(**changes) -> GenerationConfig:
    values = {"max_new_tokens": 20, "do_sample": True, "top_k": 0, "pad_token_id": 0, "eos_token_id": ENDS}
    return GenerationConfig(**{**values, **changes}, disable_compile=True)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    distinct = [torch.randint(12, 100, (n,), generator=generator).tolist() for n in (3, 9, 5, 5, 7)]
    return [ids for ids in distinct for _ in range(GROUP)]


@pytest.mark.parametrize("changes", [{}, {"top_k": 5}, {"top_p": 0.8, "temperature": 0.7}, {"repetition_penalty": 1.3}])
def test_the_samples_are_those_of_generates_own_loop(model, changes, monkeypatch):
    monkeypatch.setattr("rlvr.rollouts.sampling._ROOM", 3)  # the cache grows many times
    heard: dict[int, list[int]] = {}
    runs = []
    for fast, finished in ((False, None), (True, heard.__setitem__)):
        torch.manual_seed(5)
        runs.append(
            sample(
                model,
                prompts(),
                generation_config=config(**changes),
                pad_token_id=0,
                end_token_ids=ENDS,
                fast=fast,
                finished=finished,
            )[0]
        )
        after = torch.rand(1)
    assert runs[0] == runs[1]
    assert heard == dict(enumerate(runs[1]))  # every row is reported once, with all its tokens
    assert len({len(row) for row in runs[1]}) > 3
    torch.manual_seed(5)
    assert after != torch.rand(1)


def test_rows_that_are_done_cost_nothing_and_a_prompt_is_prefilled_once(model):
    ids = prompts()
    sampler = GroupSampler(None, same_prompts(ids))
    width = max(map(len, ids))
    seen = []
    handle = model.register_forward_pre_hook(lambda _, __, kw: seen.append(kw["input_ids"].shape), with_kwargs=True)
    try:
        out = model.generate(
            input_ids=torch.tensor([[0] * (width - len(row)) + row for row in ids]),
            attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
            generation_config=config(),
            custom_generate=sampler,
        )
    finally:
        handle.remove()
    assert seen[0] == (GROUPS, width)
    sizes = [rows for rows, _ in seen[1:]]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < GROUPS * GROUP / 2
    assert sampler.forward_rows == sum(sizes) < 0.7 * len(sizes) * GROUPS * GROUP
    assert out.shape[0] == GROUPS * GROUP


def test_greedy_decoding_needs_no_random_numbers(model):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    greedy = GenerationConfig(
        max_new_tokens=9, do_sample=False, pad_token_id=0, eos_token_id=ENDS, disable_compile=True
    )
    fast, slow = (
        sample(model, prompts(), generation_config=greedy, pad_token_id=0, end_token_ids=ENDS, fast=fast)[0]
        for fast in (True, False)
    )
    assert fast == slow and torch.equal(before, torch.get_rng_state())


def test_generates_own_loop_also_tells_of_rows_that_end_early(model):
    heard: dict[int, list[int]] = {}
    torch.manual_seed(5)
    rows, logps = sample(
        model,
        prompts(),
        generation_config=config(),
        pad_token_id=0,
        end_token_ids=ENDS,
        fast=False,
        finished=heard.__setitem__,
    )
    assert heard == {row: tokens for row, tokens in enumerate(rows) if tokens[-1] in ENDS} and logps is None


def test_the_log_probabilities_are_the_models_own_at_the_temperature(model):
    ids = prompts()
    rows, logps = sample(
        model, ids, generation_config=config(temperature=0.7, top_p=0.9), pad_token_id=0, end_token_ids=ENDS
    )
    assert logps is not None
    for prompt, tokens, found in list(zip(ids, rows, logps, strict=True))[::7]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = logits.log_softmax(-1)[range(len(tokens)), tokens]
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-4)
