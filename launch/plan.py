"""Plans a configured job: its memory, work and time on chips that this machine does not have.

    python -m launch.plan --config=configs/qwen3_30b_a3b.py --topology=v5p:4x4x4

The program compiles the trainer's own programs ahead of time for the topology (for its spelling see
trace_jax.planning.topology). For each chip it prints needed and available memory, FLOPs, memory traffic, and the
collectives with their purpose; then a roofline estimate of the step. The sections ``mesh``, ``training`` and ``plan``
of the configuration describe the job. ``plan.decode_slots`` adds the engine's decode step, whose layers are compiled
one by one (8 s each for experts). ``--json=FILE`` writes a PlanReport. ``--programs=module:function`` plans other
programs. If a program does not fit, the exit status is 1 and a remedy is printed.

    python -m launch.plan --config=configs/qwen3_30b_a3b.py --topology=v6e:8x8 --sweep=runs/sweep

This plans the configured run on ``--meshes`` meshes. The best mesh is also planned with micro-batches of half to twice
the size and with each policy of rematerialisation. All plans are ranked by speed. Every plan is a file in that
directory, so the same command continues after an interruption.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from trace_jax.errors import UserError
from trace_jax.planning.environment import prepare_environment
from trace_jax.planning.report import PlanReport
from trace_jax.planning.settings import PlanSettings
from trace_jax.planning.topology import Topology, parse_topology
from trace_jax.program import run_without_workdir
from trace_jax.run_settings import sections

TOPOLOGY = flags.DEFINE_string("topology", None, "chips, for instance v5p:4x4x4, v5e:4x4, 2*v6e:8x8 or h100:8")
PROGRAMS = flags.DEFINE_string(
    "programs", "launch.plan_config:training", "module:function that makes a Job of (config, topology)"
)
LEVEL = flags.DEFINE_string("level", "O0", "optimisation level of the compiler: O0 (fast), O1, O2, O3 or default")
JSON = flags.DEFINE_string("json", None, "file for the report")
SWEEP = flags.DEFINE_string("sweep", None, "directory for the plans of a sweep")
MESHES = flags.DEFINE_integer("meshes", 8, "meshes of a sweep, those with the least traffic", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 1, "plans of a sweep that are compiled at once, 2 GiB each", lower_bound=1)


def main(config: ConfigDict) -> None:
    """Compile and print. Raises UserError if a program does not fit."""
    from trace_jax.contract.files import write_document  # these modules import JAX
    from trace_jax.planning.planner import plan
    from trace_jax.planning.table import print_plan

    if TOPOLOGY.value is None:
        raise UserError("--topology is missing: name chips, for instance --topology=v5p:4x4x4")
    topology = parse_topology(TOPOLOGY.value)
    if SWEEP.value is not None:
        sweep_run(config, topology, Path(SWEEP.value))
        return
    report = plan(find_function(PROGRAMS.value)(config, topology), topology, level=LEVEL.value)
    if JSON.value is not None:
        write_document(JSON.value, report)
    print_plan(report)
    for program in report.programs:
        if not program.memory.fits:
            raise UserError(f"{report.topology}: {program.name} {program.memory.verdict}")


def sweep_run(config: ConfigDict, topology: Topology, directory: Path) -> None:
    """Plan the run on many meshes and with other settings, and print the ranking."""
    from launch.plan_config import configured
    from trace_jax.planning.sweep import Candidate, on_meshes, speed, sweep, variants
    from trace_jax.planning.table import print_ranking
    from trace_jax.telemetry.progress import Progress

    with Progress() as progress:

        def planned(name: str, chosen: Sequence[Candidate]) -> list[tuple[Candidate, PlanReport]]:
            with progress.stage(name, len(chosen)) as stage:

                def report_progress(name: str, problem: str) -> None:
                    stage.advance()
                    if problem:
                        progress.print(f"{name}: {problem}")

                return sweep(chosen, directory, WORKERS.value, report_progress)

        found = on_meshes(configured(config), topology, LEVEL.value)
        progress.print(f"{topology.name}: {len(found)} meshes may fit; the {MESHES.value} with the least traffic count")
        plans = planned("meshes", found[: MESHES.value])
        if plans:
            plans += planned("micro-batches and policies", variants(plans[0][0]))
    print_ranking([(candidate.name, report) for candidate, report in sorted(plans, key=lambda pair: -speed(pair[1]))])


def find_function(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names. Raises UserError if there is none."""
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--programs={name}: {error}: name a function as module:function") from None
    return found


if __name__ == "__main__":
    prepare_environment()
    run_without_workdir(main, settings=(*sections(), PlanSettings))
