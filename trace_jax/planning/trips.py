"""The number of iterations of a loop, if the compiled text determines it."""

import re
from dataclasses import dataclass

from trace_jax.planning.hlo import Computation, Instruction, Module

_HOLLOW = {"bitcast", "convert", "copy", "reshape"}


@dataclass(frozen=True)
class _Value:
    """``element of the loop's state + offset``, or the constant ``offset`` if ``element`` is None."""

    element: int | None
    offset: int


def trip_count(module: Module, where: Computation, loop: Instruction) -> int | None:
    """The number of iterations of a while loop; None if it depends on data.

    XLA writes the number into the loop (``known_trip_count``), except on TPUs. There it is derived from a counter, as
    in the loops of ``jax.lax.scan``: the body advances it by a constant, and the condition compares it with a constant.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known.group(1))
    condition = module.computations[loop.attribute("condition") or ""]
    body = module.computations[loop.attribute("body") or ""]
    compared = _comparison(module, condition)
    if compared is None:
        return None
    counter, limit, direction = compared
    if counter.element is None:
        return None
    step, start, bound = _advance(module, body, counter.element), _initial(module, where, loop, counter.element), limit
    if bound.element is not None:  # the limit is an element of the state that the loop does not change
        first = _initial(module, where, loop, bound.element)
        if _advance(module, body, bound.element) != 0 or first is None:
            return None
        bound = _Value(None, first + bound.offset)
    if not step or start is None:
        return None
    distance = bound.offset - (start + counter.offset)
    if direction == "NE":
        return distance // step if distance % step == 0 and distance // step >= 0 else None
    if direction in ("GT", "GE"):
        distance, step = -distance, -step
    if step < 0:
        return None
    return max(0, -(-(distance + (direction in ("LE", "GE"))) // step))


def _comparison(module: Module, condition: Computation) -> tuple[_Value, _Value, str] | None:
    """Both sides and the direction of a condition that is one comparison; the counter is on the left."""
    found = _unwrap(module, condition)
    if found is None:
        return None
    inside, root, bound = found
    direction = root.attribute("direction")
    if root.opcode != "compare" or direction is None:
        return None
    left, right = (_evaluate(module, inside, inside.operand(root, index), bound) for index in (0, 1))
    if left is None or right is None:
        return None
    if left.element is None:
        mirrored = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}
        return right, left, mirrored.get(direction, direction)
    return left, right, direction


def _unwrap(
    module: Module, computation: Computation
) -> tuple[Computation, Instruction, dict[int, _Value | None] | None] | None:
    """The root of a computation, looked up inside a fusion or call, with the values of the parameters there."""
    root = computation.root
    if root.opcode not in ("fusion", "call"):
        return computation, root, None
    inner = module.computations[root.called()[0]]
    bound = {
        index: _evaluate(module, computation, computation.operand(root, index), None)
        for index in range(len(root.operands))
    }
    return inner, inner.root, bound


def _evaluate(
    module: Module, where: Computation, instruction: Instruction, bound: dict[int, _Value | None] | None
) -> _Value | None:
    """A scalar of a loop's body or condition. ``bound``: the values of a fusion's parameters; None outside a fusion."""
    opcode = instruction.opcode
    if opcode == "constant":
        return _Value(None, int(instruction.literal)) if re.fullmatch(r"-?\d+", instruction.literal) else None
    if opcode == "parameter":
        return bound.get(int(instruction.literal)) if bound is not None else None
    if opcode == "get-tuple-element":
        index = instruction.attribute("index")
        of_state = bound is None and where.operand(instruction, 0).opcode == "parameter"
        return _Value(int(index), 0) if of_state and index is not None else None
    if opcode in _HOLLOW:
        return _evaluate(module, where, where.operand(instruction, 0), bound)
    if opcode in ("fusion", "call"):
        inner = module.computations[instruction.called()[0]]
        values = {
            index: _evaluate(module, where, where.operand(instruction, index), bound)
            for index in range(len(instruction.operands))
        }
        return _evaluate(module, inner, inner.root, values)
    if opcode in ("add", "subtract"):
        left, right = (_evaluate(module, where, where.operand(instruction, index), bound) for index in (0, 1))
        if left is None or right is None:
            return None
        sign = 1 if opcode == "add" else -1
        if right.element is None:
            return _Value(left.element, left.offset + sign * right.offset)
        if left.element is None and sign == 1:
            return _Value(right.element, left.offset + right.offset)
    return None


def _advance(module: Module, body: Computation, element: int) -> int | None:
    """The amount that one run of the body adds to an element of the state; None unless it is a constant."""
    if body.root.opcode != "tuple":
        return None
    value = _evaluate(module, body, body.operand(body.root, element), None)
    return value.offset if value is not None and value.element == element else None


def _initial(module: Module, where: Computation, loop: Instruction, element: int) -> int | None:
    """The value of an element of the state before the loop; None unless it is a constant."""
    state = where.operand(loop, 0)
    if state.opcode != "tuple":
        return None
    value = _evaluate(module, where, where.operand(state, element), None)
    return value.offset if value is not None and value.element is None else None
