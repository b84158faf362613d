"""Compares methods over several pipeline seeds: differences with intervals over seeds and tasks.

    python -m evaluation.aggregate --baselines="base,GRPO on target" \
        --reports=runs/seed0/evaluation/report.json,runs/seed1/evaluation/report.json
"""

from collections.abc import Sequence

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from evaluation import statistics
from evaluation.labels import decoding, label
from evaluation.program import run
from evaluation.report_files import read_report
from evaluation.terminal import print_differences
from trace_jax.contract.evaluation import Comparison, EvaluationReport, MethodResult
from trace_jax.errors import UserError

Key = tuple[str, float]


def shared_methods(reports: Sequence[EvaluationReport]) -> dict[Key, list[MethodResult]]:
    """The methods (name, temperature) that all reports contain, each with its result from every report.

    Raises UserError if the reports differ in target or split, or if they share no method.
    """
    if len({(r.target, r.split) for r in reports}) != 1:
        raise UserError("the reports have different targets or splits, or there is none: give reports of one target")
    tables = [{(m.method, m.temperature): m for m in report.methods} for report in reports]
    keys = [key for key in tables[0] if all(key in table for table in tables)]
    if not keys:
        raise UserError("the reports share no method: aggregate runs of the same kind of pipeline")
    return {key: [table[key] for table in tables] for key in keys}


def compare_over_seeds(reports: Sequence[EvaluationReport], baselines: Sequence[str]) -> tuple[Comparison, ...]:
    """Differences between every shared method and each baseline at the same temperature.

    Intervals are bootstrapped over seeds and tasks. Raises UserError for a baseline that a report does not contain.
    """
    methods = shared_methods(reports)
    known = {name for name, _ in methods}
    for baseline in baselines:
        if baseline not in known:
            raise UserError(f"baseline {baseline!r} is not in every report; they share {', '.join(sorted(known))}")
    rank = {name: i for i, name in enumerate(baselines)}
    return tuple(
        Comparison(
            method=name,
            baseline=baseline,
            temperature=temperature,
            difference=statistics.paired_difference_over_seeds(
                [
                    (ours.rewards, theirs.rewards)
                    for ours, theirs in zip(results, methods[baseline, temperature], strict=True)
                ]
            ),
        )
        for baseline in baselines
        for (name, temperature), results in methods.items()
        if (baseline, temperature) in methods and rank.get(name, len(rank)) > rank[baseline]
    )


def print_aggregate(reports: Sequence[EvaluationReport], baselines: Sequence[str]) -> None:
    """Print the pass rates of each seed with their mean, then the differences."""
    console = Console(highlight=False)
    table = Table(title=f"pass rate, %, over {len(reports)} pipeline seeds", title_justify="left", box=None)
    for name in ("method", "decoding", "mean", *(f"#{i}" for i in range(len(reports)))):
        table.add_column(name, justify="left" if name in ("method", "decoding") else "right", header_style="bold")
    for (name, temperature), results in shared_methods(reports).items():
        rates = [100 * result.pass_rate.mean for result in results]
        table.add_row(label(name), decoding(temperature), f"{np.mean(rates):.1f}", *(f"{rate:.1f}" for rate in rates))
    console.print(table)
    print_differences(compare_over_seeds(reports, baselines), console)


def read_reports(paths: Sequence[str]) -> list[EvaluationReport]:
    """Read the reports at ``paths``. Raises UserError for a report that is given twice, by its path or as a copy."""
    reports: list[EvaluationReport] = []
    for path in paths:
        report = read_report(path)
        if report in reports:
            raise UserError(f"{path}: the same report as {paths[reports.index(report)]}: give each seed's report once")
        reports.append(report)
    return reports


def main() -> None:
    """Aggregate the reports of the flags."""
    print_aggregate(read_reports(REPORTS.value), BASELINES.value)


if __name__ == "__main__":
    REPORTS = flags.DEFINE_list("reports", [], "evaluation reports, one a pipeline seed, separated by commas")
    BASELINES = flags.DEFINE_list("baselines", ["base"], "methods to compare with")
    run(main)
