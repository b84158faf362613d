"""The instructions that a program executes, with the number of executions; loops are multiplied out."""

from collections.abc import Iterator
from dataclasses import dataclass

from trace_jax.planning.hlo import Computation, Instruction, Module
from trace_jax.planning.trips import trip_count


@dataclass(frozen=True)
class Executed:
    """One instruction and the number of its executions.

    ``estimated``: the number is a guess, because the instruction is in a loop of unknown length, which counts as one
    run, or in a branch of a conditional, all of which are counted. ``behind``: it was started and is awaited later.
    """

    instruction: Instruction
    computation: Computation
    times: int
    estimated: bool = False
    behind: bool = False


def execute(module: Module) -> tuple[Executed, ...]:
    """All instructions that are scheduled by themselves. Instructions inside a fusion count as part of the fusion."""
    return tuple(_walk(module, module.entry, 1, False, False))


def open_loops(module: Module, executed: tuple[Executed, ...]) -> tuple[str, ...]:
    """Names of the loops whose length depends on data."""
    loops = [execution for execution in executed if execution.instruction.opcode == "while"]
    return tuple(
        loop.instruction.op_name or loop.instruction.name
        for loop in loops
        if trip_count(module, loop.computation, loop.instruction) is None
    )


def _walk(module: Module, computation: Computation, times: int, estimated: bool, behind: bool) -> Iterator[Executed]:
    for instruction in computation.instructions.values():
        yield Executed(instruction, computation, times, estimated, behind)
        if instruction.opcode == "fusion":
            continue
        inner_times, inner_estimated = times, estimated or instruction.opcode == "conditional"
        if instruction.opcode == "while":
            trips = trip_count(module, computation, instruction)
            inner_times, inner_estimated = times * (1 if trips is None else trips), estimated or trips is None
        started = behind or instruction.opcode.endswith("-start")
        for name in instruction.called():
            yield from _walk(module, module.computations[name], inner_times, inner_estimated, started)
