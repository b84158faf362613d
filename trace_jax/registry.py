"""Things of one kind by name, so that anybody can add one without touching this repository.

    ANALYSTS = Registry("analyst", "trace_jax.analysts", {"rules": "trace_jax.analysis.rules_analyst:RulesAnalyst"})
    analyst = ANALYSTS.make("rules")
    analyst = ANALYSTS.make("mypackage.analysts:Careful", {"runs": 3})

A name is that of a built-in thing, that of an entry point of an installed package (in the group of the registry), or
``module:NAME`` of a class or function that can be imported.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import to_json

from trace_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Registry:
    """What can be made by name.

    Attributes:
        kind: what these things are called in messages: "target".
        group: of the entry points.
        built_in: ``module:NAME`` of each thing that this package brings.
        methods: what a class must have; it is refused otherwise.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]
    methods: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """All known names, sorted."""
        return tuple(sorted({*self.built_in, *(point.name for point in entry_points(group=self.group))}))

    def find(self, name: str) -> Callable[..., Any]:
        """The class or function called ``name``. Raises UserError if there is none, with the known names."""
        return _imported(self.kind, self._path(name))

    def factory(self, name: str, parameters: Mapping[str, Any] | None = None) -> Callable[[], Any]:
        """A function that makes new things called ``name``. ``parameters`` are JSON values.

        Raises UserError if there is no such thing, if a class lacks a method, and for a parameter that it does not have
        or that has another type.
        """
        found = self.find(name)
        given = self._checked(name, found, dict(parameters or {}))
        absent = [method for method in self.methods if isinstance(found, type) and not hasattr(found, method)]
        if absent:
            raise UserError(f"{self.kind} {name!r}: {found.__module__}:{found.__qualname__} has no {absent[0]}")
        return lambda: found(**given)

    def make(self, name: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """A new thing called ``name``. Raises UserError as ``factory`` does."""
        return self.factory(name, parameters)()

    def _path(self, name: str) -> str:
        if ":" in name:
            return name
        if name in self.built_in:
            return self.built_in[name]
        found = [point.value for point in entry_points(group=self.group) if point.name == name]
        if not found:
            known = ", ".join(self.names()) or "none"
            raise UserError(f"no {self.kind} {name!r}: known are {known}; or give module:NAME")
        return found[0]

    def _checked(self, name: str, found: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
        try:
            signature = _signature(found)
        except ValueError:
            raise UserError(f"{self.kind} {name!r}: its parameters cannot be told: wrap it in a function") from None
        try:
            signature.bind(**given)
        except TypeError as error:
            raise UserError(f"{self.kind} {name!r}: {error}: its parameters are {signature}") from None
        for key in given.keys() & signature.parameters.keys():
            kind = signature.parameters[key].annotation
            if kind is inspect.Parameter.empty or isinstance(kind, str):
                continue
            try:
                given[key] = _adapter(kind).validate_json(to_json(given[key]), strict=True)
            except ValidationError as error:
                why = error.errors(include_url=False)[0]["msg"].replace("Input should", "it should")
                raise UserError(f"{self.kind} {name!r}: its parameter {key} is {given[key]!r}: {why}") from None
            except PydanticUserError:  # a type that pydantic does not know: the thing checks it
                continue
        return given


def returned_type(function: Callable[..., Any]) -> Any:
    """What a class or function makes when it is called: the class, or the annotated type; None if there is none."""
    if isinstance(function, type):
        return function
    returned = _signature(function).return_annotation
    return None if returned is inspect.Signature.empty else returned


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature. Annotations that cannot be resolved stay the text that they are."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # an annotation is foreign code
        return inspect.signature(function)


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """What validates a value of ``kind``; arbitrary classes are allowed, where pydantic can be told so."""
    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a model or dataclass has a configuration of its own
        return TypeAdapter(kind)


def _imported(kind: str, path: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    try:
        module = import_module(module_name)
    except (ImportError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{kind} {path!r}: cannot import {module_name!r} ({error}): install it, or correct it"
        ) from None
    found = getattr(module, name, None)
    if not callable(found):
        own = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise UserError(f"{kind} {path!r}: {module_name} has no class or function {name!r}: it has {', '.join(own)}")
    return cast(Callable[..., Any], found)
