"""Prints the report on an analyst."""

from rich.console import Console
from rich.table import Table

from evaluation.judging.report import AnalystReport, FaultScore, SourceScore
from evaluation.labels import duration
from trace_jax.contract.capability import Interval

_WIDTH = 120  # characters of a line in a file
_SHOWN = 0.5  # precision from which a match is shown


def print_report(report: AnalystReport, console: Console | None = None) -> None:
    """Print a row for each source, then each fault with what was selected for it, then what else is to be known.

    ``found``: faults found of those that there are; ``right``: selected capabilities that are right, of all selected.
    """
    out = console or Console(highlight=False)
    if not out.is_terminal:
        out.width = max(out.width, _WIDTH)
    out.print(_sources(report))
    out.print(_faults(report))
    for scored in report.sources:
        _print_wrong(scored, out)
    out.print(
        f"In all: faults found {_share(report.recall)}, selected capabilities that are right {_share(report.precision)}"
        f" (95 %, Clopper and Pearson); {_cost(report)}.",
        markup=False,
    )


def _sources(report: AnalystReport) -> Table:
    of = f"{report.analyst}{f', {report.model}' if report.model else ''}"
    table = _table(f"analyst {of}: {report.runs} label runs on each source", "source")
    for name in ("episodes", "failed", "found", "right", "α runs", "α truth"):
        table.add_column(name, justify="right", header_style="bold", no_wrap=True)
    for each in report.sources:
        table.add_row(
            f"{each.source} {each.seed}",
            str(each.passed + each.failed),
            str(each.failed),
            f"{sum(fault.found for fault in each.faults)}/{len(each.faults)}",
            f"{sum(selected.right for selected in each.selected)}/{len(each.selected)}",
            _number(each.agreement_of_runs),
            _share(each.agreement_with_truth),
        )
    return table


def _faults(report: AnalystReport) -> Table:
    table = _table("faults, and what stands for them (precision, coverage)", "source", "fault")
    table.add_column("episodes", justify="right", header_style="bold")
    for name in ("found", "selected", "best candidate"):
        table.add_column(name, header_style="bold")
    for each in report.sources:
        for fault in each.faults:
            table.add_row(
                f"{each.source} {each.seed}",
                fault.fault,
                str(fault.episodes),
                "yes" if fault.found else "no",
                _match(fault.capability, fault.precision, fault.coverage) or "–",
                "" if fault.proposed == fault.capability else _proposed(fault),
            )
    return table


def _print_wrong(scored: SourceScore, out: Console) -> None:
    where = f"{scored.source} {scored.seed}"
    for each in scored.selected:
        if not each.right:
            of = f"mostly {each.stands_for} ({each.precision:.2f})" if each.stands_for else "no fault that is known"
            out.print(f"{where}: selected, not right: {each.capability}: {of}", markup=False)
    for name in scored.distractors:
        out.print(f"{where}: a distractor is selected: {name}", markup=False)
    if (named := scored.named) is not None:
        out.print(
            f"{where}: of {named.failures} failures that are a lapse of the agent, {named.hits} are marked by a skill "
            f"that the table of categories gives for it: {_share(named.share)}, {named.by_chance:.2f} by chance",
            markup=False,
        )
    if (others := scored.blamed) is not None:
        out.print(
            f"{where}: of {others.failures} failures that are no lapse of the agent, {others.marked} are marked by "
            "some candidate",
            markup=False,
        )
    if scored.rejected_runs:
        out.print(f"{where}: rejected label runs: {scored.rejected_runs}", markup=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    for name in columns:
        table.add_column(name, header_style="bold")
    return table


def _match(capability: str | None, precision: float, coverage: float) -> str:
    return f"{capability} ({precision:.2f}, {coverage:.2f})" if capability and precision >= _SHOWN else ""


def _proposed(fault: FaultScore) -> str:
    return _match(fault.proposed, fault.proposed_precision, fault.proposed_coverage)


def _share(value: Interval | None) -> str:
    return "–" if value is None else f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _cost(report: AnalystReport) -> str:
    cost = report.cost
    parts = [duration(cost.seconds)]
    if cost.prompt_tokens is not None:
        parts.append(f"{cost.prompt_tokens:,} tokens of prompts, {cost.completion_tokens or 0:,} of answers")
    if cost.dollars is not None:
        parts.append(f"${cost.dollars:.2f}")
    return ", ".join(parts)
