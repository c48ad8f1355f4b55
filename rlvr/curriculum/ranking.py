"""Which problems are hardest for the current policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def hardest(
    keys: Sequence[str],
    pass_rates: Mapping[str, float | None],
    count: int | None = None,
    *,
    min_rate: float = 0.0,
    max_rate: float = 1.0,
) -> list[str]:
    """Returns the `count` keys with the lowest measured pass rate (all of them for None), hardest first.

    Pre-GRPO ranking of DRIVE (arXiv 2511.06307, section 3.2). Ties keep the order of `keys`. Rates outside
    [min_rate, max_rate] are left out; unmeasured problems come after all measured ones.
    """
    measured = [
        (rate, position, key)
        for position, key in enumerate(keys)
        if (rate := pass_rates.get(key)) is not None and min_rate <= rate <= max_rate
    ]
    ranked = [key for _, _, key in sorted(measured)]
    ranked += [key for key in keys if pass_rates.get(key) is None]
    return ranked if count is None else ranked[:count]
