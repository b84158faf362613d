"""Arithmetic that an agent writes, worked out without running it as code."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from trace_jax.environments.kit.tools import ToolError

_LONGEST = 200  # characters of an expression
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def arithmetic(expression: str) -> float:
    """The value of an expression of numbers, ``+ - * /`` and parentheses. Raises ToolError for anything else."""
    if len(expression) > _LONGEST:
        raise ToolError(f"an expression may have {_LONGEST} characters")
    try:
        value = float(_value(ast.parse(expression.strip(), mode="eval").body))
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        raise ToolError(f"not an arithmetic expression: {expression!r}") from None
    if not math.isfinite(value):
        raise ToolError(f"its value is too large: {expression!r}")
    return value


def _value(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return float(_OPERATORS[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return float(_OPERATORS[type(op)](_value(operand)))
    raise ValueError(type(node).__name__)
