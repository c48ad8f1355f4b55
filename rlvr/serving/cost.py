"""What a rollout costs in time, so that rollouts are bought where a second teaches most.

cost(problem, n) = prefill(prompt) once + n x expected length x tau(B), tau(B) = step time / B at the batch B that is
planned. A count of rollouts is the special case of equal lengths and no prompts.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlvr.budget.value import value
from rlvr.moe.facts import ModelFacts
from rlvr.serving.hardware import Hardware
from rlvr.serving.plan import plan_serving
from rlvr.serving.roofline import StepModel


@dataclass(frozen=True)
class RolloutCosts:
    """Seconds by problem: `once` for its prompt, `each` for every rollout; `batch` sequences at once on a replica."""

    once: np.ndarray
    each: np.ndarray
    batch: int

    def total(self, counts: Sequence[int] | np.ndarray) -> float:
        """Returns the seconds of an allocation; a problem without rollouts costs nothing."""
        n = np.asarray(counts)
        return float((self.once * (n > 0) + n * self.each).sum())


def rollout_costs(
    model: StepModel,
    prompt_tokens: Sequence[int],
    expected_lengths: Sequence[float],
    *,
    rollouts: int,
    room: int,
) -> RolloutCosts:
    """Returns what rollouts cost on a replica with room for `room` sequences, by prompt and expected completion, in
    tokens.

    The batch is what `rollouts` fill on average over the wave: they start together and end one after the other, so the
    mean over a wave is total tokens over the longest, capped by the room. A token costs more where the prompt or the
    expected completion is long: its step reads more keys and values.
    """
    prompts, lengths = np.asarray(prompt_tokens, float), np.asarray(expected_lengths, float)
    if prompts.shape != lengths.shape or not len(lengths) or (lengths <= 0).any() or (prompts < 0).any():
        raise ValueError("prompt lengths and expected lengths: one of each a problem, lengths above 0")
    filled = rollouts * float(lengths.mean()) / float(lengths.max())
    batch = max(1, min(room, round(filled)))
    tau = np.array([model.token_time(batch, float(context)) for context in prompts + lengths / 2])
    cached = {int(n): model.prefill(max(1.0, float(n))) for n in np.unique(prompts)}
    return RolloutCosts(np.array([cached[int(n)] for n in prompts]), lengths * tau, batch)


@dataclass(frozen=True)
class PlannedCosts:
    """What the rollouts of a run cost on the layout that is planned for it; a pure function, so runs resume alike."""

    model: StepModel
    prompt_tokens: Mapping[str, int]
    replicas: int
    room: int  # sequences at once on a replica

    def costs(self, problem_keys: Sequence[str], lengths: Sequence[float], rollouts: int) -> RolloutCosts:
        """Returns the costs of a step of `rollouts` rollouts over all replicas."""
        prompts = [self.prompt_tokens[key] for key in problem_keys]
        return rollout_costs(self.model, prompts, lengths, rollouts=-(-rollouts // self.replicas), room=self.room)


def planned_costs(
    facts: ModelFacts,
    hardware: Hardware,
    prompt_tokens: Mapping[str, int],
    *,
    completion: int,
    rollouts: int,
    skew: float = 1.0,
    colocate: bool = False,
) -> PlannedCosts:
    """Returns the costs of `rollouts` rollouts a step of at most `completion` tokens on the layout `plan_serving`
    chooses.

    Raises ValueError, DoesNotFit among them, where there is none.
    """
    context = max(prompt_tokens.values()) + completion
    if facts.max_positions:
        context = min(context, facts.max_positions)
    plan = plan_serving(facts, hardware, context=context, rollouts=rollouts, for_rl=True, colocate=colocate, skew=skew)
    layout = plan.chosen.layout
    model = StepModel(facts, hardware, layout.tp, layout.ep, skew, facts.dtype_bytes, facts.kv_dtype_bytes)
    return PlannedCosts(model, dict(prompt_tokens), layout.dp, plan.chosen.sequences)


def allocate_by_time(
    rates: Sequence[float], costs: RolloutCosts, seconds: float, *, low: int = 2, high: int = 128
) -> list[int]:
    """Returns rollouts a problem: greatest sum of Value(n, p) (arXiv 2509.25849) bought rollout by rollout by value a
    second, while the seconds last; `low` each are bought first.

    Value is concave in n, so the greedy choice is optimal up to the last rollout that no longer fits. Raises
    ValueError where `low` each cost more than there is.
    """
    p = np.asarray(rates, float)
    counts = np.full(len(p), low)
    left = seconds - costs.total(counts)
    if left < 0:
        raise ValueError(f"{low} rollouts each cost {costs.total(counts):.3g} s, above the budget of {seconds:.3g} s")
    gain = lambda i, n: float(value(n + 1, p[i]) - value(n, p[i])) / costs.each[i]  # noqa: E731
    heap = [(-gain(i, low), i) for i in range(len(p))]
    heapq.heapify(heap)
    while heap:
        worth, i = heapq.heappop(heap)
        if worth >= 0 or counts[i] >= high or costs.each[i] > left:
            continue
        counts[i] += 1
        left -= costs.each[i]
        heapq.heappush(heap, (-gain(i, int(counts[i])), i))
    return [int(n) for n in counts]
