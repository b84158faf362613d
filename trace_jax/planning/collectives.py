"""The collectives of a compiled program: executions, bytes, groups of chips, and the operation that each belongs to."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trace_jax.errors import UserError
from trace_jax.planning.execution import Executed
from trace_jax.planning.groups import Groups, axes_spanned, device_groups
from trace_jax.planning.hlo import Computation, Instruction, Module
from trace_jax.planning.shapes import leaves

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
NETWORK = "network-"  # prefix of the kind of an exchange between TPU slices


@dataclass(frozen=True)
class Collective:
    """One collective in the program's text, and its executions in one run of the program.

    ``payload`` and ``sent`` are bytes of one execution. ``payload`` is the size of the whole array on one chip: the
    result of an all-gather, the operand of a reduce-scatter, and both for an all-reduce, an all-to-all or a
    permutation. ``sent`` is the amount that one chip of a group of n sends: payload · (n-1)/n, twice that for an
    all-reduce, and the whole payload for a permutation. ``groups`` are indices of devices in the program's mesh, row by
    row.
    """

    kind: str
    times: int
    payload: int
    sent: float
    groups: Groups
    axes: tuple[str, ...]
    op_name: str
    source: str
    asynchronous: bool  # started and awaited separately, so that computation may continue in between
    estimated: bool  # inside a loop of unknown length, which is counted as one run

    @property
    def group(self) -> int:
        """The number of chips that exchange with each other."""
        return max(map(len, self.groups))


def find_collectives(
    module: Module, executed: Sequence[Executed], axes: Sequence[tuple[str, int]], slices: Sequence[int]
) -> tuple[Collective, ...]:
    """All collectives of a program.

    Collectives are found by their executions, not by ``channel_id``, because XLA gives the same id to several. A
    collective that runs behind the fusions of a TPU (``async_collective_fusion``) is in each of them; only its start
    counts. A fusion of an all-reduce with the slice that a chip keeps of it is a reduce-scatter. The program for
    several TPU slices is the program of the first slice, whose devices it numbers. In it, transfers over the network
    are sent to the host and received from the host.

    Args:
        axes: names and sizes of the axes of the program's mesh.
        slices: the number of the slice of each device of the mesh.
    """
    places = _places(module, slices)
    found = []
    for execution in executed:
        candidates = iter([(execution.instruction, execution.computation)])
        if execution.instruction.opcode == "fusion":
            candidates = _inside(module, execution.instruction)
        for instruction, computation in candidates:
            kind = instruction.opcode.removesuffix("-start")
            behind = (
                execution.instruction.opcode == "fusion"
                and '"async_collective_fusion_config"' in instruction.attributes
            )
            if behind and not _starts(computation):
                continue
            if kind in KINDS:
                numbered = device_groups(instruction, module.partitions)
                groups = tuple(tuple(places[number] for number in group) for group in numbered)
                payload = _payload(kind, instruction, computation, max(map(len, groups)))
                kind = "reduce-scatter" if kind == "all-reduce" and _keeps_a_slice(computation, instruction) else kind
            elif kind == "send" and "megascale" in instruction.attributes:
                kind, groups = _network_kind(instruction), (_one_of_each(slices),)
                payload = _first(instruction, computation) * (len(groups[0]) if kind.endswith("all-gather") else 1)
            else:
                continue
            named = _named(module, instruction, computation, execution)
            rendezvous = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', instruction.attributes)
            found.append(
                Collective(
                    kind=kind,
                    times=execution.times,
                    payload=payload,
                    sent=payload * _share_sent(kind.removeprefix(NETWORK), max(map(len, groups))),
                    groups=groups,
                    axes=axes_spanned(groups, axes),
                    op_name=rendezvous.group(1) if rendezvous else named.op_name,
                    source=module.source(named),
                    asynchronous=instruction.opcode.endswith("-start") or behind or execution.behind,
                    estimated=execution.estimated,
                )
            )
    return tuple(collective for collective in found if collective.group > 1)


def _places(module: Module, slices: Sequence[int]) -> Sequence[int]:
    """The index in the mesh of each device number in the program's text."""
    if module.partitions == len(slices):
        return range(len(slices))
    first = [place for place, number in enumerate(slices) if number == slices[0]]
    if module.partitions != len(first):
        raise UserError(
            f"program {module.name!r} is for {module.partitions} devices, its mesh has {len(slices)} in slices of "
            f"{len(first)}: give the mesh that it was compiled for"
        )
    return first


def _one_of_each(slices: Sequence[int]) -> tuple[int, ...]:
    """The index in the mesh of the first device of each slice."""
    return tuple({number: place for place, number in reversed(list(enumerate(slices)))}.values())


def _network_kind(instruction: Instruction) -> str:
    match = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
    return NETWORK + (match.group(1).lower().replace("_", "-") if match else "transfer")


def _named(module: Module, instruction: Instruction, computation: Computation, execution: Executed) -> Instruction:
    """The instruction that names the origin of a collective.

    This is the first with a name of: the collective, the instruction that holds it, the sum that it applies, the users
    of its result, and its operands.
    """
    applied = module.computations.get(instruction.attribute("to_apply") or "")
    near = [instruction, execution.instruction, *([applied.root] if applied else [])]
    near += computation.users(instruction) + execution.computation.users(execution.instruction)
    near += [computation.instructions[name] for name in instruction.operands]
    return next((candidate for candidate in near if candidate.op_name), instruction)


def _inside(module: Module, fusion: Instruction) -> Iterator[tuple[Instruction, Computation]]:
    for name in fusion.called():
        computation = module.computations[name]
        for instruction in computation.instructions.values():
            if instruction.opcode == "fusion":
                yield from _inside(module, instruction)
            else:
                yield instruction, computation


def _payload(kind: str, instruction: Instruction, computation: Computation, size: int) -> int:
    if kind == "collective-permute":  # further operands say where in a buffer to read and write
        return _first(instruction, computation)
    taken = sum(array.bytes for array in computation.arrays(instruction))
    return taken * size if kind == "all-gather" else taken


def _first(instruction: Instruction, computation: Computation) -> int:
    return sum(array.bytes for array in leaves(computation.operand(instruction, 0).shape))


def _share_sent(kind: str, size: int) -> float:
    if kind not in ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all"):
        return 1.0
    return (2.0 if kind == "all-reduce" else 1.0) * (size - 1) / size


def _keeps_a_slice(computation: Computation, instruction: Instruction) -> bool:
    root = computation.root
    return root.opcode == "dynamic-slice" and root.operands[0] == instruction.name


def _starts(computation: Computation) -> bool:
    target = 'custom_call_target="AsyncCollectiveStart"'
    return any(target in inner.attributes for inner in computation.instructions.values())
