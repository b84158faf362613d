"""Bytes that a program moves to and from a chip's main memory, estimated from the compiled text.

Each instruction that is scheduled by itself reads its operands once and writes its result once, padded to tiles. A
fusion that only slices an operand reads the slice. A fusion that updates a slice in place writes the slice. Arrays that
the layout puts into another memory (``S(1)``, a TPU's VMEM) do not count. Caches are not modelled: the estimate is too
high if a cache holds an operand between two instructions, and too low if a kernel reads an operand twice.
"""

from trace_jax.planning.flops import cost_estimate
from trace_jax.planning.hlo import Computation, Instruction, Module
from trace_jax.planning.shapes import Shape, leaves

_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "add-dependency",
}
_SLICES = {"dynamic-slice", "slice", "gather"}
_HOLLOW = {"bitcast", "reshape", "convert", "copy"}


def instruction_bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Bytes of one execution."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done") or opcode.endswith("-update"):
        return 0
    if opcode.endswith("-start") and instruction.called():
        return 0  # the instructions that it starts are counted by themselves
    if opcode == "custom-call":
        estimate = cost_estimate(instruction)
        if estimate.get("bytes_accessed"):
            return int(estimate["bytes_accessed"])
    if opcode == "fusion":
        return _fusion(module, computation, instruction)
    operands = [computation.instructions[name].shape for name in instruction.operands]
    result = instruction.shape
    if opcode.endswith("-start") and isinstance(result, tuple):  # only the tuple of a copy begins with the result
        result = result[0 if opcode == "copy-start" else 1]
    if opcode.removesuffix("-start") in _SLICES:
        taken = min(main_bytes(operands[0]), sum(array.padded_bytes for array in leaves(result)))
        return taken + main_bytes(result) + sum(map(main_bytes, operands[1:]))
    if opcode == "dynamic-update-slice":
        return 2 * main_bytes(operands[1])
    if opcode == "scatter":
        return 2 * sum(map(main_bytes, operands[1:]))
    return main_bytes(result) + sum(map(main_bytes, operands))


def main_bytes(shape: Shape) -> int:
    """Bytes of the arrays that lie in main memory."""
    return sum(array.padded_bytes for array in leaves(shape) if array.space == 0)


def _fusion(module: Module, computation: Computation, instruction: Instruction) -> int:
    inner = module.computations[instruction.called()[0]]
    total = 0
    for part in inner.instructions.values():
        if part.opcode == "parameter":
            outside = computation.operand(instruction, int(part.literal))
            total += min(main_bytes(outside.shape), _read(module, inner, part))
    roots: list[Instruction] = [inner.root]
    shapes: tuple[Shape, ...] = (instruction.shape,)
    if inner.root.opcode == "tuple" and isinstance(instruction.shape, tuple):
        roots, shapes = [inner.instructions[name] for name in inner.root.operands], instruction.shape
    for root, shape in zip(roots, shapes, strict=True):
        if root.opcode == "parameter":
            continue  # handed through
        update = _in_place(module, inner, root)
        total += main_bytes(shape) if update is None else min(main_bytes(shape), 2 * main_bytes(update.shape))
    return total


def _read(module: Module, inner: Computation, parameter: Instruction) -> int:
    """Bytes of a parameter that a fusion reads. They are those of the slices if it only slices the parameter."""
    if parameter.name == inner.root.name:
        return main_bytes(parameter.shape)
    total = 0
    for user in inner.users(parameter):
        if user.opcode in _SLICES and user.operands[0] == parameter.name:
            total += main_bytes(user.shape)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue  # written in place
        elif user.opcode == "tuple":
            continue  # handed through
        elif user.opcode in _HOLLOW:
            total += _read(module, inner, user)
        elif user.opcode == "fusion":
            nested = module.computations[user.called()[0]]
            for part in nested.instructions.values():
                if part.opcode == "parameter" and user.operands[int(part.literal)] == parameter.name:
                    total += _read(module, nested, part)
        else:
            return main_bytes(parameter.shape)
    return total


def _in_place(module: Module, inner: Computation, root: Instruction) -> Instruction | None:
    """The slice that is written, if the root updates a slice of a parameter; else None."""
    while root.opcode in _HOLLOW:
        root = inner.operand(root, 0)
    if root.opcode == "fusion":
        nested = module.computations[root.called()[0]]
        return _in_place(module, nested, nested.root)
    return inner.operand(root, 1) if root.opcode == "dynamic-update-slice" else None
