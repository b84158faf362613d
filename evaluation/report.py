"""Writes one self-contained HTML page about a run; ``python -m evaluation.report --workdir=DIR`` builds it again."""

from dataclasses import dataclass
from pathlib import Path

from etils import epath
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from evaluation import statistics
from evaluation.labels import decoding, duration, family, label, points
from evaluation.program import required, run
from evaluation.report_data import ReportData, load_report_data
from evaluation.terminal import print_evaluation
from trace_jax.contract.capability import Interval
from trace_jax.contract.evaluation import Comparison, EvaluationReport, MethodResult
from trace_jax.contract.storage import PathLike, replace_bytes
from trace_jax.errors import UserError
from trace_jax.program import WORKDIR

FILE = "report.html"


@dataclass(frozen=True)
class Row:
    """A line of the table of methods."""

    method: str
    family: str
    temperature: float
    pass_rate: Interval
    mean_reward: Interval
    k: int
    any_of_k: float | None  # pass@k; None if there is only one trial
    all_of_k: float | None  # pass^k
    rollouts_spent: int
    broken: int
    flagged: bool


def write_report(data: ReportData, path: PathLike) -> None:
    """Write the page to ``path`` atomically."""
    replace_bytes(path, render(data).encode())


def render(data: ReportData) -> str:
    """The page as HTML without references to other files. Equal data give equal pages."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["j2"], default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"words": label, "points": points, "temperature": decoding, "duration": duration}
    return environment.get_template("report.html.j2").render(
        data=data,
        plots=draw(data),
        rows=[table_row(method) for method in data.evaluation.methods],
        headline=headline(data.evaluation),
        baselines=list(dict.fromkeys(item.baseline for item in data.evaluation.comparisons)),
        differences=differences(data.evaluation),
        base=data.table.base if data.table else next((a.base for a in data.adapters), ""),
        notes={**data.evaluation.notes, **data.notes},
    )


def draw(data: ReportData) -> dict[str, str]:
    """All plots for which there are data, as SVG, by the name of the function in ``evaluation.plots``."""
    from evaluation import plots
    from evaluation.style import styled, svg

    with styled():
        found = {"pass_rates": plots.pass_rates(data.evaluation)}
        if data.budget:
            found["budget"] = plots.budget(data.budget)
        if any(data.metrics.values()):
            found["learning_curves"] = plots.learning_curves(data.metrics)
        if data.analysis and data.analysis.capabilities:
            found["capabilities"] = plots.capabilities(data.analysis)
        if data.confusion:
            found["confusion_matrix"] = plots.confusion_matrix(data.confusion)
        if data.stage_seconds:
            found["stage_times"] = plots.stage_times(data.stage_seconds)
        return {name: svg(canvas) for name, canvas in found.items()}


def table_row(result: MethodResult) -> Row:
    """One method, with pass@k and pass^k at the largest k for which most of its tasks have enough trials."""
    k = max(len(row) for row in result.rewards.values())
    any_of_k = all_of_k = None
    if k > 1:
        try:
            any_of_k, all_of_k = statistics.pass_at_k(result.rewards, k), statistics.pass_hat_k(result.rewards, k)
        except UserError:  # some trial of every task broke
            any_of_k = all_of_k = None
    return Row(
        method=result.method,
        family=family(result.method),
        temperature=result.temperature,
        pass_rate=result.pass_rate,
        mean_reward=result.mean_reward,
        k=k,
        any_of_k=any_of_k,
        all_of_k=all_of_k,
        rollouts_spent=result.rollouts_spent,
        broken=result.broken,
        flagged=statistics.broken_too_often(result.rewards),
    )


def headline(report: EvaluationReport) -> list[Comparison]:
    """The comparisons of the first TRACE method with each baseline."""
    ours = next((m.method for m in report.methods if family(m.method) == "trace"), None)
    return [item for item in report.comparisons if item.method == ours]


def differences(report: EvaluationReport) -> dict[tuple[str, float], dict[str, Interval]]:
    """The comparisons as a table: one line for each (method, temperature), one cell for each baseline."""
    lines: dict[tuple[str, float], dict[str, Interval]] = {}
    for item in report.comparisons:
        lines.setdefault((item.method, item.temperature), {})[item.baseline] = item.difference
    return lines


def main(workdir: epath.Path) -> None:
    """Build the page of a finished run again and print its table."""
    data = load_report_data(workdir)
    write_report(data, workdir / FILE)
    print_evaluation(data.evaluation)
    print(f"report: {workdir / FILE}")


if __name__ == "__main__":
    run(lambda: main(epath.Path(required(WORKDIR))))
