"""Time by the roofline model: arithmetic, memory traffic and collectives at the published speeds of the chip."""

import math
from collections.abc import Sequence

from trace_jax.planning.execution import Executed
from trace_jax.planning.flops import Formulas, instruction_flops
from trace_jax.planning.hlo import Module
from trace_jax.planning.report import Cost, ProgramPlan, StepEstimate
from trace_jax.planning.topology import Topology
from trace_jax.planning.traffic import instruction_bytes


def program_cost(
    module: Module,
    executed: Sequence[Executed],
    formulas: Formulas,
    interconnect_seconds: float,
    topology: Topology,
) -> tuple[Cost, tuple[str, ...]]:
    """Work and times of one run on one device, and the names of the kernels whose FLOPs are unknown and count as 0.

    All arithmetic is compared with the bfloat16 peak, also that of other types.
    """
    peak, bandwidth = topology.chip.flops / topology.chip.devices, topology.chip.bandwidth / topology.chip.devices
    flops, moved, operations = 0.0, 0, 0.0
    unknown: dict[str, None] = {}
    for execution in executed:
        work = instruction_flops(module, execution.computation, execution.instruction, formulas)
        if math.isnan(work):
            unknown[execution.instruction.op_name or execution.instruction.name] = None
            work = 0.0
        size = instruction_bytes(module, execution.computation, execution.instruction)
        flops += execution.times * work
        moved += execution.times * size
        operations += execution.times * max(work / peak, size / bandwidth)
    return (
        Cost(
            flops=flops,
            hbm_bytes=moved,
            compute_seconds=flops / peak,
            memory_seconds=moved / bandwidth,
            operations_seconds=operations,
            interconnect_seconds=interconnect_seconds,
        ),
        tuple(unknown),
    )


def step_estimate(
    programs: Sequence[ProgramPlan], topology: Topology, tokens: int | None, model_flops: float | None
) -> StepEstimate | None:
    """The estimate of one optimiser step; None if a program does not fit.

    ``tokens`` and ``model_flops`` are those of the step on all chips.
    """
    costs = [(program.times, program.cost) for program in programs if program.cost is not None]
    if len(costs) < len(programs) or not costs:
        return None
    seconds = sum(times * max(cost.operations_seconds, cost.interconnect_seconds) for times, cost in costs)
    apart = sum(times * (cost.operations_seconds + cost.interconnect_seconds) for times, cost in costs)
    terms = {
        "compute": sum(times * cost.compute_seconds for times, cost in costs),
        "memory": sum(times * cost.memory_seconds for times, cost in costs),
        "interconnect": sum(times * cost.interconnect_seconds for times, cost in costs),
    }
    peak = topology.chips * topology.chip.flops
    executed = topology.devices * sum(times * cost.flops for times, cost in costs)
    return StepEstimate(
        seconds=seconds,
        seconds_without_overlap=apart,
        bottleneck=max(terms, key=lambda name: terms[name]),
        tokens_per_second=tokens / seconds if tokens is not None and seconds else None,
        mfu=model_flops / (peak * seconds) if model_flops is not None and seconds else None,
        hardware_utilisation=executed / (peak * seconds) if seconds else 0.0,
    )
