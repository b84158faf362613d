"""The report as a Markdown table, best capability first."""

from trace_jax.contract.capability import AnalysisReport, CapabilityReport, Interval

_HEADER = (
    "| capability | Cov [95 %] | Δ [95 %] | α | p | runs | support | selected | reason |",
    "|---|---|---|---|---|---|---|---|---|",
)


def markdown_table(report: AnalysisReport) -> str:
    """One row a capability; distractors are marked with an asterisk. Refused label runs follow, each with its fault."""
    rows = [_row(one) for one in report.capabilities]
    refused = [f"Refused run {number}: {fault}" for number, fault in report.rejected_runs.items()]
    head = f"{report.passed} passed, {report.failed} failed, {report.broken} broken."
    return "\n".join([head, "", *_HEADER, *rows, *refused])


def _row(one: CapabilityReport) -> str:
    cells = (
        one.capability.name + ("*" if one.distractor else ""),
        _interval(one.coverage),
        _interval(one.delta),
        "–" if one.agreement is None else f"{one.agreement:.2f}",
        f"{one.p_value:.4f}",
        f"{one.runs_passed}/{len(one.runs)}",
        str(one.support),
        "yes" if one.selected else "no",
        one.reason,
    )
    return "| " + " | ".join(cells) + " |"


def _interval(value: Interval) -> str:
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"
