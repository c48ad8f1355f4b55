"""The tap under FSDP2: two processes on CPU, each layer sharded, record and replay as in the whole model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import copy, sys
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM
from moe_families import tiny_config
from rlvr.moe.tap import RoutingTap

rank, store, family = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(tiny_config(family))
for parameter in model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=0.1)
whole = copy.deepcopy(model).train()
model.train()
tap = RoutingTap(model)  # before the weights are shared out, as in training
mesh = init_device_mesh("cpu", (2,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
tokens = torch.randint(3, 300, (2, 2, 9), generator=torch.Generator().manual_seed(1))  # [ranks, rows, positions]

def loss(of, ids):
    return of(input_ids=ids, labels=ids, use_cache=False).loss

with RoutingTap(whole) as reference:
    with reference.recording() as passes:
        free = [loss(whole, ids).detach() for ids in tokens]
    with tap.recording() as mine:
        shared = loss(model, tokens[rank]).detach()
    assert torch.allclose(shared, free[rank], atol=1e-6)
    assert torch.equal(mine[0], passes[rank]), "recorded as in the whole model"
    forced = [passes[1].flip(1), passes[0].flip(1)]  # other tokens' experts
    for ids, routes in zip(tokens, forced):
        reference.arm(routes)
        (loss(whole, ids) / 2).backward()
    tap.arm(forced[rank])
    with tap.recording() as used:
        replayed = loss(model, tokens[rank])
    replayed.backward()
    assert torch.equal(used[0], forced[rank]) and not torch.allclose(replayed, free[rank], atol=1e-6)
expected = dict(whole.named_parameters())
routers = 0
for name, parameter in model.named_parameters():
    if parameter.grad is None:
        assert expected[name].grad is None, name
        continue
    gradient = parameter.grad.full_tensor()
    assert torch.allclose(gradient, expected[name].grad, atol=1e-6), name
    routers += "gate.weight" in name and float(gradient.abs().sum()) > 0
assert routers == len(tap.layers), routers
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["qwen3_moe", "glm4_moe"])
def test_layers_shared_out_by_fsdp2_record_and_replay_as_the_whole_model(family: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store"), family],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
