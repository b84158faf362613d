"""The report as a Markdown table, best capability first."""

from trace_jax.analysis.select import DEFAULT_CRITERIA
from trace_jax.contract.capability import AnalysisReport, CapabilityReport, Interval

_HEADER = (
    "| capability | Cov [95 %] | Δ [95 %] | α | p | runs | support | selected | reason |",
    "|---|---|---|---|---|---|---|---|---|",
)

_NAMED = 8  # tasks that a line names


def markdown_table(report: AnalysisReport) -> str:
    """One row for each capability; distractors are marked with an asterisk. Rejected label runs follow.

    The first lines give the numbers of trajectories, and say why if nothing is selected. The last lines name evidence
    that was left out before anything was labelled.
    """
    rows = [_row(found) for found in report.capabilities]
    rejected = [f"Rejected run {number}: {fault}" for number, fault in report.rejected_runs.items()]
    left_out = [f"- {name}: {why}" for name, why in report.left_out.items()]
    head = [f"{report.passed} passed, {report.failed} failed, {report.broken} broken."]
    if report.given_away:
        head.append(_given_away(report))
    if not any(found.selected and not found.distractor for found in report.capabilities):
        head.append(_why_nothing(report))
    tail = ["", "Left out before anything was labelled:", *left_out] if left_out else []
    unreliable = [found.capability.name for found in report.capabilities if found.selected and found.distractor]
    if unreliable:
        head.append(f"The labels are unreliable: {', '.join(unreliable)} passes all criteria, and is a distractor.")
    return "\n".join([*head, "", *_HEADER, *rows, *rejected, *tail])


def _given_away(report: AnalysisReport) -> str:
    """The tasks that pass without an agent, in one line."""
    names, more = ", ".join(report.given_away[:_NAMED]), len(report.given_away) - _NAMED
    return (
        f"Tasks that an agent passes that does nothing: {names}{f' and {more} more' if more > 0 else ''}. "
        f"{report.idle} passed episodes without a call on them are left out."
    )


def _why_nothing(report: AnalysisReport) -> str:
    """Why no capability is selected, for the sample as a whole, in one line."""
    if not report.failed or not report.passed:
        absent = "failed" if not report.failed else "passed"
        return f"No episode {absent}: nothing can be selected without failed and passed ones to compare."
    needed = DEFAULT_CRITERIA.min_support
    if report.failed < needed:
        return (
            f"Nothing is selected: {report.failed} episodes failed, and {needed} must lack a capability. Roll out more."
        )
    candidates = [found for found in report.capabilities if not found.distractor]
    if not candidates:
        checks = "" if report.left_out else " The grader gives no named checks that fail; with them, more can be found."
        return (
            f"Nothing is selected: no skill, check or pattern goes with the {report.failed} failed episodes beyond "
            f"chance.{checks}"
        )
    best = min(candidates, key=lambda found: (found.p_value, -found.delta.mean))
    return f"Nothing is selected. The nearest is {best.capability.name}: {best.reason}."


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
