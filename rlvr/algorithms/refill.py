"""Rows of several generations put together into one step, whichever process sampled them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from trl.trainer.utils import pad

from rlvr.algorithms.correction import loss_mask


def regrouped(
    outputs: Sequence[dict[str, Any]], rows: Sequence[int], accelerator: Any, pad_token_id: int
) -> dict[str, Any]:
    """Returns TRL's inputs for this process's equal share of `rows`.

    outputs: what each generation gave on this process; all have as many rows, and processes hold consecutive shares.
    rows: places in all generations, one after the other, over all processes.
    """
    size = len(outputs[0]["advantages"])
    processes, rank = accelerator.num_processes, accelerator.process_index
    here: list[tuple[int, dict[str, torch.Tensor]]] = []
    wanted = set(rows)
    for number, output in enumerate(outputs):
        for row in range(size):
            place = number * size * processes + rank * size + row
            if place in wanted:
                here.append((place, _bare(output, row, size)))
    found = dict(gather_object(here))
    share = len(rows) // processes
    mine = [found[place] for place in rows[rank * share : (rank + 1) * share]]
    device = outputs[0]["advantages"].device
    result: dict[str, Any] = {}
    for name in mine[0]:
        values = [row[name] for row in mine]
        if values[0].ndim == 0:
            result[name] = torch.stack(values).to(device)
            continue
        side = "left" if name.startswith("prompt_") else "right"
        filler = pad_token_id if name.endswith("_ids") else (1 if name == "tool_mask" else 0)
        if name.endswith("_routes"):  # the router chooses for padding
            filler = 255 if values[0].dtype == torch.uint8 else -1
        result[name] = pad(values, padding_value=filler, padding_side=side).to(device)
    result["num_items_in_batch"] = accelerator.gather(loss_mask(result).sum()).sum()
    return result


def _bare(output: dict[str, Any], row: int, size: int) -> dict[str, torch.Tensor]:
    """One row without its padding, on the CPU."""
    prompt = int(output["prompt_mask"][row].sum())
    # a completion masked as a whole (truncated) still has its tokens: cut only where all rows are padding
    completion = output["completion_ids"].shape[1]
    ended = int(output["completion_mask"][row].sum())
    length = ended or completion
    bare: dict[str, torch.Tensor] = {}
    for name, value in output.items():
        if not isinstance(value, torch.Tensor) or not value.ndim or value.shape[0] != size:
            continue
        cell = value[row].cpu()
        if name in ("prompt_ids", "prompt_mask", "prompt_routes"):
            cell = cell[cell.shape[0] - prompt :]
        elif cell.ndim and cell.shape[0] == completion:
            cell = cell[:length]
        bare[name] = cell
    return bare
