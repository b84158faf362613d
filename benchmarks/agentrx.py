"""Compares what the rules analyst finds in real failures with what people say went wrong.

    python -m benchmarks.agentrx --runs=tau_retail.runs.json --labels=tau_retail.labels.json [--domain=retail]

``runs`` is a τ-bench result file; ``labels`` are people's annotations of some of its failed episodes, as
microsoft/AgentRx publishes them: for each ``trajectory_id`` (the task) the failures, and which is the root cause. The
analyst never sees the labels. The program prints the table of candidates, and for each candidate the people's root
causes of the failed episodes that a majority of the label runs calls LACKING. A candidate marks k of n
labelled failures; the interval of k/n is 95 %, Clopper and Pearson's.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from absl import app, flags
from scipy.stats import binomtest

from evaluation.judging.match import marked_episodes
from evaluation.judging.people import Cause, root_causes
from trace_jax.analysis import analyse, make_analyst, markdown_table
from trace_jax.analysis.importers import tau_bench
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

_RUNS = flags.DEFINE_string("runs", None, "τ-bench result file", required=True)
_LABELS = flags.DEFINE_string("labels", None, "people's annotations of its failed episodes", required=True)
_DOMAIN = flags.DEFINE_string("domain", "retail", "domain of the runs")


def main(_: list[str]) -> None:
    """Analyse, then print the comparison."""
    try:
        _compare()
    except UserError as error:
        raise SystemExit(str(error)) from None


def _compare() -> None:
    trajectories = tau_bench.load(_RUNS.value, _DOMAIN.value, "unknown")
    causes = root_causes(_LABELS.value)
    with tempfile.TemporaryDirectory() as directory:
        found = analyse(trajectories, make_analyst("rules"), directory)
    print(markdown_table(found.report))
    failed = {t.task: t for t in trajectories if not t.broken and not t.passed and t.task in causes}
    print(f"\n{len(failed)} failed episodes have a root cause by people:")
    print(", ".join(f"{name} {count}" for name, count in Counter(causes[task][0] for task in failed).most_common()))
    marked = marked_episodes(found)
    print("\n| candidate | selected | marks | share [95 %] | people's root causes there |\n|---|---|---|---|---|")
    for report in found.report.capabilities:
        if not report.distractor:
            print(_row(report.capability.name, report.selected, marked[report.capability.name], failed, causes))
    print("\n| task | people's root cause | marked by |\n|---|---|---|")
    for task, trajectory in failed.items():
        names = [name for name, ids in marked.items() if trajectory.id in ids]
        print(f"| {task} | {causes[task][0]}: {causes[task][1][:120]} | {', '.join(names) or '–'} |")


def _row(
    name: str, selected: bool, ids: Collection[str], failed: Mapping[str, Trajectory], causes: Mapping[str, Cause]
) -> str:
    hits: Sequence[str] = [task for task, trajectory in failed.items() if trajectory.id in ids]
    interval = binomtest(len(hits), len(failed)).proportion_ci()
    share = f"{len(hits) / len(failed):.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    counts = Counter(causes[task][0] for task in hits)
    told = ", ".join(f"{category} {count}" for category, count in counts.most_common())
    return f"| {name} | {'yes' if selected else 'no'} | {len(hits)}/{len(failed)} | {share} | {told or '–'} |"


if __name__ == "__main__":
    app.run(main)
