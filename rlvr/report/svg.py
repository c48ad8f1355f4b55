"""Matplotlib figures as inline SVG that follows the page's colours, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that stand for CSS variables: matplotlib draws with the stand-in, the page decides what it looks like.
INK, MUTED, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
SERIES = tuple(f"#0102{i:02x}" for i in range(8))
RAMP = tuple(f"#0103{i:02x}" for i in range(8))  # easy to hard
VERDICT_ORDER = ("AC", "WA", "PE", "TLE", "ILE", "MLE", "OLE", "RE", "CE", "NO_CODE", "IE")
VERDICT = {name: f"#0104{i:02x}" for i, name in enumerate(VERDICT_ORDER)}
OTHER = "#0104ff"

_VARIABLES = (
    {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", OTHER: "--v-other"}
    | {color: f"--c{i}" for i, color in enumerate(SERIES)}
    | {color: f"--r{i}" for i, color in enumerate(RAMP)}
    | {color: f"--v-{name}" for name, color in VERDICT.items()}
)

_STEPS = [1, 2, 2.5, 5, 10]  # ticks at round numbers
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: crisp, small, searchable, in the page's font
    "svg.hashsalt": "rlvr",
    "svg.image_inline": True,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.ymargin": 0.08,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.handleheight": 0.8,
    "legend.columnspacing": 1.4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Within it figures get the report's look; the process's own matplotlib settings stay as they are."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(rows: int = 1, *, height: float = 2.55, width: float = 5.9) -> tuple[Figure, list[Axes]]:
    """A figure in inches with `rows` axes that share the x axis; drawn without pyplot, so without global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=_STEPS))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4 if rows > 1 else 5, steps=_STEPS))
    return figure, list(axes)


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as one <svg> element; `name` keeps its ids apart from those of other figures on the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', text)
    # Hundredths of a point are enough; the default of six decimals doubles the size.
    text = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"-?\d+\.\d{3,}", _hundredths, path[0]), text)
    text = re.sub(r"#0[0-9a-f]{5}", lambda m: f"var({_VARIABLES[m[0]]})" if m[0] in _VARIABLES else m[0], text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1).strip()


def _hundredths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
