"""Plots of a mixture-of-experts policy's load; a dense run has none, and none are missed."""

from __future__ import annotations

import json

import numpy as np
from matplotlib.figure import Figure

from rlvr.moe.statistics import TOTAL, ExpertLoad
from rlvr.report import svg
from rlvr.report.drawing import curve, finish, legend
from rlvr.report.run_data import Run

_HEAT = (92, 140, 219)


def load_over_time(run: Run) -> Figure | None:
    """MaxVio over training: of a batch, and of all tokens between two log lines."""
    if not run.rl:
        return None
    figure, (axes,) = svg.new_figure()
    lines = (
        ("moe/max_violation_batch", "batch", svg.SERIES[0]),
        ("moe/max_violation_window", "window", svg.SERIES[1]),
        ("moe/max_violation/advantage_up", "rollouts reinforced", svg.SERIES[2]),
        ("moe/max_violation/advantage_down", "rollouts held back", svg.SERIES[3]),
    )
    drawn = [curve(axes, run.rl, *line) for line in lines]
    if not any(drawn):
        return None
    axes.set_ylim(bottom=0)
    axes.set_ylabel("busiest over mean, minus 1")
    finish([axes], run.rl)
    legend(axes, sum(drawn))
    return figure


def load_by_expert(run: Run) -> Figure | None:
    """One cell an expert and layer, of the last stage that has a load: its tokens over the layer's mean."""
    load = last_load(run)
    if load is None or TOTAL not in load.counts:
        return None
    counts = load.counts[TOTAL].astype(float)
    relative = counts / np.maximum(counts.mean(axis=1, keepdims=True), 1e-12)
    image = np.zeros((*counts.shape, 4), dtype=np.uint8)
    image[..., :3] = _HEAT
    image[..., 3] = np.round(255 * np.clip(relative / max(2.0, relative.max()), 0, 1))
    figure, (axes,) = svg.new_figure()
    axes.imshow(image, aspect="auto", interpolation="none", extent=(-0.5, counts.shape[1] - 0.5, len(counts), 0))
    axes.set_yticks(np.arange(len(counts)) + 0.5, [str(layer) for layer in load.layers])
    axes.grid(visible=False)
    axes.set_xlabel(f"expert (strongest: {relative.max():.2f} times the mean)")
    axes.set_ylabel("layer")
    return figure


def last_load(run: Run) -> ExpertLoad | None:
    """The recorded load of the last stage that kept one; a broken file is noted as missing."""
    for folder in [*(run.folder / segment.name for segment in reversed(run.rl)), run.folder]:
        path = folder / "expert_load.json"
        if not path.is_file():
            continue
        try:
            return ExpertLoad.from_dict(json.loads(path.read_text()), str(path.relative_to(run.folder)))
        except ValueError as error:
            run.missing.append(str(error))
    return None


EXPERTS = (
    (
        "expert-balance",
        "Expert balance",
        "MaxVio: how far the busiest expert lies above the mean, averaged over layers; 0 is even. The batch line has a "
        "floor of sampling noise. A line of its own for reinforced rollouts that stays above the other says that a few "
        "experts carry what is being learnt.",
        load_over_time,
    ),
    (
        "expert-load",
        "Expert load",
        "Tokens each expert got in updates, over its layer's mean, strongest colour first; white experts are dead. "
        "`rlvr moe place` turns the same file into a placement for serving.",
        load_by_expert,
    ),
)
