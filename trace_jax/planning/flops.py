"""Floating-point operations of a program's matrix products, counted in the compiled text.

The compiled text, unlike the jaxpr, is the program that each chip executes. XLA has removed dead recomputation, has
turned grouped products into dense products (GPU) or kernels (TPU), and has repeated work that several chips do. XLA's
own ``cost_analysis`` counts the body of a loop once; here it counts as often as it runs. Elementwise work is left out.
"""

import json
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from trace_jax.planning.hlo import Computation, Instruction, Module
from trace_jax.planning.shapes import Array, leaves

# Part of a kernel's op_name → a function from the operands' shapes to the FLOPs of one execution.
Formulas = Mapping[str, Callable[[tuple[Array, ...]], float]]

# Custom calls that compute nothing.
_HOLLOW = re.compile(
    r"Async|Allocate|Sharding|Assume|Pin|Annotat|MoveTo|Resize|Slice|Barrier|Layout|Rng|TopK|Sort|Indices"
)


def instruction_flops(module: Module, computation: Computation, instruction: Instruction, formulas: Formulas) -> float:
    """FLOPs of one execution. A multiplication and an addition are two. NaN for a kernel of unknown cost."""
    opcode = instruction.opcode
    if opcode == "fusion":
        inner = module.computations[instruction.called()[0]]
        return sum(instruction_flops(module, inner, part, formulas) for part in inner.instructions.values())
    if opcode == "dot":
        return _dot(computation, instruction)
    if opcode == "convolution":
        return _convolution(computation, instruction)
    if opcode == "custom-call":
        return _custom_call(computation, instruction, formulas)
    return 0.0


def cost_estimate(instruction: Instruction) -> dict[str, float]:
    """The flops and bytes_accessed that a Pallas kernel or XLA states for a custom call; empty if there are none."""
    match = re.search(r'"cost_estimate":(\{[^}]*\})', instruction.attributes)
    return {key: float(value) for key, value in json.loads(match.group(1)).items()} if match else {}


def _dot(computation: Computation, instruction: Instruction) -> float:
    left = computation.operand(instruction, 0).shape
    assert isinstance(left, Array) and isinstance(instruction.shape, Array)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in contracted.group(1).split(",") if axis] if contracted else []
    return 2.0 * instruction.shape.elements * math.prod(left.dims[axis] for axis in axes)


def _convolution(computation: Computation, instruction: Instruction) -> float:
    """Counts as XLA's HloCostAnalysis does: without products with padding or with the gaps of a dilation.

    TPUs write every matrix product as a convolution, and a batch as a dilated axis that consists mostly of gaps.
    """
    left, right = (computation.operand(instruction, index).shape for index in (0, 1))
    result = instruction.shape
    assert isinstance(left, Array) and isinstance(right, Array) and isinstance(result, Array)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None
    of_left, of_right, of_result = labels.groups()
    spatial = sorted(label for label in of_right if label.isdigit())
    window = _window(instruction, len(spatial))
    flops = 2.0 * result.dims[of_result.index("b")] * result.dims[of_result.index("f")]
    flops *= right.dims[of_right.index("i")] / _number(instruction, "batch_group_count")
    for axis, label in enumerate(spatial):
        flops *= _places(
            left.dims[of_left.index(label)],
            right.dims[of_right.index(label)],
            result.dims[of_result.index(label)],
            {key: values[axis] for key, values in window.items()},
        )
    return flops


def _window(instruction: Instruction, rank: int) -> dict[str, list[int]]:
    match = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    given = dict(part.split("=") for part in match.group(1).split()) if match and match.group(1) else {}
    window = {
        name: [int(n) for n in given[name].split("x")] if name in given else [1] * rank
        for name in ("stride", "lhs_dilate", "rhs_dilate")
    }
    pads = given["pad"].split("x") if "pad" in given else ["0_0"] * rank
    window["low"] = [int(pad.split("_")[0]) for pad in pads]
    return window


def _places(size: int, kernel: int, result: int, window: dict[str, int]) -> int:
    """The number of pairs (result index, kernel index) along one axis that read an element of the input."""
    places = np.arange(kernel) * window["rhs_dilate"] - window["low"]
    count = 0
    for place in range(result):
        at = places + place * window["stride"]
        inside = (at >= 0) & (at % window["lhs_dilate"] == 0) & (at // window["lhs_dilate"] < size)
        count += int(inside.sum())
    return count


def _custom_call(computation: Computation, instruction: Instruction, formulas: Formulas) -> float:
    for name, formula in formulas.items():
        if name in instruction.op_name:
            return formula(tuple(computation.arrays(instruction)))
    estimate = cost_estimate(instruction)
    if estimate:
        return estimate["flops"]
    target = instruction.attribute("custom_call_target") or ""
    if "gemm" in target or "matmul" in target.lower():
        return _library_product(computation, instruction)
    return 0.0 if _HOLLOW.search(target) or "metadata" in instruction.op_name else math.nan


def _library_product(computation: Computation, instruction: Instruction) -> float:
    """FLOPs of a product that a GPU library computes. Its configuration names the contracted axes."""
    match = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
    left = computation.operand(instruction, 0).shape
    if not match or not isinstance(left, Array):
        return math.nan
    axes = [int(axis) for axis in re.findall(r"\d+", match.group(1))]
    result = next(leaves(instruction.shape))
    return 2.0 * result.elements * math.prod(left.dims[axis] for axis in axes)


def _number(instruction: Instruction, name: str) -> int:
    return int(instruction.attribute(name) or 1)
