"""Why sampler and trainer disagree: how much is routing, how much weights, how much dtype, by toggling replay."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr.moe.routes import RouteMismatch, Routes
from rlvr.moe.session import fed_tokens
from rlvr.moe.statistics import LayerRouting, agreement, layer_routing
from rlvr.moe.tap import RoutingTap

EXTREME = 2.0  # a token is extreme where one policy gives it more than twice the other's probability


@dataclass(frozen=True)
class Gap:
    """Differences of two policies on the sampler's tokens, over `tokens` tokens.

    k1, k2, k3: estimates of KL(sampler || trainer) in nats a token: mean of -log r, of (log r)^2 / 2 and of
    r - 1 - log r with r = trainer / sampler; k3 is never negative. `extreme`: share of tokens whose r is above 2 or
    below 1/2. `same_experts`: by MoE layer, the share of tokens sent to the same set of experts.
    """

    tokens: int
    k1: float
    k2: float
    k3: float
    max_gap: float
    extreme: float
    same_experts: tuple[float, ...] = ()


def token_gap(sampler: Tensor, trainer: Tensor, mask: Tensor, same_experts: Sequence[float] = ()) -> Gap:
    """Returns the Gap of log-probabilities [rows, tokens] where `mask` holds."""
    log_ratio = (trainer.double() - sampler.double())[mask.bool()]
    if not len(log_ratio):
        raise ValueError("no tokens to compare")
    ratio = log_ratio.exp()
    extreme = (ratio > EXTREME) | (ratio < 1 / EXTREME)
    return Gap(
        tokens=len(log_ratio),
        k1=float(-log_ratio.mean()),
        k2=float((log_ratio**2).mean() / 2),
        k3=float((ratio - 1 - log_ratio).mean()),
        max_gap=float(log_ratio.abs().max()),
        extreme=float(extreme.double().mean()),
        same_experts=tuple(float(x) for x in same_experts),
    )


@dataclass(frozen=True)
class Comparison:
    """One cause of disagreement: the gap as the routers choose, and with the sampler's routes replayed."""

    cause: str
    free: Gap
    replayed: Gap

    @property
    def routing_share(self) -> float:
        """Share of k3 that replay removes; 0 where there is nothing to remove."""
        return 0.0 if self.free.k3 <= 0 else max(0.0, 1.0 - self.replayed.k3 / self.free.k3)


@dataclass(frozen=True)
class Diagnosis:
    """Comparisons of a sampler and a trainer, and how the sampler routes what was compared.

    `layers`: the MoE layers compared; those whose router is a table are left out.
    """

    layers: tuple[int, ...]
    comparisons: tuple[Comparison, ...] = field(default_factory=tuple)
    routing: tuple[LayerRouting, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the diagnosis for JSON."""
        rows = [asdict(c) | {"routing_share": c.routing_share} for c in self.comparisons]
        routing = [asdict(layer) for layer in self.routing]
        return {"layers": list(self.layers), "comparisons": rows, "routing": routing}


Batch = tuple[Tensor, Tensor]  # tokens [rows, positions], mask [rows, positions]


@dataclass
class _Scored:
    logps: list[Tensor]
    routes: list[Tensor]


def diagnose(
    sampler: Any, trainer: Any, batches: Sequence[Batch], *, sampler_dtype: torch.dtype, trainer_dtype: torch.dtype
) -> Diagnosis:
    """Returns how two sets of weights of one architecture, and two dtypes, disagree on the same tokens.

    "dtype": the sampler's weights in both dtypes. "weights": both weights in the trainer's dtype. "all": as in a run.
    A cause that is absent (equal dtypes, one model) is left out. Another dtype takes a copy of the sampler. Raises
    UnknownRouter for a dense model.
    """
    same = sampler is trainer
    rounded = copy.deepcopy(sampler).to(sampler_dtype) if sampler_dtype != trainer_dtype else sampler.to(trainer_dtype)
    sampled = _score(rounded, batches)
    causes: list[tuple[str, Any]] = []
    if sampler_dtype != trainer_dtype:
        causes.append(("dtype", sampler))
    if not same:
        causes.append(("all" if causes else "weights", trainer))
    if not causes:
        raise ValueError("sampler and trainer are the same weights in the same dtype: nothing to compare")
    found = []
    for cause, model in causes:
        found.append(_compared(cause, sampled, model.to(trainer_dtype), batches))
    if not same and sampler_dtype != trainer_dtype:
        own = _score(sampler.to(trainer_dtype), batches)
        found.insert(1, _compared("weights", own, trainer, batches))
    layers, experts = _layers(sampler)
    routing = layer_routing(_fed(sampled, batches), experts, layers)
    return Diagnosis(tuple(row.layer for row in routing), tuple(found), routing)


def diagnose_run(
    trainer: Any, rows: Sequence[Mapping[str, Any]], *, trainer_dtype: torch.dtype, temperature: float = 1.0
) -> Comparison:
    """Returns how the trainer disagrees with what a run's engine did: its log-probabilities and its routes.

    rows: rollout records with `tokens`, `logps` and `routes`; completions are compared. Raises RouteMismatch for the
    routes of another model, ValueError where no row has all three.
    """
    rows = [row for row in rows if row["routes"] is not None and row["logps"] is not None]
    if not rows:
        raise ValueError("no rollouts with routes and log-probabilities")
    model = trainer.to(trainer_dtype)
    with RoutingTap(model) as tap:
        shape = (len(tap.layers), tap.top_k)
    batches, sampled, written, known = [], _Scored([], []), [], []
    for start in range(0, len(rows), 8):
        part = rows[start : start + 8]
        width = max(len(row["tokens"]) for row in part)
        tokens, mask = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width, dtype=torch.long)
        logps, counted = torch.zeros(len(part), width - 1), torch.zeros(len(part), width - 1, dtype=torch.bool)
        routes = torch.full((len(part), width, *shape), -1)
        for number, row in enumerate(part):
            kept, length = Routes.from_bytes(row["routes"]), len(row["tokens"])
            if kept.ids.shape != (length - 1, *shape):
                raise RouteMismatch(
                    f"{row['problem_id']}: routes of shape {list(kept.ids.shape)} for {length} tokens, this model's are"
                    f" {[length - 1, *shape]}; they are another model's"
                )
            tokens[number, :length], mask[number, :length] = torch.tensor(row["tokens"]), 1
            first = length - len(row["logps"]) - 1
            logps[number, first : length - 1] = torch.tensor(row["logps"])
            counted[number, first : length - 1] = True
            ids = torch.from_numpy(kept.ids.astype(np.int64))
            routes[number, : length - 1] = ids.masked_fill(~torch.from_numpy(kept.known)[:, None, None], -1)
        batches.append((tokens, mask))
        sampled.logps.append(logps)
        sampled.routes.append(routes)
        written.append(counted)
        known.append((routes >= 0).all(dim=3).all(dim=2))
    gaps = []
    for replay in (None, sampled.routes):
        scored = _score(model, batches, replay, temperature=temperature)
        same = [
            agreement(a.numpy(), b.numpy(), valid.numpy())
            for a, b, valid in zip(sampled.routes, scored.routes, known, strict=True)
        ]
        flat = [torch.cat([part.reshape(-1) for part in s.logps]) for s in (sampled, scored)]
        mask = torch.cat([part.reshape(-1) for part in written])
        gaps.append(token_gap(flat[0][None], flat[1][None], mask[None], _by_layer(same)))
    return Comparison("run", gaps[0], gaps[1])


def _by_layer(shares: Sequence[np.ndarray]) -> list[float]:
    """The mean over batches of shares [MoE layers], without the layers that have none: their router is a table."""
    mean = np.mean(shares, axis=0)
    return mean[~np.isnan(mean)].tolist()


def _compared(cause: str, sampled: _Scored, model: Any, batches: Sequence[Batch]) -> Comparison:
    free, replayed = _score(model, batches), _score(model, batches, sampled.routes)
    gaps = []
    for scored in (free, replayed):
        same = [
            agreement(a.numpy(), b.numpy(), fed_tokens(mask).numpy())
            for a, b, (_, mask) in zip(sampled.routes, scored.routes, batches, strict=True)
        ]
        mask = torch.cat([fed_tokens(mask)[:, :-1].reshape(-1) for _, mask in batches])
        flat = [torch.cat([part.reshape(-1) for part in s.logps]) for s in (sampled, scored)]
        gaps.append(token_gap(flat[0][None], flat[1][None], mask[None], _by_layer(same)))
    return Comparison(cause, gaps[0], gaps[1])


def _score(
    model: Any, batches: Iterable[Batch], routes: Sequence[Tensor] | None = None, *, temperature: float = 1.0
) -> _Scored:
    model.eval()
    scored = _Scored([], [])
    with RoutingTap(model) as tap, torch.no_grad():
        for number, (tokens, mask) in enumerate(batches):
            tokens, mask = tokens.to(model.device), mask.to(model.device)
            if routes is not None:
                tap.arm(routes[number].to(model.device))
            with tap.recording() as passes:
                logits = model(tokens, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            tap.disarm()
            chosen = torch.log_softmax(logits / temperature, dim=-1).gather(-1, tokens[:, 1:, None])[..., 0]
            scored.logps.append(chosen.cpu())
            scored.routes.append(passes[0].cpu())
    return scored


def routes_of_texts(model: Any, batches: Sequence[Batch]) -> np.ndarray:
    """Returns the experts [tokens, MoE layers, k] every fed token was sent to, sequence after sequence.

    Layers whose router is a table (no top-k call) are left out.
    """
    found = _fed(_score(model, batches), batches)
    return found[:, (found >= 0).all(axis=(0, 2))]


def _fed(scored: _Scored, batches: Sequence[Batch]) -> np.ndarray:
    """The routes [tokens, MoE layers, k] of every token that was fed on."""
    rows = [routes[fed_tokens(mask)] for routes, (_, mask) in zip(scored.routes, batches, strict=True)]
    return torch.cat(rows).numpy()


def _layers(model: Any) -> tuple[tuple[int, ...], int]:
    with RoutingTap(model) as tap:
        return tap.layers, tap.experts


def batches_of(tokenizer: Any, texts: Iterable[str], *, size: int = 8, most: int = 512) -> Iterator[Batch]:
    """Yields texts as tokens padded on the right, `size` rows at a time, each cut to `most` tokens."""
    rows = [ids for text in texts if len(ids := tokenizer(text=text)["input_ids"][:most]) > 1]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        width = max(map(len, part))
        tokens = torch.tensor([ids + [pad] * (width - len(ids)) for ids in part])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in part])
        yield tokens, mask
