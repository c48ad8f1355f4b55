"""What the report's plots have in common: curves with their rolling mean, the common axis, stages, the legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from rlvr.report import svg
from rlvr.report.run_data import Segment

MOST_POINTS = 500  # a curve of more steps is averaged over neighbouring ones
_SMOOTH_FROM = 20  # steps from which a rolling mean helps


def curve(
    axes: Axes,
    segments: Sequence[Segment],
    metric: str,
    label: str,
    color: str,
    *,
    alpha: float = 0.38,
    lw: float = 1.9,
) -> bool:
    """Whether there was anything to draw: raw values faint, rolling mean strong, broken between stages."""
    drawn = False
    for segment in segments:
        x, y = (np.array(part) for part in segment.series(metric))
        if x.size == 0:
            continue
        name = label if not drawn else None
        drawn = True
        if len(segment.rows) < _SMOOTH_FROM:  # by the stage, so that all curves of a stage look alike
            axes.plot(x, y, color=color, lw=lw, marker="o", ms=2.5 if x.size > 1 else 4, label=name)
            continue
        axes.plot(*binned(x, y), color=color, alpha=alpha, lw=0.8)
        axes.plot(*binned(x, rolling(y)), color=color, lw=lw, label=name)
    return drawn


def rolling(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean over a tenth of the curve, at least 5 steps; shorter at the ends."""
    half = max(2, y.size // 20)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    places = np.arange(y.size)
    low, high = np.maximum(0, places - half), np.minimum(y.size, places + half + 1)
    return (sums[high] - sums[low]) / (high - low)


def binned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if x.size <= MOST_POINTS:
        return x, y
    parts = np.array_split(np.arange(x.size), MOST_POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def finish(axes: Sequence[Axes], segments: Sequence[Segment], label: str = "step") -> None:
    """Common x axis, boundaries between stages and their names."""
    first = segments[0].rows[0]["step"] + segments[0].offset
    last = max(segment.last_step + segment.offset for segment in segments)
    margin = max(0.5, 0.01 * (last - first))
    axes[-1].set_xlim(first - margin, last + margin)
    axes[-1].set_xlabel(label)
    marks = marks_of(segments)
    if len(marks) < 2:
        return
    labelled = first - (last - first) - 1
    for start, name, new_stage in marks:
        for axis in axes:
            if start > first:
                axis.axvline(
                    start - 0.5, color=svg.MUTED, lw=0.9 if new_stage else 0.6, ls=(0, (4, 3) if new_stage else (1, 3))
                )
        if start - labelled < 0.011 * len(name) * (last - first):
            continue  # no room: the line alone must do
        labelled = start
        axes[0].annotate(
            name, (start - 0.5, 1), xycoords=("data", "axes fraction"), xytext=(3, 2),
            textcoords="offset points", va="bottom", fontsize=8, color=svg.MUTED,
        )  # fmt: skip


def marks_of(segments: Sequence[Segment]) -> list[tuple[int, str, bool]]:
    """(place, name, whether a stage begins there) of stages, and of the phases of a curriculum within them."""
    marks: list[tuple[int, str, bool]] = []
    for segment in segments:
        phase = segment.rows[0].get("curriculum/phase")
        marks.append((segment.rows[0]["step"] + segment.offset, segment.name, True))
        for row in segment.rows:
            now = row.get("curriculum/phase")
            if now is not None and phase is not None and now != phase:
                marks.append((row["step"] + segment.offset, f"phase {now:g}", False))
                phase = now
    return marks


def legend(axes: Axes, entries: int, marks: int = 1) -> None:
    """Above the axes, and above the names of stages and phases if there are several."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.08 if marks > 1 else 1.0), ncols=min(entries, 9), borderaxespad=0.2
    )


def share_axis(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
