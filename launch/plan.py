"""Know before you rent: what a configured job needs and takes on chips that are not here.

    python -m launch.plan --config=configs/X.py --topology=v5p:4x4x4 --programs=module:function

Compiles the job's programs ahead of time for the topology (trace_jax.planning.topology has the spellings) and prints,
for each chip: memory against what there is, FLOPs, memory traffic, every kind of collective and what each is for, and a
roofline estimate of the step. ``--json=FILE`` keeps it as a PlanReport. Exit status 1, and what to change, if a program
does not fit.
"""

import importlib
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from launch.common import run_without_workdir
from trace_jax.contract.record import ContractError
from trace_jax.planning.environment import prepare_environment
from trace_jax.planning.topology import parse_topology

TOPOLOGY = flags.DEFINE_string("topology", None, "chips, for instance v5p:4x4x4, v5e:4x4, 2*v6e:8x8 or h100:8")
PROGRAMS = flags.DEFINE_string("programs", None, "module:function that makes a Job of (config, topology)")
LEVEL = flags.DEFINE_string("level", "O0", "optimisation of the compiler: O0 (fast), O1, O2, O3 or default")
JSON = flags.DEFINE_string("json", None, "file for the report")


def main(config: ConfigDict) -> None:
    """Compile, print, and refuse what does not fit."""
    from trace_jax.contract.files import write_document  # these import JAX
    from trace_jax.planning.plan import plan
    from trace_jax.planning.table import print_plan

    if TOPOLOGY.value is None:
        raise ContractError("--topology is missing: name chips, for instance --topology=v5p:4x4x4")
    topology = parse_topology(TOPOLOGY.value)
    report = plan(find_function(PROGRAMS.value)(config, topology), topology, level=LEVEL.value)
    if JSON.value is not None:
        write_document(JSON.value, report)
    print_plan(report)
    for program in report.programs:
        if not program.memory.fits:
            raise ContractError(f"{report.topology}: {program.name} {program.memory.verdict}")


def find_function(name: str | None) -> Callable[..., Any]:
    """The function that ``module:function`` names. Raises ContractError if there is none."""
    if name is None:
        raise ContractError("--programs is missing: name a function of (config, topology), as module:function")
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ContractError(f"--programs={name}: {error}: name a function as module:function") from None
    return found


if __name__ == "__main__":
    prepare_environment()
    run_without_workdir(main)
