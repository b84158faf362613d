"""JSON Schemas of a Python function: of its arguments, and of its result."""

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from trace_jax.errors import UserError

_MAPS = frozenset({"properties", "patternProperties", "$defs"})  # keywords whose values map names to schemas
_LITERAL = frozenset({"default", "const", "enum", "examples"})  # keywords whose values are data, not schemas
_ORDER = {"type": -4, "properties": -3, "required": -2, "additionalProperties": -1, "description": 1}  # others between
_SECTION = re.compile(r"^(Args|Arguments|Returns|Yields|Raises|Examples?|Notes?):[ \t]*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?: \([^)]*\))?:[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)


def arguments_model(function: Callable[..., Any]) -> type[BaseModel]:
    """A model of the arguments of a method, ``self`` apart. Descriptions come from Field(…) or the docstring's Args.

    Raises UserError for a parameter without a type, or of a kind that JSON arguments cannot fill.
    """
    where = f"tool {function.__qualname__}"
    types = _types(function)
    described = _sections(function)[1]
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UserError(f"{where}: parameter {parameter} cannot be given by name: use named parameters alone")
        if parameter.name not in types:
            raise UserError(f"{where}: parameter {parameter.name!r} has no type: annotate it")
        default = ... if parameter.default is parameter.empty else parameter.default
        field = FieldInfo.from_annotated_attribute(types[parameter.name], default)
        field.description = field.description or described.get(parameter.name)
        fields[parameter.name] = (types[parameter.name], field)
    if unknown := [name for name in described if name not in fields]:
        raise UserError(f"{where}: its docstring describes {unknown[0]!r}, which is no parameter: it has {[*fields]}")
    try:
        return create_model(function.__name__, __config__=ConfigDict(extra="forbid", strict=True), **fields)
    except (PydanticUserError, NameError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None


def result_type(function: Callable[..., Any]) -> Any:
    """The type that a method returns. Raises UserError if it is not annotated."""
    types = _types(function)
    if "return" not in types:
        raise UserError(f"tool {function.__qualname__}: its result has no type: annotate it with -> TYPE")
    return types["return"]


def description(function: Callable[..., Any]) -> str:
    """The docstring up to its first section, in one line. Raises UserError if there is none."""
    text = " ".join(_sections(function)[0].split())
    if not text:
        raise UserError(f"tool {function.__qualname__}: it has no docstring, which tells the agent what it does")
    return text


def arguments_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of the arguments."""
    schema: dict[str, Any] = tidy({"properties": {}, **model.model_json_schema()})
    return schema


def result_schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of results of the type ``kind``; objects are closed to other keys."""
    schema: dict[str, Any] = tidy(TypeAdapter(kind).json_schema(mode="serialization"))
    return schema


def tidy(schema: Any) -> Any:
    """A schema without the titles that pydantic makes, with closed objects, and keywords in the usual order."""
    if isinstance(schema, list):
        return [tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS:
            kept[key] = {name: tidy(each) for name, each in value.items()}
        elif key != "title":
            kept[key] = value if key in _LITERAL else tidy(value)
    if "properties" in kept:
        kept.setdefault("additionalProperties", False)
    return dict(sorted(kept.items(), key=lambda item: _ORDER.get(item[0], 0)))


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UserError(
            f"tool {function.__qualname__}: {error} in its annotations: define it at the top level of the module"
        ) from None


def _sections(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What a Google-style docstring says of the function, and of each argument."""
    parts = _SECTION.split(inspect.getdoc(function) or "")
    described: dict[str, str] = {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title in ("Args", "Arguments"):
            for name, text in _ARGUMENT.findall(inspect.cleandoc(f"\n{body}")):
                described[name] = " ".join(text.split())
    return parts[0], described
