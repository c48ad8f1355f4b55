"""What a step's rollouts amount to, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rlvr.evaluation.degeneration import is_repetitive
from rlvr.rollouts.records import RolloutRecord


def rollout_metrics(
    records: Sequence[RolloutRecord],
    counts: Sequence[int],
    outcomes: Sequence[Sequence[float | None]],
    mixed: Sequence[bool],
) -> dict[str, float]:
    """Returns the metrics of one step, by name.

    records: the step's rollouts, problem by problem. counts: rollouts of each problem. outcomes: verdicts of each
    problem's rollouts as 0 or 1, None where the judge failed. mixed: for every rollout, whether its group's rewards
    differ.
    """
    scored = [[outcome for outcome in group if outcome is not None] for group in outcomes]
    effective = [bool(group) and 0 < sum(group) < len(group) for group in scored]
    means = [sum(group) / len(group) for group in scored if group]
    values: dict[str, float] = {
        # on accuracy, not on the shaped reward: shaping makes groups differ without any signal of correctness
        "effective_gradient_ratio": sum(n for n, good in zip(counts, effective, strict=True) if good) / sum(counts),
        "effective_prompt_ratio": sum(effective) / len(effective),
        "group_pass_rate": sum(means) / len(means) if means else 0.0,
        "budget/n_min": min(counts),
        "budget/n_max": max(counts),
        "budget/n_mean": sum(counts) / len(counts),
        "budget/problems": len(counts),
        "repetition_ratio": sum(is_repetitive(record.completion) for record in records) / len(records),
        "sandbox/infrastructure_errors": sum(outcome is None for group in outcomes for outcome in group),
        "tokens_zero_signal": sum(
            record.completion_tokens for record, good in zip(records, mixed, strict=True) if not good
        ),
    }
    for verdict, count in Counter(record.verdict for record in records).items():
        values[f"verdict/{verdict}"] = count / len(records)
    # mean of group means, so that the allocation does not weigh in
    by_difficulty: dict[str, dict[int, list[float]]] = {}
    for record, outcome in zip(records, [a for group in outcomes for a in group], strict=True):
        if outcome is not None:
            by_difficulty.setdefault(record.difficulty or "unknown", {}).setdefault(record.group, []).append(outcome)
    for difficulty, members in by_difficulty.items():
        values[f"pass_rate/{difficulty}"] = sum(sum(g) / len(g) for g in members.values()) / len(members)
    return {name: float(value) for name, value in values.items()}
