"""Balancing while a toy model is trained: what each rule, and the auxiliary loss, make of the load and of the loss.

    python benchmarks/moe_balancing_training.py [--steps 300]

A language model of two layers, 16 experts, 4 a token, its routers skewed on purpose, learns a drawn Markov chain. The
session, the controller and the auxiliary loss are those of a run. One seed: it shows the mechanism, not quality.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, Glm4MoeConfig, Qwen3MoeConfig

from rlvr.config.moe import BalanceSection, MoESection
from rlvr.moe.balancer import ExpertBalancer
from rlvr.moe.session import RoutingSession
from rlvr.moe.statistics import max_violation

LAST = 50
VOCABULARY = 64
SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts_per_tok": 4,
    "norm_topk_prob": True,
}
FAMILIES: dict[str, tuple[Any, tuple[tuple[str, float], ...]]] = {
    "glm4_moe": (
        lambda: Glm4MoeConfig(**SIZE, n_routed_experts=16, n_shared_experts=1, first_k_dense_replace=0),
        (("off", 0.0), ("sign", 1e-3), ("sign", 1e-2), ("proportional", 1e-2), ("inverse", 1.0)),
    ),
    "qwen3_moe": (
        lambda: Qwen3MoeConfig(**SIZE, num_experts=16),
        (("off", 0.0), ("aux", 1e-2), ("aux", 1e-1), ("sign", 1e-4), ("sign", 1e-3), ("proportional", 1e-1)),
    ),
}


def built(family: str) -> Any:
    """The toy model; all embeddings share a direction to which experts answer differently, so the load is skewed."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family][0]())
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.03)
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.normal_(std=0.1).add_(0.03 * torch.randn(parameter.shape[0], 1))
    return model.train()


def markov_batches(steps: int) -> list[torch.Tensor]:
    """Batches [16, 32] of a chain whose every state has a few likely successors."""
    rng = np.random.default_rng(0)
    cumulative = rng.dirichlet(np.full(VOCABULARY, 0.1), size=VOCABULARY).cumsum(axis=1)
    batches = []
    for _ in range(steps):
        rows = rng.integers(0, VOCABULARY, size=(16, 1))
        for _ in range(31):
            following = (rng.random((16, 1)) > cumulative[rows[:, -1]]).sum(axis=1, keepdims=True)
            rows = np.concatenate([rows, following.clip(max=VOCABULARY - 1)], axis=1)
        batches.append(torch.from_numpy(rows))
    return batches


def trained(family: str, rule: str, rate: float, batches: list[torch.Tensor]) -> tuple[float, float, float]:
    """(MaxVio of a batch, MaxVio of the sum, loss), each over the last 50 steps and the mean of the layers."""
    aux = rate if rule == "aux" else 0.0
    balance = BalanceSection.model_validate({"rule": "off"} if rule in ("off", "aux") else {"rule": rule, "rate": rate})
    model = built(family)
    session = RoutingSession(model, MoESection(replay="off", balance=balance, aux_loss_coef=aux))
    balancer = ExpertBalancer(session, balance)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    violations, losses = [], []
    total = np.zeros((len(session.tap.layers), session.tap.experts))
    for step, tokens in enumerate(tqdm(batches, desc=f"{family} {rule} {rate:g}", mininterval=5)):
        session.before_update({})
        logits = model(tokens, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        whole = loss + aux * session.aux_loss() if aux else loss
        optimizer.zero_grad()
        whole.backward()
        optimizer.step()
        session.flush()
        counts = session.load.counts["all"]
        session.take_metrics()
        balancer.update()
        if step >= len(batches) - LAST:
            violations.append(float(max_violation(counts).mean()))
            total += counts
            losses.append(loss.item())
    return float(np.mean(violations)), float(max_violation(total).mean()), float(np.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    if steps < LAST:
        raise SystemExit(f"--steps {steps}: at least {LAST}, over which the figures are taken")
    torch.set_num_threads(1)
    batches = markov_batches(steps)
    print(f"{'family':10s} {'rule':13s} {'rate':>7s}  batch    sum   loss   (last {LAST} of {steps} steps)")
    for family, (_, rules) in FAMILIES.items():
        for rule, rate in rules:
            batch, window, loss = trained(family, rule, rate, batches)
            print(f"{family:10s} {rule:13s} {rate:7g}  {batch:5.2f}  {window:5.2f}  {loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
