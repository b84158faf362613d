"""Compiles programs for a topology that this machine does not have, and reports their memory, work and time.

    prepare_environment()                                  # before JAX is imported
    topology = parse_topology("v5p:4x4x4")
    mesh = jax.sharding.Mesh(np.array(describe_devices(topology)).reshape(1, 64, 1, 1), AXES)
    report = plan(Job((Program("train_step", jax.jit(step), arguments, mesh),), tokens=131072), topology)

The arguments are abstract. No program runs, and no accelerator is needed.
"""

import importlib.metadata
from collections.abc import Iterable, Sequence
from typing import Any

from trace_jax.errors import UserError
from trace_jax.planning.collectives import Collective, find_collectives
from trace_jax.planning.compile import Compiled, Job, Program, compile_program
from trace_jax.planning.devices import slice_of
from trace_jax.planning.execution import execute, open_loops
from trace_jax.planning.hlo import parse_module
from trace_jax.planning.interconnect import collective_seconds
from trace_jax.planning.report import CollectiveUse, Cost, KindTotal, PlanReport, ProgramPlan
from trace_jax.planning.roofline import program_cost, step_estimate
from trace_jax.planning.topology import Topology
from trace_jax.planning.verdict import memory_use

_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")


def plan(job: Job, topology: Topology, *, level: str = "O0") -> PlanReport:
    """Compile all programs of a job for ``topology`` and report on them.

    ``level`` is the compiler's optimisation level. O0 compiles several times faster than ``default``, with nearly the
    same memory and collectives. Only ``default`` starts collectives early and reduces memory traffic.

    Raises UserError if the programs have different meshes, or if the topology has another number of devices.
    """
    programs = job.programs
    if not programs:
        raise UserError("there is no program to plan: give the job at least one")
    meshes = {tuple(program.mesh.shape.items()) for program in programs}
    if len(meshes) > 1:
        raise UserError(f"the programs have different meshes, {sorted(meshes)}: plan them one by one")
    for program in programs:
        if program.mesh.size != topology.devices:
            raise UserError(
                f"program {program.name!r} is for {program.mesh.size} devices, {topology.name} has {topology.devices}: "
                "make its mesh from the topology's devices"
            )
    plans = tuple(_plan_program(program, topology, level) for program in programs)
    return PlanReport(
        topology=topology.name,
        chips=topology.chips,
        devices=topology.devices,
        mesh=dict(programs[0].mesh.shape),
        compiler=_versions(),
        tokens_per_step=job.tokens,
        model_flops_per_step=job.model_flops,
        programs=plans,
        step=step_estimate(plans, topology, job.tokens, job.model_flops),
    )


def _plan_program(program: Program, topology: Topology, level: str) -> ProgramPlan:
    compiled = compile_program(program, level, topology.chip.hbm // topology.chip.devices)
    memory = memory_use(program, compiled)
    cost, collectives, warnings = _read(program, compiled, topology) if compiled.text else (None, (), ())
    if level == "O0" and cost is not None:
        warnings = (*warnings, "compiled at O0: memory traffic, and the time that it takes, are upper bounds")
    return ProgramPlan(
        name=program.name,
        times=program.times,
        level=level,
        compile_seconds=compiled.seconds,
        memory=memory,
        cost=cost if memory.fits else None,
        totals=_totals(collectives),
        collectives=collectives,
        warnings=(*program.notes, *warnings),
    )


def _read(
    program: Program, compiled: Compiled, topology: Topology
) -> tuple[Cost, tuple[CollectiveUse, ...], tuple[str, ...]]:
    module = parse_module(compiled.text)
    executed = execute(module)
    devices = program.mesh.devices.flatten().tolist()
    axes = tuple(program.mesh.shape.items())
    found = find_collectives(module, executed, axes, [slice_of(device) for device in devices])
    uses = _uses(found, devices, topology)
    cost, unknown = program_cost(module, executed, program.formulas, sum(use.seconds for use in uses), topology)
    loops = dict.fromkeys(open_loops(module, executed))
    warnings = [f"the iterations of loop {name} depend on data: they count as one" for name in loops]
    warnings += [f"kernel {name} has no cost estimate: its FLOPs count as 0" for name in unknown]
    if any(execution.instruction.opcode == "conditional" for execution in executed):
        warnings.append("the program has conditionals: all their branches are counted")
    return cost, uses, tuple(warnings)


def _uses(found: Iterable[Collective], devices: Sequence[Any], topology: Topology) -> tuple[CollectiveUse, ...]:
    """Collectives, with equal kind, axes and purpose merged, sorted by time, the longest first."""
    merged: dict[tuple[Any, ...], CollectiveUse] = {}
    for collective in found:
        key = (
            collective.kind,
            collective.axes,
            collective.group,
            collective.op_name,
            collective.source,
            collective.asynchronous,
            collective.estimated,
        )
        seconds = collective.times * collective_seconds(collective, devices, topology)
        before = merged.get(key)
        merged[key] = CollectiveUse(
            kind=collective.kind,
            axes=collective.axes,
            group=collective.group,
            count=collective.times + (before.count if before else 0),
            payload_bytes=collective.times * collective.payload + (before.payload_bytes if before else 0),
            sent_bytes=round(collective.times * collective.sent) + (before.sent_bytes if before else 0),
            seconds=seconds + (before.seconds if before else 0.0),
            purpose=collective.op_name,
            source=collective.source,
            asynchronous=collective.asynchronous,
            estimated=collective.estimated,
        )
    return tuple(sorted(merged.values(), key=lambda use: -use.seconds))


def _totals(uses: Sequence[CollectiveUse]) -> tuple[KindTotal, ...]:
    return tuple(
        KindTotal(
            kind=kind,
            count=sum(use.count for use in uses if use.kind == kind),
            payload_bytes=sum(use.payload_bytes for use in uses if use.kind == kind),
            sent_bytes=sum(use.sent_bytes for use in uses if use.kind == kind),
            seconds=sum(use.seconds for use in uses if use.kind == kind),
        )
        for kind in sorted({use.kind for use in uses})
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
