"""Know before you rent: the memory, work and time of a configured job on chips that this machine does not have.

    python -m launch.plan --config=configs/qwen3_30b_a3b.py --topology=v5p:4x4x4

Compiles the trainer's own programs ahead of time for the topology (trace_jax.planning.topology has the spellings) and
prints, for each chip: memory against what there is, FLOPs, memory traffic, every kind of collective and what each is
for, and a roofline estimate of the step. The config's sections ``mesh``, ``training`` and ``plan`` say what is run;
``plan.decode_slots`` adds the engine's decode step, whose layers are compiled one by one (8 s each for experts).
``--json=FILE`` keeps it as a PlanReport. ``--programs=module:function`` plans other programs. Exit status 1, and what
to change, if a program does not fit.

    python -m launch.plan --config=configs/qwen3_30b_a3b.py --topology=v6e:8x8 --sweep=runs/sweep

plans the configured run on ``--meshes`` meshes, the best of them also with micro-batches of half to twice the size and
with each policy of rematerialisation, and ranks all by speed. Every plan is a file in that directory, and the same
command goes on from there.
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
LEVEL = flags.DEFINE_string("level", "O0", "optimisation of the compiler: O0 (fast), O1, O2, O3 or default")
JSON = flags.DEFINE_string("json", None, "file for the report")
SWEEP = flags.DEFINE_string("sweep", None, "directory for the plans of a sweep")
MESHES = flags.DEFINE_integer("meshes", 8, "meshes of a sweep, those with the least traffic", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 1, "plans of a sweep that are compiled at once, 2 GiB each", lower_bound=1)


def main(config: ConfigDict) -> None:
    """Compile, print, and refuse what does not fit."""
    from trace_jax.contract.files import write_document  # these import JAX
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
    """Plan the run in many ways, and print how they compare."""
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
