"""The report as a Markdown table, best capability first."""

from trace_jax.contract.capability import AnalysisReport, CapabilityReport, Interval

_HEADER = (
    "| capability | Cov [95 %] | Δ [95 %] | α | p | runs | support | selected | reason |",
    "|---|---|---|---|---|---|---|---|---|",
)


def markdown_table(report: AnalysisReport) -> str:
    """One row for each capability; distractors are marked with an asterisk. Rejected label runs follow.

    The first lines give the numbers of trajectories, and say so if there are none to compare.
    """
    rows = [_row(found) for found in report.capabilities]
    rejected = [f"Rejected run {number}: {fault}" for number, fault in report.rejected_runs.items()]
    head = [f"{report.passed} passed, {report.failed} failed, {report.broken} broken."]
    if not report.failed or not report.passed:
        absent = "failed" if not report.failed else "passed"
        head.append(f"No episode {absent}: nothing can be selected without failed and passed ones to compare.")
    return "\n".join([*head, "", *_HEADER, *rows, *rejected])


def _row(found: CapabilityReport) -> str:
    cells = (
        found.capability.name + ("*" if found.distractor else ""),
        _interval(found.coverage),
        _interval(found.delta),
        "–" if found.agreement is None else f"{found.agreement:.2f}",
        f"{found.p_value:.4f}",
        f"{found.runs_passed}/{len(found.runs)}",
        str(found.support),
        "yes" if found.selected else "no",
        found.reason,
    )
    return "| " + " | ".join(cells) + " |"


def _interval(value: Interval) -> str:
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"
