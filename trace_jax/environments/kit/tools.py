"""Tools: methods of a state dataclass that the agent may call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

from trace_jax.contract.trajectory import Effect, Tool
from trace_jax.environments.kit.schemas import (
    arguments_model,
    arguments_schema,
    description,
    result_schema,
    result_type,
)
from trace_jax.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V")


class ToolError(Exception):
    """A tool refuses a call. The agent gets ``{"error": text}`` as the result."""


def look_up(table: Mapping[str, V], key: str, what: str) -> V:
    """``table[key]``. Raises ToolError, "no meeting M9" for the ``what`` "meeting", if there is none."""
    if key not in table:
        raise ToolError(f"no {what} {key}")
    return table[key]


@dataclass(frozen=True)
class Effects:
    """What a tool reads and writes: names of fields of the state, as far as its author declares them."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def told(self) -> Effect | None:
        """What a tool that declares this does; None if it declares nothing."""
        return "write" if self.writes else "read" if self.reads else None


@dataclass(frozen=True)
class StateTool:
    """A tool method of a state class. ``result`` turns what it returns into JSON values."""

    tool: Tool
    arguments: type[BaseModel]
    result: TypeAdapter[Any]
    results: dict[str, Any]
    effects: Effects
    method: str


@overload
def tool(function: F) -> F: ...
@overload
def tool(*, reads: tuple[str, ...] = (), writes: tuple[str, ...] = ()) -> Callable[[F], F]: ...
def tool(function: F | None = None, *, reads: tuple[str, ...] = (), writes: tuple[str, ...] = ()) -> Any:
    """Make a method of a state class a tool: ``@tool``, or ``@tool(reads=("rooms",), writes=("bookings",))``.

    Its type hints become the JSON Schemas of arguments and results, its docstring the description; a section ``Args:``
    describes the arguments. A call is validated before the method runs. The method raises ToolError to refuse.
    """

    def mark(marked: F) -> F:
        marked.__tool_effects__ = Effects(reads, writes)  # type: ignore[attr-defined]
        return marked

    return mark if function is None else mark(function)


@cache
def state_tools(state_type: type) -> Mapping[str, StateTool]:
    """The tools of a state class by name, in the order of their definition, those of base classes first.

    Raises UserError if a tool lacks a type or a docstring, or declares an unknown field, and if there are no tools.
    """
    marked: dict[str, Any] = {}
    for cls in reversed(state_type.__mro__):
        marked |= {name: getattr(state_type, name) for name, value in vars(cls).items() if _effects(value)}
    if not marked:
        raise UserError(f"state class {state_type.__qualname__} has no tools: mark its methods with @kit.tool")
    known = {field.name for field in fields(state_type)} if is_dataclass(state_type) else set()
    for name, function in marked.items():
        declared = _effects(function) or Effects()
        for field in (*declared.reads, *declared.writes):
            if field not in known:
                raise UserError(f"tool {name}: it declares the field {field!r}: the state has {sorted(known)}")
    return {name: _state_tool(name, function) for name, function in marked.items()}


def tools(state_type: type) -> tuple[Tool, ...]:
    """The tools of a state class, as they are offered to an agent."""
    return tuple(each.tool for each in state_tools(state_type).values())


def results(state_type: type) -> dict[str, dict[str, Any]]:
    """A JSON Schema of the results of each tool, errors included: ``Target.results``."""
    return {name: each.results for name, each in state_tools(state_type).items()}


def effects(state_type: type) -> dict[str, Effects]:
    """What each tool declares that it reads and writes."""
    return {name: each.effects for name, each in state_tools(state_type).items()}


_Refusal: Any = create_model("Refusal", __config__=ConfigDict(extra="forbid"), error=(str, ...))


def _effects(value: Any) -> Effects | None:
    found = getattr(value, "__tool_effects__", None)
    return found if isinstance(found, Effects) else None


def _state_tool(name: str, function: Callable[..., Any]) -> StateTool:
    model = arguments_model(function)
    kind = result_type(function)
    effects = _effects(function) or Effects()
    offered = Tool(
        name=name, description=description(function), parameters=arguments_schema(model), effect=effects.told
    )
    try:
        return StateTool(offered, model, TypeAdapter(kind), result_schema(kind | _Refusal), effects, name)
    except Exception as error:  # pydantic's own, of many kinds
        raise UserError(f"tool {function.__qualname__}: its result {kind} has no JSON Schema: {error}") from None
