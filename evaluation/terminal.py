"""Prints the table of methods on the terminal."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation import statistics
from evaluation.labels import decoding, label, points
from evaluation.report_data import Metrics
from evaluation.sweep_table import SweepRow
from trace_jax.contract.capability import Interval
from trace_jax.contract.evaluation import Comparison, EvaluationReport

_LEARNING = ("reward/mean", "reward/success", "groups/live", "rollout/distinct")


def print_evaluation(report: EvaluationReport, console: Console | None = None) -> None:
    """Print the methods with their pass rates and intervals, differences, effort, errors, and the warnings."""
    out = console or Console(highlight=False)
    table = _table(f"{report.target}, {report.split}: {len(report.tasks)} tasks", "method", "decoding")
    for name in ("pass %", "95 % interval", "reward", "rollouts", "broken"):
        table.add_column(name, justify="right", header_style="bold", no_wrap=True)
    for result in (*([] if report.do_nothing is None else [report.do_nothing]), *report.methods):
        flagged = statistics.broken_too_often(result.rewards)
        table.add_row(
            label(result.method),
            "" if result is report.do_nothing else decoding(result.temperature),
            percent(result.pass_rate.mean),
            f"{percent(result.pass_rate.low)} – {percent(result.pass_rate.high)}",
            f"{result.mean_reward.mean:.3f}",
            f"{result.rollouts_spent:,}",
            f"[red]{result.broken} (!)[/red]" if flagged else str(result.broken),
        )
    out.print(table)
    print_differences(report.comparisons, out)
    _print_trials(report, out)
    _print_effort(report, out)
    _print_errors(report, out)
    for name, note in report.notes.items():
        if name.startswith("broken:"):
            out.print(f"{name.removeprefix('broken:')}: {note}", style="red", markup=False)
        elif name == "do_nothing":
            out.print(note, markup=False)


def _print_trials(report: EvaluationReport, out: Console) -> None:
    """Print pass@k and pass^k of methods with several trials, with their 95 % intervals."""
    rows = [(result, k) for result in report.methods for k in sorted(result.pass_at_k, key=int) if k != "1"]
    if not rows:
        return
    table = _table("of k trials, %", "method", "decoding")
    for name in ("k", "at least one passes (pass@k)", "all pass (pass^k)"):
        table.add_column(name, justify="right", header_style="bold")
    for result, k in rows:
        shares = (result.pass_at_k[k], result.pass_hat_k[k])
        table.add_row(
            label(result.method),
            decoding(result.temperature),
            k,
            *(f"{percent(share.mean)}  {percent(share.low)} – {percent(share.high)}" for share in shares),
        )
    out.print(table)


def _print_effort(report: EvaluationReport, out: Console) -> None:
    """Print tokens, turns and seconds of an episode."""
    table = _table("an episode takes", "method", "decoding")
    for name in ("prompt tokens", "sampled tokens", "turns", "seconds", "median", "95 % below"):
        table.add_column(name, justify="right", header_style="bold", no_wrap=True)
    for result in report.methods:
        if (effort := result.effort) is not None:
            table.add_row(
                label(result.method),
                decoding(result.temperature),
                f"{effort.prompt_tokens / effort.episodes:.0f}",
                f"{effort.completion_tokens / effort.episodes:.0f}",
                f"{effort.turns:.1f}",
                *(f"{seconds:.2f}" for seconds in (effort.seconds, effort.seconds_median, effort.seconds_p95)),
            )
    if table.row_count:
        out.print(table)


def _print_errors(report: EvaluationReport, out: Console) -> None:
    """Print what went wrong, the most frequent first."""
    table = _table("what went wrong", "method", "decoding", "ended", "broken by", "of calls", "failed checks")
    for result in report.methods:
        if (errors := result.errors) is not None:
            faults = {
                "unknown tool": sum(errors.unknown_tools.values()),
                "malformed": sum(errors.malformed_calls.values()),
                "arguments do not fit": sum(errors.invalid_arguments.values()),
                "answered by an error": sum(errors.tool_errors.values()),
            }
            table.add_row(
                label(result.method),
                decoding(result.temperature),
                *map(_counts, (errors.terminations, errors.broken, {"made": errors.calls, **faults})),
                _counts(errors.failed_checks),
            )
    if table.row_count:
        out.print(table)


def _table(title: str, *columns: str) -> Table:
    """A table with columns of text."""
    table = Table(title=title, title_justify="left", box=None)
    for name in columns:
        table.add_column(name, header_style="bold")
    return table


def _counts(counts: Mapping[str, int], most: int = 5) -> Text:
    """``done 70, max_turns 10``; the most frequent. It is plain text, because a model may have made up the names."""
    found = [f"{name} {count}" for name, count in counts.items() if count]
    return Text(", ".join(found[:most]) + (", …" if len(found) > most else ""))


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


def print_sweep(rows: Sequence[SweepRow], console: Console | None = None) -> None:
    """Print the cells of a sweep."""
    table = _table("sweep", "target", "method", "decoding")
    for name in ("pass %", "95 % interval", "− base", "do nothing %", "broken"):
        table.add_column(name, justify="right", header_style="bold")
    for row in rows:
        rate = row.pass_rate
        table.add_row(
            label(row.target),
            label(row.method),
            decoding(row.temperature),
            row.status if rate is None else percent(rate.mean),
            "" if rate is None else f"{percent(rate.low)} – {percent(rate.high)}",
            "" if row.difference is None else points(row.difference.mean),
            "" if row.do_nothing is None else percent(row.do_nothing),
            "" if rate is None else f"{row.broken} (!)" if row.flagged else str(row.broken),
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


def percent(value: float) -> str:
    """A share in percent, without the sign."""
    return f"{100 * value:.1f}"
