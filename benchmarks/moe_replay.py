"""How far a trainer's log-probabilities lie from vLLM's, with and without the sampler's routes replayed.

    python benchmarks/moe_replay.py --family qwen3_moe --dtype bfloat16 --out result.json

needs an environment with vLLM (the CPU build will do). A tiny model with random weights is sampled by vLLM, the routes
are captured inside, and transformers scores the same tokens in float32. Prints JSON: the gap free and replayed, the
share of tokens sent to the same experts by layer, and whether a weight update would fill every parameter of the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def tiny_checkpoint(family: str, folder: Path) -> Path:
    """A random model of four layers and 16 experts with a router that decides; no tokenizer."""
    import torch
    from deciding_routers import let_routers_decide
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"qwen3_moe": {"num_experts": 16}, "glm4_moe": {"n_routed_experts": 16, "n_group": 1, "topk_group": 1}}
    config = AutoConfig.for_model(
        family,
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts_per_tok=4,
        norm_topk_prob=True,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        **sizes[family],
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    let_routers_decide(model)
    model.save_pretrained(folder)
    return folder


def measure(folder: Path, dtype: str, prompts: int, new_tokens: int) -> dict[str, Any]:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM
    from vllm import LLM
    from vllm import __version__ as version

    from rlvr.moe.facts import inspect_model
    from rlvr.moe.mismatch import token_gap
    from rlvr.moe.routes import RouteShape, aligned
    from rlvr.moe.statistics import agreement
    from rlvr.moe.sync import Manifest, checkpoint_state, coverage
    from rlvr.moe.tap import RoutingTap
    from rlvr.rollouts.vllm_routes import engine_model, sample_with_routes

    llm = LLM(
        model=str(folder), dtype=dtype, enforce_eager=True, skip_tokenizer_init=True,
        enable_prefix_caching=False, max_num_seqs=8, max_num_batched_tokens=32, max_model_len=256,
        gpu_memory_utilization=0.1, seed=0, logprobs_mode="processed_logprobs",
    )  # fmt: skip
    facts = inspect_model(str(folder))
    shape = RouteShape.of(facts)
    rng = np.random.default_rng(0)
    asked = [rng.integers(3, 512, rng.integers(8, 24)).tolist() for _ in range(prompts)]
    sampling = {"temperature": 1.0, "max_tokens": new_tokens, "ignore_eos": True, "detokenize": False}
    # no seeds of their own: with them vLLM's CPU build fails on prompts that it reads in parts, as it does here
    samples = sample_with_routes(llm, shape, asked, [sampling] * prompts)
    rows = list(zip(asked, samples, strict=True))
    trainer: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    manifest = Manifest.of(1, checkpoint_state(trainer))
    engine = {name: p.numel() for name, p in engine_model(llm).named_parameters()}
    width = max(len(ids) for ids, _ in rows)
    total = width + new_tokens
    tokens, mask = torch.zeros(prompts, total, dtype=torch.long), torch.zeros(prompts, total, dtype=torch.long)
    for row, (ids, sample) in enumerate(rows):
        sequence = [*ids, *sample.tokens]
        start = width - len(ids)
        tokens[row, start : start + len(sequence)] = torch.tensor(sequence)
        mask[row, start : start + len(sequence)] = 1
    routes = aligned(
        [sample.routes for _, sample in rows], [len(ids) for ids, _ in rows],
        [len(ids) + len(sample.tokens) for ids, sample in rows], prompt_width=width, width=total, shape=shape,
    )  # fmt: skip
    sampled = torch.tensor([sample.logps for _, sample in rows])
    result: dict[str, Any] = {"vllm": version, "family": facts.model_type, "dtype": dtype, "tokens": sampled.numel()}
    result["unfilled"] = coverage(manifest, engine)
    with RoutingTap(trainer) as tap, torch.no_grad():
        for name in ("free", "replayed"):
            if name == "replayed":
                tap.arm(torch.from_numpy(routes))
            with tap.recording() as passes:
                logits = trainer(tokens, attention_mask=mask).logits[:, :-1]
            tap.disarm()
            logps = torch.log_softmax(logits, -1).gather(-1, tokens[:, 1:, None])[..., 0][:, width - 1 :]
            same = agreement(routes, passes[0].numpy(), mask.numpy() & (routes >= 0).all(axis=(2, 3)))
            gap = token_gap(sampled, logps, torch.ones_like(sampled), same.tolist())
            result[name] = {"k3": gap.k3, "max_gap": gap.max_gap, "extreme": gap.extreme, "same": gap.same_experts}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("qwen3_moe", "glm4_moe"), default="qwen3_moe")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = tiny_checkpoint(options.family, Path(folder) / "model")
        result = measure(checkpoint, options.dtype, options.prompts, options.new_tokens)
    text = json.dumps(result, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
