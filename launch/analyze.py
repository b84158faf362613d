"""Runs the analysis alone: finds the capabilities that an agent lacked in given trajectories.

    python -m launch.analyze --config=configs/analyze_tau_bench.py --config.source.path=FILE --workdir=DIR

The program writes candidates, label runs, report and selected capabilities to DIR. It prints the report as a Markdown
table, then up to two failed episodes of each selected capability. After an interruption the same command continues.
"""

from etils import epath
from ml_collections import ConfigDict

from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.compact import compact
from trace_jax.analysis.importers.registry import read_with
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.settings import SourceSettings
from trace_jax.analysis.stage import analyse
from trace_jax.analysis.table import markdown_table
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError
from trace_jax.program import run
from trace_jax.run_settings import read_settings

_QUOTED = 2  # failed episodes that are printed for each selected capability


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Read, analyse, print."""
    settings = read_settings(config)
    trajectories = _read(settings.source)
    found = analyse(
        trajectories,
        make_analyst(settings.analysis.analyst),
        workdir,
        runs=settings.analysis.runs,
        seed=settings.seed,
        criteria=Criteria(min_support=settings.analysis.min_support),
    )
    print(markdown_table(found.report))
    by_id = {trajectory.id: trajectory for trajectory in trajectories}
    for selected in found.selected:
        print(f"\n## {selected.capability.name}\n{selected.capability.description}")
        for example in selected.failed_examples[:_QUOTED]:
            print(f"\n{compact(by_id[example])}")


def _read(source: SourceSettings) -> tuple[Trajectory, ...]:
    if not source.path:
        raise UserError("source.path is empty: name a result file with --config.source.path=FILE")
    return read_with(source)


if __name__ == "__main__":
    run(main)
