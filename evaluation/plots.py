"""The plots of the report. Each is a function from records to a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evaluation.labels import decoding, duration, family, label
from evaluation.report_data import BudgetPoint, Confusion, Metrics
from evaluation.style import (
    ACCENT,
    ACCENT_LIGHT,
    CONTRAST,
    GRID,
    INK,
    MUTED,
    NEUTRAL,
    NEUTRAL_LIGHT,
    SERIES,
    figure,
)
from trace_jax.contract.capability import AnalysisReport, CapabilityReport, Interval
from trace_jax.contract.evaluation import EvaluationReport, MethodResult


def pass_rates(report: EvaluationReport) -> Figure:
    """Pass rate by method with 95 % intervals, one panel a temperature. Methods keep the order of the report."""
    temperatures = sorted({m.temperature for m in report.methods})
    names = list(dict.fromkeys(m.method for m in report.methods))
    canvas, axes = figure(4.1 * len(temperatures) + 1.3, 0.42 * len(names) + 1.0, len(temperatures))
    found = {(m.method, m.temperature): m for m in report.methods}
    high = max(m.pass_rate.high for m in report.methods)
    for axis, temperature in zip(axes, temperatures, strict=True):
        for y, name in enumerate(names):
            if result := found.get((name, temperature)):
                _bar(axis, y, result, high)
        axis.set_title(decoding(temperature), color=MUTED)
        axis.set_yticks(range(len(names)), [label(n) for n in names] if axis is axes[0] else [""] * len(names))
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlim(0, min(1.0, high) * 1.22 + 0.02)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(axis="x")
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
    return canvas


def _bar(axis: Axes, y: int, result: MethodResult, widest: float) -> None:
    rate = result.pass_rate
    main, light = {"trace": (ACCENT, ACCENT_LIGHT), "grpo": (CONTRAST, "#e7c39c")}.get(
        family(result.method), (NEUTRAL, NEUTRAL_LIGHT)
    )
    axis.barh(y, rate.mean, height=0.56, color=light)
    axis.plot([rate.low, rate.high], [y, y], color=main, linewidth=2.2, solid_capstyle="round")
    axis.plot([rate.mean], [y], "o", color=main, markersize=5)
    axis.text(rate.high + 0.02 * widest, y, f"{100 * rate.mean:.1f}", va="center", color=INK)


def budget(points: Sequence[BudgetPoint]) -> Figure:
    """Pass rate by rollouts spent, one line a method, 95 % band; one panel a temperature."""
    temperatures = sorted({p.temperature for p in points})
    methods = list(dict.fromkeys(p.method for p in points))
    canvas, axes = figure(4.2 * len(temperatures) + 0.4, 3.1, len(temperatures))
    for axis, temperature in zip(axes, temperatures, strict=True):
        for name, color in zip(methods, _colors(methods), strict=True):
            line = sorted(
                (p for p in points if (p.method, p.temperature) == (name, temperature)), key=lambda p: p.rollouts
            )
            x = [p.rollouts for p in line]
            low, high = [p.pass_rate.low for p in line], [p.pass_rate.high for p in line]
            axis.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
            axis.plot(
                x, [p.pass_rate.mean for p in line], "o-", color=color, markersize=4, linewidth=1.8, label=label(name)
            )
        axis.set_title(decoding(temperature), color=MUTED)
        axis.set_xlabel("rollouts spent")
        axis.set_ylim(0, None)
        axis.set_xlim(0, None)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.grid(axis="y")
    axes[0].legend(loc="best")
    return canvas


def learning_curves(metrics: Mapping[str, Metrics]) -> Figure:
    """Mean reward of the training rollouts, share of informative groups and diversity by step, one line an adapter."""
    series = (
        ("reward/mean", "mean reward of the step's rollouts"),
        ("groups/live", "share of informative groups"),
        ("rollout/distinct", "distinct outputs in a group"),
    )
    canvas, axes = figure(8.8, 3.0, len(series))
    for axis, (key, title) in zip(axes, series, strict=True):
        for name, color in zip(metrics, _colors(list(metrics)), strict=True):
            steps = [(step, row[key]) for step, row in sorted(metrics[name].items()) if key in row]
            x, y = [s for s, _ in steps], np.array([v for _, v in steps])
            axis.plot(x, y, color=color, alpha=0.28, linewidth=1)
            axis.plot(x, _smooth(y), color=color, linewidth=1.9, label=label(name))
        axis.set_title(title, color=MUTED)
        axis.set_xlabel("step")
        axis.set_ylim(0, 1.02)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(axis="y")
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))))
    return canvas


def _smooth(values: np.ndarray, window: int = 5) -> np.ndarray:
    """Centred mean over up to ``window`` steps, ignoring NaN; shorter at the ends."""
    half = window // 2
    pieces = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return np.array([np.nan if np.isnan(piece).all() else np.nanmean(piece) for piece in pieces])


def capabilities(analysis: AnalysisReport, least_coverage: float = 0.10, least_delta: float = 0.20) -> Figure:
    """Coverage and delta of every candidate with 95 % intervals; dashed lines are the thresholds ρ and δ."""
    rows = analysis.capabilities
    canvas, axes = figure(8.8, 0.36 * len(rows) + 1.2, 2)
    panels = (
        ("Cov: share of failures that lack it", least_coverage, [c.coverage for c in rows]),
        ("Δ: error rate on failed − on passed", least_delta, [c.delta for c in rows]),
    )
    for axis, (title, threshold, intervals) in zip(axes, panels, strict=True):
        axis.axvline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        for y, (row, interval) in enumerate(zip(rows, intervals, strict=True)):
            _dot(axis, y, interval, row.selected)
        axis.set_title(title, color=MUTED)
        axis.set_yticks(range(len(rows)), [_candidate(c) for c in rows] if axis is axes[0] else [""] * len(rows))
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(axis="x")
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
    return canvas


def _candidate(row: CapabilityReport) -> str:
    return label(row.capability.name) + (" (distractor)" if row.distractor else "")


def _dot(axis: Axes, y: int, interval: Interval, selected: bool) -> None:
    color = ACCENT if selected else "#9aa5b1"
    axis.plot([interval.low, interval.high], [y, y], color=color, linewidth=2, solid_capstyle="round")
    axis.plot([interval.mean], [y], "o", color=color, markersize=6, markerfacecolor=color if selected else "white")


def confusion_matrix(confusion: Confusion) -> Figure:
    """Counts of conversations by the adapter they belong to (rows) and the adapter chosen (columns).

    Cells are shaded by their share of the row.
    """
    counts = np.array(confusion.counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(confusion.choices)
    canvas, (axis,) = figure(0.85 * size + 2.6, 0.5 * size + 2.0)
    shades = LinearSegmentedColormap.from_list("share", ["#ffffff", ACCENT])
    edges = np.arange(size + 1) - 0.5
    axis.pcolormesh(edges, edges, share, cmap=shades, vmin=0, vmax=1, edgecolors=GRID, linewidth=0.8)
    axis.invert_yaxis()
    for i in range(size):
        for j in range(size):
            axis.text(j, i, f"{counts[i, j]}", ha="center", va="center", color="white" if share[i, j] > 0.55 else INK)
    names = [label(name) for name in confusion.choices]
    axis.set_xticks(range(size), names, rotation=28, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(size), names)
    axis.tick_params(which="both", length=0)
    axis.set_xlabel("sent to")
    axis.set_ylabel("belongs to")
    for spine in axis.spines.values():
        spine.set_visible(False)
    return canvas


def stage_times(seconds: Mapping[str, float]) -> Figure:
    """Wall-clock seconds of each stage, in order."""
    canvas, (axis,) = figure(8.8, 0.34 * len(seconds) + 0.7)
    axis.barh(range(len(seconds)), list(seconds.values()), height=0.56, color=NEUTRAL_LIGHT)
    widest = max(seconds.values())
    for y, value in enumerate(seconds.values()):
        axis.text(value + 0.01 * widest, y, duration(value), va="center", color=INK)
    axis.set_yticks(range(len(seconds)), [label(name) for name in seconds])
    axis.set_ylim(len(seconds) - 0.4, -0.6)
    axis.set_xlim(0, widest * 1.12)
    axis.set_xlabel("seconds")
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    return canvas


def _colors(names: Sequence[str]) -> list[str]:
    """Colours of lines. A single TRACE line and a single GRPO line have their own; the others share the rest."""
    own = {"trace": ACCENT, "grpo": CONTRAST}
    first = {family(name): name for name in reversed(names)}
    spare = [color for color in SERIES if color not in {own[f] for f in first if f in own}]
    taken = iter(spare * (1 + len(names) // len(spare)))
    return [own[family(n)] if family(n) in own and first[family(n)] == n else next(taken) for n in names]
