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
from dataclasses import Field, dataclass, field, fields
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
        for one in fields(self):
            value = getattr(self, one.name)
            try:
                valid = _adapter(type(self), one.name).validate_python(value, strict=True)
            except pydantic.ValidationError as error:
                why = error.errors(include_url=False)[0]["msg"].replace("Input should", "it should")
                raise UserError(f"{self.section}.{one.name} is {value!r}: {why}") from None
            object.__setattr__(self, one.name, valid)  # an int where a float is meant has become one


def describe(cls: type[Settings]) -> Iterator[tuple[str, str, Any, str]]:
    """Name, type, default and meaning of each field."""
    for one in fields(cls):
        kind = typing.get_type_hints(cls)[one.name]
        yield one.name, _spelled(kind), one.default, one.metadata["meaning"]


@cache
def _adapter(cls: type[Settings], name: str) -> pydantic.TypeAdapter[Any]:
    found: Field[Any] = next(one for one in fields(cls) if one.name == name)
    finite = pydantic.Field(allow_inf_nan=False, **found.metadata["bounds"])
    kind = typing.get_type_hints(cls)[name]
    optional = type(None) in typing.get_args(kind)
    if optional:
        kind = typing.Union[tuple(arg for arg in typing.get_args(kind) if arg is not type(None))]  # noqa: UP007
    numeric = kind in (int, float)
    bounded: Any = Annotated[kind, finite] if numeric else kind
    return pydantic.TypeAdapter(bounded | None if optional else bounded)


def _spelled(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")
