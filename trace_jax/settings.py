"""How settings are declared: one frozen dataclass a package, each field with its type, bounds, unit and meaning.

    @dataclass(frozen=True, kw_only=True)
    class EngineSettings(Settings):
        section: ClassVar = "engine"
        slots: int = setting(64, "rows decoded at once", ge=1)

    EngineSettings(slots=0)  # UserError: engine.slots is 0: it should be greater than or equal to 1

``configs/base.py`` is made from these classes, and ``session.read_settings`` makes them from a run's configuration.
"""

import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, ClassVar

import pydantic

from trace_jax.errors import UserError


def setting(default: Any, meaning: str, **bounds: float) -> Any:
    """A field of a settings class. ``bounds`` are pydantic's: ``gt``, ``ge``, ``lt``, ``le``."""
    return field(default=default, metadata={"meaning": meaning, "bounds": bounds})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings classes. Raises UserError for a value of another type, or outside its bounds."""

    section: ClassVar[str]  # of the configuration

    def __post_init__(self) -> None:
        for field_ in fields(self):
            name, value = field_.name, getattr(self, field_.name)
            try:
                valid = _adapters(type(self))[name].validate_python(value, strict=True)  # type: ignore[arg-type]
            except pydantic.ValidationError as error:
                why = error.errors(include_url=False)[0]["msg"].replace("Input should", "it should")
                raise UserError(f"{self.section}.{name} is {value!r}: {why}") from None
            object.__setattr__(self, name, valid)  # an int where a float is meant has become one


def describe(cls: type[Settings]) -> Iterator[tuple[str, str, Any, str]]:
    """Name, type, default and meaning of each field."""
    types = typing.get_type_hints(cls)
    for field_ in fields(cls):
        yield field_.name, _spelled(types[field_.name]), field_.default, field_.metadata["meaning"]


@cache
def _adapters(cls: type[Settings]) -> dict[str, pydantic.TypeAdapter[Any]]:
    """What validates each field."""
    types = typing.get_type_hints(cls)
    return {field_.name: _adapter(types[field_.name], field_.metadata["bounds"]) for field_ in fields(cls)}


def _adapter(kind: Any, bounds: dict[str, Any]) -> pydantic.TypeAdapter[Any]:
    optional = type(None) in typing.get_args(kind)
    inner = typing.get_args(kind)[0] if optional else kind
    if inner not in (int, float):
        return pydantic.TypeAdapter(kind)
    bounded: Any = Annotated[inner, pydantic.Field(allow_inf_nan=False, **bounds)]
    return pydantic.TypeAdapter(bounded | None if optional else bounded)


def _spelled(kind: Any) -> str:
    """The type as a reader of ``--help`` expects it."""
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
