"""Targets and environments by name.

A name is that of a built-in target, that of an entry point of an installed package (groups ``trace_jax.targets`` and
``trace_jax.environments``), or ``module:Class`` of anything that can be imported:

    target = load_target("helpdesk")
    environment = load_environment("mypackage.shop:Shop", {"size": 3})
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from trace_jax.contract.environment import Design
from trace_jax.environments.protocol import Environment, Target
from trace_jax.environments.splits import check_splits
from trace_jax.errors import UserError

TARGETS = "trace_jax.targets"
ENVIRONMENTS = "trace_jax.environments"

_BUILT_IN: dict[str, dict[str, str]] = {
    TARGETS: {
        "helpdesk": "trace_jax.environments.helpdesk.target:Helpdesk",
        "helpdesk_short": "trace_jax.environments.helpdesk.short:ShortHelpdesk",
    },
    ENVIRONMENTS: {},
}
_METHODS = {TARGETS: ("tasks", "environment"), ENVIRONMENTS: ("reset", "step", "grade")}


def load_target(name: str, parameters: Mapping[str, Any] | None = None) -> Target:
    """The target called ``name``. Raises UserError, with the value and the known names, if it cannot be made.

    Raises UserError too for a target without ``results``, with tasks that are not integers, or whose splits overlap.
    """
    target: Target = _factory(TARGETS, name, parameters or {})()
    if not isinstance(getattr(target, "results", None), Mapping):
        raise UserError(f"target {name!r}: has no results (a JSON Schema by tool): see trace_jax.environments.protocol")
    check_splits(target, name)
    return target


def load_environment(name: str, parameters: Mapping[str, Any] | None = None) -> Environment:
    """A new environment called ``name``. Raises UserError as ``load_target`` does."""
    environment: Environment = _factory(ENVIRONMENTS, name, parameters or {})()
    return environment


def is_environment(name: str) -> bool:
    """Whether ``name`` names an environment, not a target. ``module:Class`` is an environment if it has the methods."""
    if ":" in name:
        return all(hasattr(_import("environment", name), method) for method in _METHODS[ENVIRONMENTS])
    return name in names(ENVIRONMENTS) and name not in names(TARGETS)


def environment_factory(design: Design, target: Design | None = None) -> Callable[[], Environment]:
    """A function that makes new environments of a design. ``target`` is how the run's own target is built.

    A design may be written by a model, so only code of this package or of an installed entry point is run, and that of
    the target which the user has chosen: a design that names a target must name this one, with its parameters.
    Anything else raises UserError.
    """
    if ":" in design.entry_point and design.entry_point.partition(":")[0].partition(".")[0] != "trace_jax":
        raise UserError(
            f"environment {design.entry_point!r} lies outside trace_jax and would run in this process: only a sandbox "
            "may run it, which this build lacks; use a generator of trace_jax, or install it as an entry point of "
            f"{ENVIRONMENTS}"
        )
    if "target" in design.parameters:
        named = design.parameters["target"], design.parameters.get("target_parameters") or {}
        own = None if target is None else (target.entry_point, target.parameters)
        if named != own:
            raise UserError(
                f"environment {design.entry_point!r} is of target {_spelled(*named)}, and the run's own is "
                f"{'none' if own is None else _spelled(*own)}: a design may name no other; set target.environment and "
                "target.parameters to the target that it was made for"
            )
    return _factory(ENVIRONMENTS, design.entry_point, design.parameters)


def names(group: str) -> tuple[str, ...]:
    """All names known in ``group``, sorted."""
    return tuple(sorted({*_BUILT_IN[group], *(point.name for point in entry_points(group=group))}))


def _factory(group: str, name: str, parameters: Mapping[str, Any]) -> Callable[[], Any]:
    kind = group.rpartition(".")[2][:-1]
    path = name if ":" in name else _registered(group, kind, name)
    cls = _import(kind, path)
    try:
        inspect.signature(cls).bind(**parameters)
    except TypeError as error:
        raise UserError(f"{kind} {name!r}: {error}: its parameters are {inspect.signature(cls)}") from None
    absent = [method for method in _METHODS[group] if not hasattr(cls, method)]
    if absent:
        raise UserError(f"{kind} {name!r}: {path} has no {absent[0]}: see trace_jax/environments/protocol.py")
    return lambda: cls(**parameters)


def _registered(group: str, kind: str, name: str) -> str:
    if name in _BUILT_IN[group]:
        return _BUILT_IN[group][name]
    found = [point.value for point in entry_points(group=group) if point.name == name]
    if not found:
        known = ", ".join(names(group)) or "none"
        raise UserError(f"no {kind} {name!r}: known are {known}; or give module:Class")
    return found[0]


def _import(kind: str, path: str) -> type:
    module_name, _, class_name = path.partition(":")
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{kind} {path!r}: cannot import {module_name!r} ({error}): install it, or correct it"
        ) from None
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        classes = sorted(key for key, value in vars(module).items() if isinstance(value, type) and key[0] != "_")
        raise UserError(f"{kind} {path!r}: {module_name} has no class {class_name!r}: it has {', '.join(classes)}")
    return cls


def _spelled(name: Any, parameters: Any) -> str:
    return f"{name!r}" + (f" with {parameters}" if parameters else "")
