"""GRPO through a real vLLM server with and without the rollouts' routes replayed (R3): how far apart the two are.

    python benchmarks/moe_training_vllm.py --vllm-python /path/to/vllm/bin/python --family qwen3_moe --dtype bfloat16

needs a second environment with vLLM (the CPU build will do; its worker records the routes). A tiny policy with random
weights and routers that decide is trained in float32 for some steps, twice from the same start on one server: with
`moe.replay` r3 and off. Prints JSON: the sampler's and the trainer's log-probabilities compared in every step (mean
gap, largest gap, k3 of the KL divergence), and for the first step's rollouts the share of tokens that the trainer would
have sent to the same experts, by layer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from deciding_routers import let_routers_decide
from transformers import AutoModelForCausalLM

from data_curation import save_problems
from data_curation.builtin.pipelines import pipeline_demonstrations, pipeline_problems
from rlvr.config import GRPORecipe
from rlvr.models import build_tiny_policy
from rlvr.moe.mismatch import diagnose_run
from rlvr.rollouts.records import read_records
from rlvr.training.grpo import train_grpo

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("sampling/logprob_gap", "sampling/logprob_gap_max", "sampling/k3", "moe/replayed", "grad_norm")
PROBLEMS, GROUP = 8, 8


def policy(family: str, folder: Path) -> Path:
    """A random model of four layers and 16 experts, with a tokenizer."""
    texts = [row["statement"] + row["program"] for row in pipeline_demonstrations(400, (0, 1), 0)]
    build_tiny_policy(
        texts, folder, family=family, vocab_size=400, hidden=128, layers=4, heads=4, mlp=256, experts=16, top_k=4,
        expert_mlp=64,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    let_routers_decide(model)
    model.save_pretrained(folder)
    return folder


@contextlib.contextmanager
def server(python: str, model: Path, dtype: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The address and the token file of a vLLM server that records routes, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    token, log = folder / "token", folder / "vllm.log"
    command = [
        python, "-m", "rlvr.rollouts.vllm_server", "--model", str(model), "--port", str(port), "--routes",
        "--token-file", str(token), "--dtype", dtype, "--enforce-eager", "--max-model-len", "256",
        "--gpu-memory-utilization", "0.1",
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"the server ended:\n{log.read_text()[-3000:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}", token
    finally:
        process.terminate()
        process.wait(60)


def train(model: Path, folder: Path, url: str, token: Path, replay: str, options: argparse.Namespace) -> dict[str, Any]:
    recipe = {
        "name": f"replay-{replay}",
        "output_dir": str(folder / replay),
        "model": {"name_or_path": str(model)},
        "data": {"problems": str(folder / "problems.jsonl")},
        "prompt": {"style": "plain"},
        "judge": {"workers": 1},
        "reward": {"overlong_buffer": options.tokens - 2},  # lengths differ, so there is something to learn
        "moe": {"replay": replay, "keep_routes": replay == "r3"},
        "grpo": {
            "problems_per_step": PROBLEMS,
            "num_generations": GROUP,
            "per_device_train_batch_size": PROBLEMS * GROUP,  # the first micro-batch, which is compared, is all of it
            "skip_zero_signal": False,
            "max_steps": options.steps,
            "max_completion_length": options.tokens,
            "learning_rate": 1e-3,
            "use_vllm": True,
            "vllm_mode": "file",
            "vllm_url": url,
            "vllm_token_file": str(token),
        },
    }
    train_grpo(GRPORecipe.model_validate(recipe))
    lines = [json.loads(line) for line in (folder / replay / "metrics.jsonl").read_text().splitlines()]
    return {name: [line[name] for line in lines] for name in SHOWN}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", required=True)
    parser.add_argument("--family", choices=("qwen3_moe", "glm4_moe"), default="qwen3_moe")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"family": options.family, "dtype": options.dtype}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = policy(options.family, folder / "model")
        save_problems(pipeline_problems(24, (1,), 3, split="train"), folder / "problems.jsonl")
        with server(options.vllm_python, model, options.dtype, folder) as (url, token):
            for replay in ("r3", "off"):
                result[replay] = train(model, folder, url, token, replay, options)
        rows = [row for row in read_records(folder / "r3" / "rollouts" / "stage1") if row["policy_version"] == 0]
        start = AutoModelForCausalLM.from_pretrained(model)
        first = diagnose_run(start, rows, trainer_dtype=torch.float32)
        result["first_step"] = {"tokens": first.free.tokens, "same_experts": first.free.same_experts}
    text = json.dumps(result, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
