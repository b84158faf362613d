"""Scores a grid of checkpoints, routers, temperatures and targets, also while trainings go on.

    python -m evaluation.sweep --config=configs/quickstart.py --workdir=OUT --checkpoints=RUN/adapters \
        --route_tables=RUN/routing/route_table.json --temperatures=0,1 --targets=helpdesk,helpdesk_short
    python -m evaluation.sweep --config=configs/quickstart.py --workdir=OUT --checkpoints=RUN/adapters/a --watch

Checkpoints are adapters (adapter.json), snapshots, Orbax steps and PEFT directories at or below ``--checkpoints``. The
base is always scored. A checkpoint is also scored in its adapter's stead in each route table. Each cell has a work
directory of its own below OUT. The program writes ``sweep.json``, ``sweep.csv`` and the plot ``sweep.svg`` anew after
every cell. What is done is not played again, also after an interruption, and when checkpoints or targets are added.

With ``--watch`` the program scores each checkpoint as it lands. It ends when every directory in ``--checkpoints``
holds the adapter.json with which its training ends, or when it is interrupted.
"""

from typing import cast

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.sweep_run import PLOT, Axes, Sweep, check_failures
from evaluation.sweep_table import CSV, JSON
from evaluation.terminal import print_sweep
from trace_jax.contract.trajectory import Split
from trace_jax.errors import UserError
from trace_jax.program import run
from trace_jax.run_settings import RunSettings, read_settings
from trace_jax.telemetry.progress import Progress


def axes_of_flags(settings: RunSettings) -> Axes:
    """The axes that the flags name. Raises UserError for one that is none."""
    try:
        temperatures = [float(text) for text in TEMPERATURES.value] or [0.0, settings.evaluation.temperature]
    except ValueError:
        temperatures = [-1.0]
    if not all(0.0 <= temperature < float("inf") for temperature in temperatures):
        raise UserError(
            f"--temperatures={','.join(TEMPERATURES.value)}: give numbers that are not negative, as 0,0.7,1"
        )
    return Axes(
        targets=list(dict.fromkeys(TARGETS.value or [settings.target.environment])),
        temperatures=list(dict.fromkeys(temperatures)),
        places=[epath.Path(path) for path in CHECKPOINTS.value],
        tables=[epath.Path(path) for path in ROUTE_TABLES.value],
    )


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Score the grid of the flags. Raises UserError, after all else is done, if a cell failed."""
    settings = read_settings(config)
    axes = axes_of_flags(settings)
    with Progress() as progress:
        sweep = Sweep(settings, axes, cast(Split, SPLIT.value), workdir, progress)
        if WATCH.value:
            sweep.watch(POLL_SECONDS.value)
        else:
            sweep.once()
    print_sweep(sweep.rows)
    print(f"table: {workdir / JSON}, {workdir / CSV}; plot: {workdir / PLOT}")
    check_failures(sweep.rows)


if __name__ == "__main__":
    CHECKPOINTS = flags.DEFINE_list("checkpoints", [], "directories that are searched for checkpoints, or adapter.json")
    ROUTE_TABLES = flags.DEFINE_list("route_tables", [], "route tables")
    TEMPERATURES = flags.DEFINE_list("temperatures", [], "temperatures; by default 0 and evaluation.temperature")
    TARGETS = flags.DEFINE_list("targets", [], "targets, by name or module:Class; by default the config's")
    SPLIT = flags.DEFINE_enum("split", "held_out", ["train", "held_out"], "tasks to score on")
    WATCH = flags.DEFINE_bool("watch", False, "go on scoring checkpoints as they land")
    POLL_SECONDS = flags.DEFINE_float("poll_seconds", 10.0, "seconds between two looks, with --watch", lower_bound=0.1)
    run(main)
