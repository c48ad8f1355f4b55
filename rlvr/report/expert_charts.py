"""Plots of a mixture-of-experts policy's load; a dense run has none, and none are missed."""

from __future__ import annotations

import json

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlvr.moe.statistics import TOTAL, ExpertLoad, over_chance
from rlvr.report import svg
from rlvr.report.drawing import curve, finish, legend, marks_of, share_axis
from rlvr.report.run_data import Run

_HEAT = (92, 140, 219)
_MOST_LABELS = 12  # layers named beside the heat map; more would run into each other


def load_over_time(run: Run) -> Figure | None:
    """MaxVio over training, of a batch and of all tokens between two log lines; below, what was replayed."""
    if not run.rl:
        return None
    replayed = any(segment.series("moe/replayed")[0] for segment in run.rl)
    figure, axes = svg.new_figure(2 if replayed else 1, height=3.4 if replayed else 2.55)
    # Curves that coincide stay visible: the later ones are drawn thinner over the earlier.
    lines = (
        ("moe/max_violation_batch", "batch", svg.SERIES[0], 1.9),
        ("moe/max_violation_window", "window", svg.SERIES[1], 4.2),
        ("moe/max_violation/advantage_up", "rollouts reinforced", svg.SERIES[2], 2.4),
        ("moe/max_violation/advantage_down", "rollouts held back", svg.SERIES[3], 1.2),
    )
    drawn = [curve(axes[0], run.rl, metric, label, color, lw=lw) for metric, label, color, lw in lines]
    if not any(drawn):
        return None
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("busiest / mean - 1")
    if replayed:
        curve(axes[1], run.rl, "moe/replayed", "replayed", svg.SERIES[4])
        share_axis(axes[1])
        axes[1].set_ylabel("replayed")
    finish(axes, run.rl)
    legend(axes[0], sum(drawn), len(marks_of(run.rl)))
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
    labelled = np.arange(0, len(counts), -(-len(counts) // _MOST_LABELS))
    axes.set_yticks(labelled + 0.5, [str(load.layers[row]) for row in labelled])
    axes.grid(visible=False)
    axes.set_xlabel(f"expert (strongest: {relative.max():.2f} times the mean)")
    axes.set_ylabel("layer")
    return figure


def chosen_together(run: Run) -> Figure | None:
    """One panel a counted layer, one cell a pair of experts: how often a token chose both, over chance."""
    load = last_load(run)
    if load is None or not load.pairs:
        return None
    layers = sorted(load.pairs)
    panels = np.stack([over_chance(load.pairs[layer]) for layer in layers])
    if np.isnan(panels).all():
        return None
    strongest = float(np.nanmax(panels))
    figure = svg.new_figure(height=0.5 + 5.6 / max(3, len(layers)))[0]
    figure.clear()
    axes = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for axis, layer, ratio in zip(axes, layers, panels, strict=True):
        image = np.zeros((*ratio.shape, 4), dtype=np.uint8)
        image[..., :3] = _HEAT
        image[..., 3] = np.round(255 * np.clip(np.nan_to_num(ratio) / max(2.0, strongest), 0, 1))
        axis.imshow(image, interpolation="none", extent=(-0.5, load.experts - 0.5, load.experts - 0.5, -0.5))
        axis.set_title(f"layer {layer}", fontsize=8.5)
        axis.grid(visible=False)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes[0].set_ylabel("expert")
    figure.supxlabel(f"expert (strongest pair: {strongest:.2f} times chance)", fontsize=9, color=svg.MUTED)
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
        "experts carry what is being learnt. Below: the share of update passes that ran on recorded routes.",
        load_over_time,
    ),
    (
        "expert-load",
        "Expert load",
        "Tokens each expert got in updates, over its layer's mean: the stronger the colour, the more; an expert "
        "without any colour is dead. rlvr moe place turns the stage's expert_load.json into a placement for serving.",
        load_by_expert,
    ),
    (
        "expert-pairs",
        "Experts chosen together",
        "How often a token chose both experts, over what their loads alone would give: the stronger the colour, the "
        "more, none for pairs that never meet. Counted in at most four layers. Even colour is the usual case; a few "
        "strong pairs say that experts work in sets, and that their tokens travel least where a set lies on one rank.",
        chosen_together,
    ),
)
