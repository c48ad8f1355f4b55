"""Repacked updates: the gradient of TRL's own loss on TRL's own micro-batches, for less work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from rlvr.algorithms.correction import leave_out, loss_mask
from rlvr.algorithms.packing import DENOMINATOR, PackedUpdate

ROWS, SLOTS, PROMPT, COMPLETION = 12, 3, 5, 8


def batches(seed: int = 1, *, signal: float = 0.5, old: bool = True) -> list[dict]:
    """An update of 3 micro-batches of 4 rows, of prompts of 3 or 5 and completions of 1 to 8 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, COMPLETION + 1, (ROWS,), generator=generator)
    prompts = torch.randint(0, 2, (ROWS,), generator=generator) * 2 + 3
    advantages = torch.randn(ROWS, generator=generator, dtype=torch.float64)
    advantages[torch.rand(ROWS, generator=generator) > signal] = 0.0
    whole = {
        "prompt_ids": torch.randint(2, 600, (ROWS, PROMPT), generator=generator),
        "prompt_mask": torch.stack([torch.tensor([0] * (PROMPT - n) + [1] * n) for n in prompts.tolist()]),
        "completion_ids": torch.randint(2, 600, (ROWS, COMPLETION), generator=generator),
        "completion_mask": torch.stack([torch.tensor([1] * n + [0] * (COMPLETION - n)) for n in lengths.tolist()]),
        "advantages": advantages,
    }
    if old:
        whole["old_per_token_logps"] = torch.full((ROWS, COMPLETION), -6.0, dtype=torch.float64)
    size = ROWS // SLOTS
    return [
        {name: value[start : start + size] for name, value in whole.items()}
        | {"num_items_in_batch": whole["completion_mask"].sum()}
        for start in range(0, ROWS, size)
    ]


@pytest.fixture(scope="module")
def trainers(tiny_model):
    """TRL's own trainer in double precision, one for each loss, all on one model."""
    made = {}

    def make(loss_type: str) -> GRPOTrainer:
        if loss_type not in made:
            made[loss_type] = GRPOTrainer(
                model=AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64),
                processing_class=AutoTokenizer.from_pretrained(tiny_model, padding_side="left"),
                reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
                args=GRPOConfig(
                    output_dir="unused",
                    loss_type=loss_type,
                    use_cpu=True,
                    report_to="none",
                    num_generations=2,
                    max_completion_length=COMPLETION,
                    per_device_train_batch_size=ROWS // SLOTS,
                    gradient_accumulation_steps=SLOTS,
                    bf16=False,
                    gradient_checkpointing=False,
                ),
                train_dataset=Dataset.from_list([{"prompt": "a"}] * ROWS),
            )
            made[loss_type].current_gradient_accumulation_steps = SLOTS
        return made[loss_type]

    return make


def update(trainer: GRPOTrainer, micro_batches: list[dict]) -> tuple[float, list[torch.Tensor]]:
    trainer.model.train()
    trainer.model.zero_grad()
    total = 0.0
    for batch in micro_batches:
        if batch:
            loss = trainer._compute_loss(trainer.model, dict(batch))
            loss.backward()
            total += loss.item()
    return total, [p.grad.clone() for p in trainer.model.parameters()]


def distance(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Length of the difference, as a share of ours. Norms and rotary angles are in single precision even here."""
    return float(torch.stack([(a - b).norm() for a, b in zip(ours, theirs, strict=True)]).norm()) / float(
        torch.stack([a.norm() for a in ours]).norm()
    )


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("loss_type", sorted(DENOMINATOR))
def test_the_gradient_of_an_update_is_the_one_of_trls_micro_batches(trainers, loss_type, trim):
    trainer = trainers(loss_type)
    given = batches()
    loss, gradient = update(trainer, given)
    packed = PackedUpdate(given, loss_type, trim_prompts=trim)
    for count in range(packed.wanted, SLOTS + 1):
        ours = packed.micro_batches(count)
        assert len(ours) == SLOTS and all(ours[SLOTS - count :]) and not any(ours[: SLOTS - count])
        our_loss, our_gradient = update(trainer, ours)
        assert our_loss == pytest.approx(loss, rel=1e-7, abs=1e-9)
        assert distance(our_gradient, gradient) < 1e-6
    assert distance(gradient, [torch.zeros_like(g) for g in gradient]) > 1e-3
    assert sum(len(b["advantages"]) for b in ours if b) == sum(int((b["advantages"] != 0).sum()) for b in given)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_a_row_whose_tokens_are_all_masked_is_left_out_and_still_counted(trainers, loss_type):
    given = batches(2, signal=1.0)
    given[0]["completion_mask"] = given[0]["completion_mask"].clone()
    given[0]["completion_mask"][1] = 0  # what mask_truncated_completions does
    loss, gradient = update(trainers(loss_type), given)
    packed = PackedUpdate(given, loss_type, trim_prompts=False)
    assert len(packed.kept) == ROWS - 1
    our_loss, our_gradient = update(trainers(loss_type), packed.micro_batches(packed.wanted))
    assert our_loss == pytest.approx(loss, rel=1e-9)
    assert distance(our_gradient, gradient) < 1e-6


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo"])
def test_a_rejected_row_leaves_the_denominator_too(trainers, loss_type):
    given = batches(5, signal=1.0)
    without = [dict(batch) for batch in given]
    without[1] = {n: v[1:] if v.ndim else v for n, v in given[1].items()}
    items = sum(int(batch["completion_mask"].sum()) for batch in without)
    for batch, same in zip(given, without, strict=True):
        batch["num_items_in_batch"] = same["num_items_in_batch"] = torch.tensor(items)
        batch["rejected"] = torch.zeros(len(batch["advantages"]), dtype=torch.bool)
    ratio = torch.ones(len(given[1]["advantages"]), 1)
    ratio[0] = 0.0  # what TRL's MIS over sequences masks
    gone = leave_out(given[1], torch.ones(len(ratio), dtype=torch.bool), ratio)
    assert 0 < gone < 1 and given[1]["rejected"].tolist() == [True, *[False] * (len(ratio) - 1)]
    _, gradient = update(trainers(loss_type), without)
    packed = PackedUpdate(given, loss_type, trim_prompts=False)
    _, our_gradient = update(trainers(loss_type), packed.micro_batches(packed.wanted))
    assert distance(our_gradient, gradient) < 1e-6


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo"])
def test_a_masked_token_leaves_the_denominator_and_is_still_attended_to(trainers, loss_type):
    given = batches(6, signal=1.0)
    for batch in given:
        ratio = torch.ones(batch["completion_mask"].shape)
        ratio[0, 0] = 0.0  # what TRL's MIS over tokens masks
        leave_out(batch, torch.ones(len(ratio), dtype=torch.bool), ratio)
        assert batch["completion_mask"][0, 0] == 1 and loss_mask(batch)[0, 0] == 0
    items = sum(int(loss_mask(batch).sum()) for batch in given)
    for batch in given:
        batch["num_items_in_batch"] = torch.tensor(items)
    _, gradient = update(trainers(loss_type), given)
    packed = PackedUpdate(given, loss_type, trim_prompts=False)
    _, our_gradient = update(trainers(loss_type), packed.micro_batches(packed.wanted))
    assert distance(our_gradient, gradient) < 1e-6
    for batch in given:  # told by hand: the loss of the tokens left, divided by their number
        del batch["tool_mask"]
        batch["advantages"] = batch["advantages"][:, None] * torch.ones(batch["completion_mask"].shape)
        batch["advantages"][0, 0] = 0.0
        if loss_type == "grpo":
            count = batch["completion_mask"][0].sum()
            batch["advantages"][0] *= count / (count - 1).clamp(min=1)
    if loss_type == "bnpo":
        for batch in given:
            count = batch["completion_mask"].sum()
            batch["advantages"] *= count / (count - 1)
    _, by_hand = update(trainers(loss_type), given)
    assert distance(gradient, by_hand) < 1e-6


def test_without_any_signal_one_row_of_loss_zero_stays():
    given = batches(3, signal=-1.0)
    packed = PackedUpdate(given, "dapo")
    assert packed.wanted == 1 and packed.skipped == pytest.approx(1 - 1 / ROWS)
    *empty, last = packed.micro_batches(1)
    assert not any(empty) and last["advantages"].tolist() == [0.0]


def test_a_process_with_few_rows_makes_as_many_passes_as_the_others():
    given = batches(4, signal=0.01)
    for batch in given:
        batch["advantages"] = torch.zeros_like(batch["advantages"])
    given[1]["advantages"][2] = 1.0
    made = PackedUpdate(given, "dapo").micro_batches(3)
    assert [batch["advantages"].tolist() for batch in made] == [[0.0], [0.0], [1.0]]


def test_absolute_positions_keep_the_padding_before_the_prompts():
    made = PackedUpdate(batches(), "dapo", trim_prompts=False).micro_batches(3)
    assert {batch["prompt_ids"].shape[1] for batch in made} == {PROMPT}


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), min_size=1, max_size=600),
    size=st.integers(1, 16),
    overhead=st.integers(0, 200),
    seed=st.integers(0, 9),
)
def test_every_row_with_a_signal_is_run_once_and_no_micro_batch_outgrows_the_given_ones(lengths, size, overhead, seed):
    lengths = lengths * (1 if len(lengths) % 7 else 2)  # beyond a few hundred rows cuts are found greedily
    slots = -(-len(lengths) // size)
    lengths = (lengths * 2)[: slots * size] if len(lengths) < slots * size <= 2 * len(lengths) else lengths
    slots = max(1, len(lengths) // size)
    lengths = lengths[: slots * size] if len(lengths) >= size else lengths
    size = len(lengths) // slots
    lengths = lengths[: slots * size]
    prompt, completion = max(p for p, _ in lengths), max(c for _, c in lengths)
    signal = np.random.default_rng(seed).random(len(lengths)) < 0.6

    def rows(start: int) -> dict:
        chosen = range(start, start + size)
        return {
            "prompt_ids": torch.stack([torch.full((prompt,), i) for i in chosen]),
            "prompt_mask": torch.stack(
                [torch.tensor([0] * (prompt - lengths[i][0]) + [1] * lengths[i][0]) for i in chosen]
            ),
            "completion_ids": torch.stack([torch.full((completion,), i) for i in chosen]),
            "completion_mask": torch.stack(
                [torch.tensor([1] * lengths[i][1] + [0] * (completion - lengths[i][1])) for i in chosen]
            ),
            "advantages": torch.tensor([float(signal[i]) for i in chosen]),
        }

    packed = PackedUpdate([rows(s * size) for s in range(slots)], "dapo", overhead=overhead)
    room = size * (prompt + completion)
    for count in (packed.wanted, slots):
        made = [batch for batch in packed.micro_batches(count) if batch]
        run = sorted(i for b in made for i in b["prompt_ids"][b["advantages"] != 0, -1].tolist())
        assert run == [i for i in range(len(lengths)) if signal[i]]
        for batch in made:
            width = batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]
            assert len(batch["advantages"]) * width <= max(room, width)
            for row in range(len(batch["advantages"])):
                i = int(batch["prompt_ids"][row, -1])
                assert int(batch["prompt_mask"][row].sum()) == lengths[i][0]
                assert int(batch["completion_mask"][row].sum()) == lengths[i][1]
