"""The style of the report's plots: a small palette, thin axes, and SVG that is byte for byte reproducible."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e4e8ec"
ACCENT, ACCENT_LIGHT = "#0f766e", "#8cc5bf"  # TRACE
CONTRAST = "#b45309"  # baselines
NEUTRAL, NEUTRAL_LIGHT = "#64748b", "#c3ccd6"
SERIES = ("#0f766e", "#b45309", "#475d8f", "#9d4b6c", "#6b8e23", "#7c6f64", "#2f7fa3", "#a3802f")

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#b8c1cb",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "svg.hashsalt": "trace_jax",
    "svg.fonttype": "path",
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib settings of the report, within the block only."""
    with mpl.rc_context(_STYLE):
        yield


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """A figure of ``width`` × ``height`` inches with ``columns`` axes in a row, without pyplot's global state."""
    canvas = Figure(figsize=(width, height), layout="constrained")
    return canvas, list(canvas.subplots(1, columns, squeeze=False)[0])


def svg(canvas: Figure) -> str:
    """The figure as an ``<svg>`` element, equal for equal data."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
