"""A micro-batch as one row without padding: its rollouts one behind the other, told apart by their positions.

Attention has to keep to each rollout. flash-attention cuts the row at every position 0; `sdpa`, `flex_attention` and
`eager` mask it, as transformers does where a row's positions begin anew (of these only flex passes over blocks that are
masked, the others pay for every pair of tokens of the row). All other layers work token by token and cost what the
tokens that are there cost. What carries a state from token to token (linear attention, state spaces) is never cut.
"""

from __future__ import annotations

from typing import Any

import torch

_CUT = {"full_attention", "sliding_attention", "chunked_attention"}  # layers that are masked where positions begin anew


def why_padding_stays(model: Any, *, experts: bool) -> str | None:
    """Why micro-batches of this model must be padded, None where they need not be."""
    config = model.config.get_text_config()
    if experts:
        return "a mixture of experts, whose routes are counted and replayed by row"
    if other := sorted(set(getattr(config, "layer_types", None) or ()) - _CUT):
        return f"layers of {', '.join(other)}, which would carry a state from one rollout into the next"
    if not positions_are_relative(model):
        return "positions that are not rotary, or whose angles depend on the length of the row"
    implementation = str(config._attn_implementation)
    if implementation in ("sdpa", "flex_attention", "eager") or "flash" in implementation:
        return None
    return f"attn_implementation {implementation}, which is not known to tell rollouts of one row apart"


def positions_are_relative(model: Any) -> bool:
    """Whether shifting a whole sequence changes nothing: rotary embeddings whose angles do not depend on its length."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return False
    kinds = [part.get("rope_type", "default") for part in ([rope] if "rope_theta" in rope else rope.values())]
    return not {"dynamic", "longrope"} & set(kinds)


def logps_and_entropies(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: int, *, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns log-probabilities and entropies of the last `kept` tokens of every row, [rows, kept]; 0 for padding.

    ids, mask: [rows, tokens], padded on either side. `model` has TRL's fused head; it is run once, on a single row.
    """
    real = mask.bool()
    scored = real.clone()
    scored[:, : ids.shape[1] - kept] = False
    positions = real.long().cumsum(dim=1) - 1
    found = model(
        input_ids=ids[real][None],
        position_ids=positions[real][None],
        labels=ids.masked_fill(~scored, -100)[real][None],
        fused_lm_head=True,
    )

    def as_rows(values: torch.Tensor) -> torch.Tensor:  # [1, tokens - 1], of every token but the first
        flat = torch.cat([values.new_zeros(1), values[0]])
        whole = flat.new_zeros(real.shape).masked_scatter(real, flat)
        return whole[:, ids.shape[1] - kept :]

    return as_rows(found.log_probs), as_rows(found.entropy) if entropy else None
