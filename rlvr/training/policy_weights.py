"""The policy's weights for an engine: one tensor at a time, gathered where processes share them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType, is_peft_model
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from rlvr.moe.layout import expert_blocks, layer_of
from rlvr.moe.sync import checkpoint_tensors
from rlvr.training.lora import merged_tensors


def shards_weights(accelerator: Any) -> bool:
    """Whether each process holds only a part of every weight: FSDP and ZeRO-3, not ZeRO-2."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return bool(accelerator.state.deepspeed_plugin.zero_stage == 3)
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def policy_weights(trainer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the policy's tensors under their names in a checkpoint, tied ones once.

    Gathering is done by all processes together, so every one of them must take all tensors, whatever it does with them.
    Sharded weights are whole in the tensors of every process, one at a time: nothing holds the whole model.
    """
    policy = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if is_peft_model(policy):
        plain = policy.get_base_model()
        once = {name for name, _ in plain.named_parameters()}
        tied = {name for name, _ in plain.named_parameters(remove_duplicate=False)} - once
        yield from ((name, tensor) for name, tensor in merged_tensors(policy) if name not in tied)
    elif expert_blocks(policy):  # loaders want one tensor an expert, as in a checkpoint
        yield from as_in_checkpoints(trainer, lambda: gathered_parameters(trainer))
    else:
        yield from gathered_parameters(trainer)
        parameters = {name for name, _ in policy.named_parameters(remove_duplicate=False)}
        yield from ((name, buffer) for name, buffer in policy.state_dict().items() if name not in parameters)


def weights_size(trainer: Any) -> int:
    """Bytes of all that `policy_weights` yields, at least; known without gathering."""
    policy = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    # ZeRO-3 leaves empty tensors where it has shared a weight out
    return sum(getattr(part, "ds_numel", part.numel()) * part.element_size() for part in policy.parameters())


def gathered_parameters(trainer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields every parameter of the policy whole, tied ones once; each stays valid after the next."""
    accelerator = trainer.accelerator
    policy = accelerator.unwrap_model(trainer.model_wrapped)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # some stay whole after a forward pass, in the type they compute with
    for name, parameter in policy.named_parameters():
        tensor = parameter.detach()
        if isinstance(tensor, DTensor):
            # shards that are offloaded are gathered where the processes can talk to each other
            here: Any = tensor.to(accelerator.device)
            yield name, here.full_tensor()
        elif hasattr(parameter, "ds_id"):  # ZeRO-3's
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                kept = parameter.detach().clone()
            yield name, kept
        else:
            yield name, tensor


def as_in_checkpoints(
    trainer: Any, gathered: Callable[[], Iterator[tuple[str, torch.Tensor]]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the parameters that are gathered one by one, layer by layer under checkpoint names, with the layers'
    persistent buffers."""
    policy = trainer.accelerator.unwrap_model(trainer.model)
    names = {name for name, _ in policy.named_parameters()}
    buffers = {name: tensor for name, tensor in policy.state_dict().items() if name not in names}
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in gathered():
        if kept and layer_of(name) != layer_of(next(iter(kept))):
            yield from checkpoint_tensors(policy, kept)
            kept = {}
        if layer_of(name) is not None and not kept:
            kept = {n: t for n, t in buffers.items() if layer_of(n) == layer_of(name)}
        # what TRL gathers is there for this iteration only
        kept[name] = tensor.clone() if shards_weights(trainer.accelerator) else tensor
    yield from checkpoint_tensors(policy, kept)
