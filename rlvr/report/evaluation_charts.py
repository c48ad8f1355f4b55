"""The plots of evaluated checkpoints: pass@1 by difficulty, and verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlvr.evaluation import difficulty_key
from rlvr.report import svg
from rlvr.report.charts import Chart
from rlvr.report.drawing import legend
from rlvr.report.run_data import Evaluation


def evaluation_chart(suite: str, evaluations: Sequence[Evaluation], key: str) -> Chart:
    """pass@1 of each checkpoint by difficulty, with 95% intervals."""
    levels = ["all", *_levels(evaluations)]
    with svg.style():
        figure, (axes,) = svg.new_figure(height=0.9 + 0.2 * len(levels) * max(2, len(evaluations)), width=5.9)
        shift = 0.62 / max(1, len(evaluations))
        for place, evaluation in enumerate(evaluations):
            rows = []
            for row, level in enumerate(levels):
                metrics = evaluation.metrics if level == "all" else evaluation.metrics.by_difficulty.get(level)
                if metrics is not None and 1 in metrics.pass_at:
                    rows.append((row + (place - (len(evaluations) - 1) / 2) * shift, metrics.pass_at[1]))
            color = svg.SERIES[place % len(svg.SERIES)]
            heights = [y for y, _ in rows]
            axes.hlines(
                heights, [e.ci95[0] for _, e in rows], [e.ci95[1] for _, e in rows], color=color, alpha=0.55, lw=3
            )
            axes.plot([e.value for _, e in rows], heights, "o", ms=5.5, color=color, label=evaluation.label)
        axes.set_yticks(range(len(levels)), ["all problems" if level == "all" else level for level in levels])
        axes.set_ylim(len(levels) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_locator(svg.MaxNLocator(5))
        axes.grid(axis="x")
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("pass@1")
        legend(axes, len(evaluations))
        image = svg.inline_svg(figure, key, f"pass@1 on {suite} by difficulty")
    return Chart(
        key,
        f"{suite}: pass@1 by difficulty",
        "Each dot is the mean over the problems of a difficulty, the bar behind it its 95% interval over problems. "
        "Bars of one row that do not overlap differ beyond the luck of the problem draw; for overlapping ones the "
        "paired gain in the table is the sharper test.",
        image,
    )


def evaluation_verdicts(suite: str, evaluations: Sequence[Evaluation], key: str) -> Chart | None:
    """Shares of the verdicts of each checkpoint's samples; None when the results do not hold them."""
    shown = [evaluation for evaluation in evaluations if evaluation.metrics.verdicts]
    if not shown:
        return None
    names = {name for evaluation in shown for name in evaluation.metrics.verdicts}
    known = [name for name in svg.VERDICT_ORDER if name in names] + sorted(names - set(svg.VERDICT_ORDER))
    with svg.style():
        figure, (axes,) = svg.new_figure(height=1.0 + 0.34 * len(shown))
        left = np.zeros(len(shown))
        for name in known:
            shares = np.array([evaluation.metrics.verdicts.get(name, 0.0) for evaluation in shown])
            color = svg.VERDICT.get(name, svg.OTHER)
            axes.barh(
                range(len(shown)), shares, left=left, height=0.68, color=color, edgecolor=svg.PAPER, lw=0.5, label=name
            )
            left += shares
        axes.set_yticks(range(len(shown)), [evaluation.label for evaluation in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_locator(svg.MaxNLocator(5))
        axes.grid(visible=False)
        axes.set_xlabel("share of samples")
        legend(axes, len(known))
        image = svg.inline_svg(figure, key, f"verdicts on {suite} by checkpoint")
    return Chart(
        key,
        f"{suite}: verdicts",
        "What became of the samples. The colours after AC say what is left to learn: wrong answers, crashes, syntax, "
        "time.",
        image,
    )


def _levels(evaluations: Sequence[Evaluation]) -> list[str]:
    return sorted({level for e in evaluations for level in e.metrics.by_difficulty}, key=difficulty_key)
