"""The plot of a sweep: the pass rate by the steps of training, one panel a target and temperature."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evaluation.labels import decoding, label
from evaluation.style import MUTED, SERIES, styled, svg
from evaluation.sweep_table import SweepRow

FILE = "sweep.svg"
_DASHED, _DOTTED = (0, (4, 3)), (0, (1, 2))


def draw_sweep(rows: Sequence[SweepRow]) -> bytes:
    """The plot as an SVG file.

    Series of several steps are lines with a band of 95 %. Whatever has no steps, as the base and a route table, is a
    dashed line across its panel. A dotted line is the agent that does nothing.
    """
    done = [row for row in rows if row.pass_rate is not None]
    targets = list(dict.fromkeys(row.target for row in done))
    temperatures = sorted({row.temperature for row in done})
    colors = {name: SERIES[i % len(SERIES)] for i, name in enumerate(dict.fromkeys(row.series for row in done))}
    with styled():
        canvas = Figure(figsize=(4.4 * len(temperatures) + 1.2, 3.0 * len(targets) + 0.5), layout="constrained")
        axes = canvas.subplots(len(targets), len(temperatures), squeeze=False)
        for i, target in enumerate(targets):
            for j, temperature in enumerate(temperatures):
                panel = [row for row in done if (row.target, row.temperature) == (target, temperature)]
                _panel(axes[i, j], panel, colors)
                axes[i, j].set_title(f"{label(target)}, {decoding(temperature)}", color=MUTED)
        named = {name: line for axis in axes.flat for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
        canvas.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(4, len(named)))
        return svg(canvas).encode()


def _panel(axis: Axes, rows: Sequence[SweepRow], colors: dict[str, str]) -> None:
    for name in dict.fromkeys(row.series for row in rows):
        own = [(row.step, row.pass_rate) for row in rows if row.series == name and row.pass_rate is not None]
        line = sorted(((step, rate) for step, rate in own if step is not None), key=lambda point: point[0])
        if line:
            steps = [step for step, _ in line]
            low, high = [rate.low for _, rate in line], [rate.high for _, rate in line]
            axis.fill_between(steps, low, high, color=colors[name], alpha=0.13, linewidth=0)
            mean = [rate.mean for _, rate in line]
            axis.plot(steps, mean, "o-", color=colors[name], markersize=4, linewidth=1.8, label=label(name))
        for rate in (rate for step, rate in own if step is None):
            axis.axhline(rate.mean, color=colors[name], linestyle=_DASHED, linewidth=1.4, label=label(name))
    if (nothing := next((row.do_nothing for row in rows if row.do_nothing is not None), None)) is not None:
        axis.axhline(nothing, color=MUTED, linestyle=_DOTTED, linewidth=1.2, label="do nothing")
    axis.set_xlabel("training step")
    axis.set_ylim(0, None)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.grid(axis="y")
