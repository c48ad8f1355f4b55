"""The policy's weights as an engine's loader wants them: checkpoint names, every tensor once, router biases included.

transformers keeps experts fused and router biases as buffers; vLLM's loaders want the names of a checkpoint, and keep
the bias as a parameter. What is sent is therefore what `save_pretrained` would write, made layer by layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlvr.moe.layout import layer_of


class SyncRefused(RuntimeError):
    """Weights that must not be sent, or that did not arrive as they were; one line that says why."""


def checkpoint_tensors(model: Any, state: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yields (checkpoint name, tensor) of every parameter and persistent buffer, tied ones once.

    The names are those of transformers' own reverse conversion. Layers are converted one at a time, as a conversion may
    join tensors of one layer, so one layer's copy is all the memory it takes. `state`: the tensors, where they had to
    be gathered; default: the model's own. On another device than the engine's, move each tensor as it comes.
    """
    from transformers.core_model_loading import revert_weight_conversion

    for part in _by_layer(model.state_dict() if state is None else state):
        yield from revert_weight_conversion(model, part).items()


def checkpoint_state(model: Any, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Returns `checkpoint_tensors` by name; SyncRefused where two of them have one name."""
    found: dict[str, Tensor] = {}
    for name, tensor in checkpoint_tensors(model, state):
        if name in found:
            raise SyncRefused(f"{name} would be sent twice in one update")
        found[name] = tensor
    return found


def _by_layer(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    groups: dict[int | None, dict[str, Tensor]] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and place in seen:
            continue  # tied
        seen.add(place)
        groups.setdefault(layer_of(name), {})[name] = tensor
    yield from groups.values()


@dataclass(frozen=True)
class Manifest:
    """What one update holds: the policy's version, and shape and dtype by checkpoint name."""

    version: int
    tensors: Mapping[str, tuple[tuple[int, ...], str]]

    @classmethod
    def of(cls, version: int, tensors: Mapping[str, Tensor]) -> Manifest:
        """Returns the manifest of an update of these tensors."""
        rows = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}
        return cls(version, rows)

    @property
    def elements(self) -> int:
        return sum(math.prod(shape) for shape, _ in self.tensors.values())


# Parameters vLLM stacks: suffix of the engine's name <- suffixes of checkpoint names, in checkpoint order.
STACKED: tuple[tuple[str, str], ...] = (
    (r"(.*)\.(?:q_proj|k_proj|v_proj)\.(weight|bias)", r"\1.qkv_proj.\2"),
    (r"(.*)\.experts\.\d+\.(?:gate_proj|up_proj|w1|w3)\.weight", r"\1.experts.w13_weight"),
    (r"(.*)\.experts\.\d+\.(?:down_proj|w2)\.weight", r"\1.experts.w2_weight"),
    (r"(.*)\.(?:gate_proj|up_proj)\.weight", r"\1.gate_up_proj.weight"),
)


def engine_name(name: str) -> str:
    """Returns the engine's parameter a checkpoint tensor goes into."""
    for pattern, target in STACKED:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(target)
    return name


def coverage(
    sent: Manifest, engine: Mapping[str, int], loaded: Collection[str] | None = None, *, copies: int = 1
) -> list[str]:
    """Returns a line for every parameter of an engine that the update does not fill exactly once; empty is well.

    engine: elements by the engine's names, as it loads them, summed over its workers. loaded: the names its loader says
    it filled; then a name this module cannot place is the loader's matter, and only without it is a line. copies: of
    each parameter at most, so with several workers a parameter may lie on each of them or be shared out. Rows an
    engine adds to embeddings to round their number up are allowed to stay unfilled.
    """
    filled: dict[str, int] = {}
    for name, (shape, _) in sent.tensors.items():
        target = engine_name(name)
        filled[target] = filled.get(target, 0) + math.prod(shape)
    width = {engine_name(name): math.prod(shape[1:]) for name, (shape, _) in sent.tensors.items()}
    names = {_plain(name): name for name in engine}
    lines = []
    for target, name in names.items():
        size, got = engine[name], filled.pop(target, 0)
        if loaded is not None and (name not in loaded):
            lines.append(f"{name}: {size:,} elements, none of them filled")
            continue
        if not got and (loaded is not None or ("lm_head" in target and "model.embed_tokens.weight" in names)):
            continue  # tied: the engine shares the embedding; or the loader joins what we have no name for
        rounded = "embed" in target or "lm_head" in target
        if rounded and 0 < got < size and (size - got) % width[target] == 0:
            continue
        if copies > 1 and got <= size <= got * copies and (size % got == 0 or ".experts." not in target):
            continue
        if got != size:
            lines.append(f"{name}: {size:,} elements, the update fills {got:,}")
    if loaded is None:
        lines += [f"{name}: sent, but the engine has no such parameter" for name in filled if "lm_head" not in name]
    return lines


def _plain(name: str) -> str:
    """An engine's parameter name without the wrapper modules that hold experts and routers."""
    return re.sub(r"\.(?:routed_experts|base_layer|runner)\.", ".", name)


def refuse_moving_experts(engine_arguments: Mapping[str, Any]) -> None:
    """Raises SyncRefused where the engine may move experts (EPLB): updates would go to where they were at first."""
    parallel = engine_arguments.get("parallel_config", engine_arguments)
    if isinstance(parallel, Mapping) and parallel.get("enable_eplb"):
        raise SyncRefused(
            "the engine runs with enable_eplb: it moves experts, and an update would fill those that were there at the"
            " start; start it without (rlvr serve plan --for-rl does)"
        )


class SyncCanary:
    """Fixed tokens whose log-probabilities trainer and engine must agree on after every sync.

    bound: the greatest mean difference, in nats a token, that may ever be. `calibrate` tightens it to what rounding
    explains, measured where both hold the same weights: an engine that loaded the policy's checkpoint by itself.
    """

    def __init__(self, tokens: Tensor, bound: float = 0.1) -> None:
        self.tokens = tokens  # [rows, positions]
        self.bound = bound

    def expected(self, model: Any) -> Tensor:
        """Returns the trainer's log-probabilities [rows, positions - 1] of the probe; with sharded weights every
        process must call it."""
        training = model.training
        model.eval()
        with torch.no_grad():
            logits = model(self.tokens.to(model.device), use_cache=False).logits[:, :-1].float()
        model.train(training)
        wanted = self.tokens[:, 1:, None].to(logits.device)
        return torch.log_softmax(logits, dim=-1).gather(-1, wanted)[..., 0].cpu()

    def gap(self, trainer: Tensor, engine: Tensor) -> float:
        """Returns the mean absolute difference of two rows of log-probabilities, in nats a token."""
        if trainer.shape != engine.shape:
            raise SyncRefused(f"the engine scored {list(engine.shape)} tokens of the probe, not {list(trainer.shape)}")
        return float((trainer.float().cpu() - engine.float().cpu()).abs().mean())

    def calibrate(self, gap: float, *, factor: float = 5.0, least: float = 1e-4) -> float:
        """Returns the bound from now on: `factor` times a gap of equal weights, if that is below the bound so far."""
        self.bound = min(self.bound, max(least, factor * gap))
        return self.bound

    def check(self, gap: float, version: int) -> float:
        """Returns the gap; raises SyncRefused above the bound."""
        if not gap <= self.bound:
            raise SyncRefused(
                f"after the sync of version {version} engine and trainer differ by {gap:.3g} a token on the probe,"
                f" above {self.bound:.3g}: its weights are not the policy's (a tensor missing, stale or misplaced)"
            )
        return gap


def canary_due(sync: int, *, first: int = 3, every: int = 50) -> bool:
    """Whether the `sync`-th one (from 1) is checked: the first few, then now and then; `every` 0: no more."""
    return sync <= first or (every > 0 and sync % every == 0)
