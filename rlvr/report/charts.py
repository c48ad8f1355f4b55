"""The plots of a training report: each a figure, a title and a caption that says how to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from rlvr.evaluation import difficulty_key
from rlvr.report import svg
from rlvr.report.drawing import MOST_POINTS, binned, curve, finish, legend, marks_of, share_axis
from rlvr.report.expert_charts import EXPERTS
from rlvr.report.run_data import Run, Segment

_SIZES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)
_HEAT = (0.36, 0.55, 0.86)  # readable on white and on near-black


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot of the page; `image` is inline SVG."""

    key: str
    title: str
    caption: str
    image: str


def training_charts(run: Run) -> tuple[list[Chart], list[str]]:
    """(charts that the metrics allow, names of those they do not)."""
    charts, absent = [], []
    with svg.style():
        for key, title, caption, draw in (*_TRAINING, *EXPERTS):
            figure = draw(run)
            if figure is not None:
                charts.append(Chart(key, title, caption, svg.inline_svg(figure, key, title)))
            elif not key.startswith("expert") and (run.sft if key == "sft" else run.rl):  # dense runs miss no experts
                absent.append(title)
    return charts, absent


def _lines(
    run: Run, curves: Sequence[tuple[str, str, str]], *, shares: bool = False, ylabel: str = ""
) -> Figure | None:
    if not run.rl:
        return None
    figure, (axes,) = svg.new_figure()
    # Of two curves that coincide the wider one stays visible behind the other.
    widths = [3.6, 1.5] if len(curves) == 2 else [1.9] * len(curves)
    drawn = [curve(axes, run.rl, *which, lw=lw) for which, lw in zip(curves, widths, strict=True)]
    if not any(drawn):
        return None
    if shares:
        share_axis(axes)
    elif axes.get_ylim()[0] > -0.02:  # an axis that starts at zero does not exaggerate
        axes.set_ylim(bottom=0)
    axes.set_ylabel(ylabel)
    finish([axes], run.rl)
    if len(curves) > 1:
        legend(axes, sum(drawn), len(marks_of(run.rl)))
    return figure


def _reward(run: Run) -> Figure | None:
    curves = [("group_pass_rate", "group pass rate", svg.SERIES[0]), ("reward", "mean reward", svg.SERIES[1])]
    return _lines(run, curves, ylabel="share / reward")


def _pass_rate(run: Run) -> Figure | None:
    names = {key[10:] for segment in run.rl for row in segment.rows for key in row if key.startswith("pass_rate/")}
    levels = sorted(names, key=difficulty_key)
    if not levels:
        return None
    places = np.linspace(0, len(svg.RAMP) - 1, max(2, len(levels))).round().astype(int)
    curves = [
        (f"pass_rate/{level}", level or "unknown", svg.RAMP[int(place)])
        for level, place in zip(levels, places, strict=False)
    ]
    return _lines(run, curves, shares=True, ylabel="pass rate")


def _effective(run: Run) -> Figure | None:
    curves = [
        ("effective_gradient_ratio", "of rollouts", svg.SERIES[0]),
        ("effective_prompt_ratio", "of problems", svg.SERIES[1]),
    ]
    return _lines(run, curves, shares=True, ylabel="in mixed groups")


def _allocation(run: Run) -> Figure | None:
    if not run.rl:
        return None
    figure, (axes,) = svg.new_figure()
    drawn = False
    for segment in run.rl:
        x, low = segment.series("budget/n_min")
        _, high = segment.series("budget/n_max")
        if not x or len(low) != len(high):
            continue
        axes.fill_between(
            x,
            low,
            high,
            color=svg.SERIES[0],
            alpha=0.22,
            lw=0,
            step="mid",
            label=None if drawn else "smallest to largest",
        )
        axes.plot(*segment.series("budget/n_mean"), color=svg.SERIES[0], label=None if drawn else "mean")
        drawn = True
    if not drawn:
        return None
    axes.set_ylim(bottom=0)
    axes.set_ylabel("rollouts per problem")
    finish([axes], run.rl)
    legend(axes, 2, len(marks_of(run.rl)))
    return figure


def _allocation_heat(run: Run) -> Figure | None:
    histograms = [
        (row["step"] + segment.offset, {int(n): int(c) for n, c in row["budget/allocation_histogram"].items()})
        for segment in run.rl
        for row in segment.rows
        if isinstance(row.get("budget/allocation_histogram"), dict) and row["budget/allocation_histogram"]
    ]
    if not histograms:
        return None
    smallest, largest = min(min(h) for _, h in histograms), max(max(h) for _, h in histograms)
    bottom = max((size for size in _SIZES if size <= smallest), default=0)
    edges = [size for size in _SIZES if bottom <= size <= largest] or [smallest]
    columns = min(MOST_POINTS, len(histograms))
    cells = np.zeros((len(edges), columns))  # [group sizes, steps]: share of the step's problems
    for place, (_, histogram) in enumerate(histograms):
        for n, count in histogram.items():
            row = int(np.searchsorted(edges, n, side="right")) - 1
            cells[row, place * columns // len(histograms)] += count
    cells /= np.maximum(1, cells.sum(axis=0))
    image = np.zeros((*cells.shape, 4), dtype=np.uint8)  # transparent to strong: works on any background
    image[..., :3] = (np.array(_HEAT) * 255).astype(np.uint8)
    image[..., 3] = np.round(np.where(cells > 0, 0.06 + 0.94 * np.sqrt(cells), 0) * 255)
    figure, (axes,) = svg.new_figure()
    extent = (histograms[0][0] - 0.5, histograms[-1][0] + 0.5, -0.5, len(edges) - 0.5)
    axes.imshow(image, aspect="auto", origin="lower", interpolation="none", extent=extent)
    labels = [
        f"{low}" if following == low + 1 else f"{low}-{following - 1}"
        for low, following in zip(edges, [*edges[1:], largest + 1], strict=True)
    ]
    axes.set_yticks(range(len(edges)), labels)
    axes.grid(visible=False)
    axes.set_ylabel("rollouts per problem")
    finish([axes], run.rl)
    return figure


def _stacked(run: Run, metrics: Sequence[tuple[str, str, str]], ylabel: str, *, share: bool) -> Figure | None:
    figure, (axes,) = svg.new_figure()
    drawn = False
    for segment in run.rl:
        rows = [row for row in segment.rows if any(name in row for name, _, _ in metrics)]
        if not rows:
            continue
        x = np.array([row["step"] + segment.offset for row in rows], dtype=np.float64)
        parts = [np.array([float(row.get(name) or 0.0) for row in rows]) for name, _, _ in metrics]
        if x.size == 1:  # an area needs a width
            x, parts = np.array([x[0] - 0.4, x[0] + 0.4]), [np.repeat(part, 2) for part in parts]
        shown = [binned(x, part) for part in parts]
        colors = [color for _, _, color in metrics]
        labels = ["_" if drawn else label for _, label, _ in metrics]
        axes.stackplot(
            shown[0][0], [y for _, y in shown], colors=colors, labels=labels, edgecolor=svg.PAPER, linewidth=0.4
        )
        drawn = True
    if not drawn:
        return None
    if share:
        axes.set_ylim(0, 1)
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel(ylabel)
    finish([axes], run.rl)
    legend(axes, len(metrics), len(marks_of(run.rl)))
    return figure


def _verdicts(run: Run) -> Figure | None:
    names = {key[8:] for segment in run.rl for row in segment.rows for key in row if key.startswith("verdict/")}
    known = [name for name in svg.VERDICT_ORDER if name in names] + sorted(names - set(svg.VERDICT_ORDER))
    metrics = [(f"verdict/{name}", name, svg.VERDICT.get(name, svg.OTHER)) for name in known]
    return _stacked(run, metrics, "share of rollouts", share=True) if metrics else None


def _time(run: Run) -> Figure | None:
    names = {key[5:] for segment in run.rl for row in segment.rows for key in row if key.startswith("time/")}
    order: list[str] = [name for name in ("generate", "grade", "update") if name in names]
    order += sorted(names - set(order))
    metrics = [(f"time/{name}", name, svg.SERIES[i % len(svg.SERIES)]) for i, name in enumerate(order)]
    return _stacked(run, metrics, "seconds per step", share=False) if metrics else None


def _entropy(run: Run) -> Figure | None:
    return _lines(run, [("entropy", "entropy", svg.SERIES[0])], ylabel="nats per token")


def _length(run: Run) -> Figure | None:
    return _two(
        run.rl,
        ("completions/mean_length", "tokens", svg.SERIES[0]),
        ("completions/clipped_ratio", "share cut off", svg.SERIES[3]),
    )


def _sft(run: Run) -> Figure | None:
    if not run.sft:
        return None
    figure, (axes,) = svg.new_figure()
    if not curve(axes, run.sft[:1], "loss", "loss", svg.SERIES[0]):
        return None
    axes.set_ylabel("loss (nats per token)")
    axes.set_ylim(bottom=0)
    finish([axes], run.sft[:1], "optimiser step")
    return figure


def _optimiser(run: Run) -> Figure | None:
    return _two(run.rl, ("loss", "loss", svg.SERIES[0]), ("grad_norm", "gradient norm", svg.SERIES[1]))


def _two(segments: Sequence[Segment], *curves: tuple[str, str, str]) -> Figure | None:
    if not segments:
        return None
    present = [curve for curve in curves if any(segment.series(curve[0])[0] for segment in segments)]
    if not present:
        return None
    figure, axes = svg.new_figure(len(present))
    for axis, (metric, label, color) in zip(axes, present, strict=True):
        curve(axis, segments, metric, label, color)
        axis.set_ylabel(label)
        if metric != "loss":
            axis.set_ylim(bottom=0)
    finish(axes, segments)
    return figure


_TRAINING: tuple[tuple[str, str, str, Callable[[Run], Figure | None]], ...] = (
    (
        "reward",
        "Reward",
        "The group pass rate is the mean over problems, the reward the mean over rollouts. Read the first: when hard "
        "problems get more rollouts the mean reward falls without the policy having become worse.",
        _reward,
    ),
    (
        "pass-rate",
        "Pass rate by difficulty",
        "Training problems, as sampled at each step. Expect easy levels to rise first; a falling easy level while "
        "hard ones rise means that easy problems have left the mix and are being forgotten.",
        _pass_rate,
    ),
    (
        "effective",
        "Effective gradient",
        "Share of rollouts, and of problems, in groups that hold both passes and failures: only these teach. Below "
        "a third most of the sampling is wasted. Allocation lifts the rollout line; the problem line hardly moves.",
        _effective,
    ),
    (
        "allocation",
        "Rollouts per problem",
        "Band: smallest to largest group of a step; line: mean, which is the budget. A flat line without a band is "
        "the uniform allocation.",
        _allocation,
    ),
    (
        "allocation-heat",
        "Allocation over time",
        "Each column is a step, each row a group size; the stronger the colour, the more of the step's problems got "
        "groups of that size. Knapsack allocation leaves solved problems at the bottom and moves the rest up.",
        _allocation_heat,
    ),
    (
        "verdicts",
        "Verdicts",
        "Share of each verdict. AC should grow out of WA; a growing TLE, CE or NO_CODE share is a habit to look at in "
        "the rollouts below. IE is the judge's own failure and should be invisible.",
        _verdicts,
    ),
    (
        "entropy",
        "Entropy",
        "Mean entropy of the policy per sampled token. A slow decline is normal; a fall to nearly zero within a few "
        "steps is collapse, a steep rise is divergence.",
        _entropy,
    ),
    (
        "length",
        "Completion length",
        "Mean tokens per completion, and the share cut off at the limit. Cut-off completions cannot pass: if their "
        "share grows, raise the limit or look for repetition.",
        _length,
    ),
    (
        "time",
        "Where the time goes",
        "Seconds of each step. The largest area is what to speed up; grading should stay a thin band.",
        _time,
    ),
    (
        "optimiser",
        "Loss and gradient norm",
        "The policy-gradient loss hovers around zero and says little about progress. Spikes of the gradient norm "
        "that come with a drop in reward call for a lower learning rate.",
        _optimiser,
    ),
    (
        "sft",
        "Supervised fine-tuning",
        "Loss on the demonstrations. It should flatten; the level it reaches depends on how varied the "
        "demonstrations are, not only on the model.",
        _sft,
    ),
)
