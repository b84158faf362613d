"""Prints the table of methods on the terminal."""

import numpy as np
from rich.console import Console
from rich.table import Table

from evaluation import statistics
from evaluation.report_data import Metrics
from evaluation.style import decoding, label, points
from trace_jax.contract.capability import Interval
from trace_jax.contract.evaluation import Comparison, EvaluationReport

_LEARNING = ("reward/mean", "reward/success", "groups/live", "rollout/distinct")


def print_evaluation(report: EvaluationReport, console: Console | None = None) -> None:
    """Print the methods with their pass rates and intervals, then the paired differences, then the warnings."""
    out = console or Console(highlight=False)
    table = Table(title=f"{report.target}, {report.split}: {len(report.tasks)} tasks", title_justify="left", box=None)
    for name in ("method", "decoding", "pass %", "95 % interval", "reward", "rollouts", "broken"):
        table.add_column(
            name, justify="left" if name in ("method", "decoding") else "right", header_style="bold", no_wrap=True
        )
    for result in report.methods:
        flagged = statistics.broken_too_often(result.rewards)
        table.add_row(
            label(result.method),
            decoding(result.temperature),
            f"{100 * result.pass_rate.mean:.1f}",
            f"{100 * result.pass_rate.low:.1f} – {100 * result.pass_rate.high:.1f}",
            f"{result.mean_reward.mean:.3f}",
            f"{result.rollouts_spent:,}",
            f"[red]{result.broken} (!)[/red]" if flagged else str(result.broken),
        )
    out.print(table)
    print_differences(report.comparisons, out)
    for name, note in report.notes.items():
        if name.startswith("broken:"):
            out.print(f"{name.removeprefix('broken:')}: {note}", style="red", markup=False)


def print_differences(comparisons: tuple[Comparison, ...], console: Console | None = None) -> None:
    """Print paired differences of pass rates, in percentage points."""
    if not comparisons:
        return
    table = Table(title="differences in points, paired by task", title_justify="left", box=None)
    for name in ("method", "against", "decoding", "difference", "95 % interval"):
        table.add_column(
            name, justify="right" if name in ("difference", "95 % interval") else "left", header_style="bold"
        )
    for item in comparisons:
        table.add_row(
            label(item.method),
            label(item.baseline),
            decoding(item.temperature),
            points(item.difference.mean),
            interval(item.difference),
        )
    (console or Console(highlight=False)).print(table)


def print_learning(metrics: Metrics, console: Console | None = None, window: int = 10) -> None:
    """Print means over every ``window`` steps of a training run, with the minima of live groups and of diversity."""
    table = Table(title=f"training, means over {window} steps", title_justify="left", box=None)
    for name in ("steps", "reward", "success %", "live groups %", "least", "distinct %", "least"):
        table.add_column(name, justify="right", header_style="bold")
    steps = sorted(metrics)
    for first in range(0, len(steps), window):
        rows = [metrics[step] for step in steps[first : first + window]]
        series = {key: [row[key] for row in rows if key in row] for key in _LEARNING}
        reward, success, live, distinct = (np.array(values or [np.nan]) for values in series.values())
        table.add_row(
            f"{steps[first]}–{steps[first] + len(rows) - 1}",
            f"{reward.mean():.3f}",
            *(f"{100 * x:.0f}" for x in (success.mean(), live.mean(), live.min(), distinct.mean(), distinct.min())),
        )
    (console or Console(highlight=False)).print(table)


def interval(value: Interval) -> str:
    """Both ends of an interval in percent, as text."""
    return f"{points(value.low)} to {points(value.high)}"
