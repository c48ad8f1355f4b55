"""The policy's weights as an engine's loader wants them: checkpoint names, every tensor once, router biases included.

transformers keeps experts fused and router biases as buffers; vLLM's loaders want the names of a checkpoint, and keep
the bias as a parameter. What is sent is therefore what `save_pretrained` would write, made layer by layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlvr.moe.layout import layer_of


class SyncRefused(RuntimeError):
    """Weights that must not be sent, or that did not arrive as they were; one line that says why."""


def checkpoint_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yields (checkpoint name, tensor) of every parameter and persistent buffer, tied ones once.

    The names are those of transformers' own reverse conversion. Layers are converted one at a time, as a conversion may
    join tensors of one layer, so one layer's copy is all the memory it takes. On another device than the engine's, move
    each tensor as it comes.
    """
    from transformers.core_model_loading import revert_weight_conversion

    for part in _by_layer(model.state_dict()):
        yield from revert_weight_conversion(model, part).items()


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

    @property
    def elements(self) -> int:
        return sum(math.prod(shape) for shape, _ in self.tensors.values())


class Update:
    """One update of an engine, from its first tensor to its last: whole, or refused.

    Iterate over it inside `with`; leaving it before the last tensor raises SyncRefused, so a half-sent update never
    passes for one. `manifest` is there once all has been sent.
    """

    def __init__(self, model: Any, version: int, *, dtype: torch.dtype | None = None) -> None:
        self.model, self.version, self.dtype = model, version, dtype
        self.manifest: Manifest | None = None

    def __enter__(self) -> Update:
        return self

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        sent: dict[str, tuple[tuple[int, ...], str]] = {}
        for name, tensor in checkpoint_tensors(self.model):
            if name in sent:
                raise SyncRefused(f"{name} would be sent twice in one update")
            sent[name] = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            # a router bias is float32 in every engine, whatever the weights are
            keep = self.dtype is None or not tensor.is_floating_point() or name.endswith("e_score_correction_bias")
            yield name, tensor if keep else tensor.to(self.dtype)
        self.manifest = Manifest(self.version, sent)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and self.manifest is None:
            raise SyncRefused(f"the update to version {self.version} ended before its last tensor")


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


def coverage(sent: Manifest, engine: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Returns a line for every parameter of an unsharded engine that the update does not fill exactly once; empty is
    well.

    `engine`: shapes by the engine's names, as its `named_parameters` gives them. Rows an engine adds to embeddings
    to round their number up are allowed to stay unfilled.
    """
    filled: dict[str, int] = {}
    for name, (shape, _) in sent.tensors.items():
        target = engine_name(name)
        filled[target] = filled.get(target, 0) + math.prod(shape)
    lines = []
    plain = {_plain(name): (name, shape) for name, shape in engine.items()}
    for target, (name, shape) in plain.items():
        size, got = math.prod(shape), filled.pop(target, 0)
        rounded = "embed" in target or "lm_head" in target
        if not got and "lm_head" in target and "model.embed_tokens.weight" in plain:
            continue  # tied: the engine shares the embedding
        if got != size and not (rounded and 0 < got < size and (size - got) % math.prod(shape[1:]) == 0):
            lines.append(f"{name}: {size:,} elements, the update fills {got:,}")
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

    `bound`: the greatest mean difference, in nats a token, that rounding explains; measure it once with weights that
    are known to be equal (`calibrate`), rather than guess.
    """

    def __init__(self, tokens: Tensor, bound: float | None = None) -> None:
        self.tokens = tokens  # [rows, positions]
        self.bound = bound

    def expected(self, model: Any) -> Tensor:
        """Returns the trainer's log-probabilities [rows, positions - 1] of the probe."""
        training = model.training
        model.eval()
        with torch.no_grad():
            logits = model(self.tokens.to(model.device), use_cache=False).logits[:, :-1].float()
        model.train(training)
        wanted = self.tokens[:, 1:, None].to(logits.device)
        return torch.log_softmax(logits, dim=-1).gather(-1, wanted)[..., 0].cpu()

    def calibrate(self, model: Any, engine: Callable[[Tensor], Tensor], *, factor: float = 5.0) -> float:
        """Sets and returns the bound: `factor` times the gap now, when both are known to hold the same weights."""
        self.bound = max(1e-5, factor * self.gap(model, engine))
        return self.bound

    def gap(self, model: Any, engine: Callable[[Tensor], Tensor]) -> float:
        """Returns the mean absolute difference (nats a token); `engine` maps the probe to its log-probabilities."""
        return float((self.expected(model) - engine(self.tokens).float().cpu()).abs().mean())

    def check(self, model: Any, engine: Callable[[Tensor], Tensor], version: int) -> float:
        """Returns the gap; raises SyncRefused above the bound."""
        found = self.gap(model, engine)
        if self.bound is None:
            raise ValueError("a canary without a bound: calibrate it first")
        if not found <= self.bound:
            raise SyncRefused(
                f"after the sync of version {version} engine and trainer differ by {found:.3g} a token on the probe,"
                f" above {self.bound:.3g}: its weights are not the policy's (a tensor missing, stale or misplaced)"
            )
        return found


def canary_due(sync: int, *, first: int = 3, every: int = 50) -> bool:
    """Whether the `sync`-th one (from 1) is checked: the first few, then now and then."""
    return sync <= first or sync % every == 0
