"""Targets and environments by name.

A name is that of a built-in target, that of an entry point of an installed package (groups ``trace_jax.targets`` and
``trace_jax.environments``), or ``module:NAME`` of a class or function that can be imported:

    target = load_target("helpdesk")
    target = load_target("openenv:http://host:8000", {"returns": [0, 1]})  # of another library: see ``adapters``
    target = load_target("examples.calendar:calendar", {"train": 200})
    environment = load_environment("mypackage.shop:Shop", {"size": 3})
"""

from collections.abc import Callable, Mapping
from typing import Any

from trace_jax.contract.environment import Design
from trace_jax.environments.adapters.schemes import expand
from trace_jax.environments.protocol import Environment, Target
from trace_jax.environments.splits import check_splits
from trace_jax.errors import UserError
from trace_jax.registry import Registry, returned_type

TARGETS = Registry(
    "target",
    "trace_jax.targets",
    {
        "agentdojo": "trace_jax.targets.agentdojo:AgentDojo",
        "bfcl": "trace_jax.targets.bfcl:Bfcl",
        "helpdesk": "trace_jax.environments.helpdesk.target:Helpdesk",
        "helpdesk_short": "trace_jax.environments.helpdesk.short:ShortHelpdesk",
        "tau2": "trace_jax.targets.tau2_bench:Tau2Bench",
        "toolsandbox": "trace_jax.targets.toolsandbox:ToolSandbox",
    },
    ("tasks", "environment"),
)
ENVIRONMENTS = Registry("environment", "trace_jax.environments", {}, ("reset", "step", "grade"))


def load_target(name: str, parameters: Mapping[str, Any] | None = None) -> Target:
    """The target called ``name``. Raises UserError, with the value and the known names, if it cannot be made.

    Raises UserError too for a target without ``results``, with tasks that have no usable id, or whose splits overlap.
    """
    target: Target = TARGETS.make(*expand(name, parameters))
    check_target(target, name)
    return target


def check_target(target: Target, name: str) -> None:
    """Raises UserError for a target that breaks the protocol, as far as can be seen without an episode."""
    _complete(TARGETS, name, target)
    if not isinstance(getattr(target, "results", None), Mapping):
        raise UserError(f"target {name!r}: has no results (a JSON Schema by tool): see trace_jax.environments.protocol")
    check_splits(target, name)


def load_environment(name: str, parameters: Mapping[str, Any] | None = None) -> Environment:
    """A new environment called ``name``. Raises UserError as ``load_target`` does."""
    environment: Environment = ENVIRONMENTS.make(name, parameters)
    _complete(ENVIRONMENTS, name, environment)
    return environment


def is_environment(name: str) -> bool:
    """Whether ``name`` names an environment, not a target.

    ``module:NAME`` is an environment if the class, or the type that the function is annotated to return, has the
    methods of one.
    """
    name, _ = expand(name)
    if ":" in name:
        made = returned_type(ENVIRONMENTS.find(name))
        return all(hasattr(made, method) for method in ENVIRONMENTS.methods)
    return name in ENVIRONMENTS.names() and name not in TARGETS.names()


def environment_factory(design: Design, target: Design | None = None) -> Callable[[], Environment]:
    """A function that makes new environments of a design. ``target`` is how the run's own target is built.

    A design may be written by a model, so only an environment class of this package or an installed entry point is
    run, and the target that the user has chosen: a design that names a target must name this one, with its parameters.
    Anything else raises UserError, a design with a source too: ``sandbox.designs`` plays it.
    """
    name = design.entry_point
    if design.source is not None:
        raise UserError(
            f"environment {name!r} was written by a language model and would run in this process: only the sandbox "
            "may run it"
        )
    if ":" in name and name.partition(":")[0].partition(".")[0] != "trace_jax":
        raise UserError(
            f"environment {name!r} lies outside trace_jax and would run in this process: use a generator of trace_jax, "
            f"install it as an entry point of {ENVIRONMENTS.group}, or put its source into the design, which only a "
            "sandbox may run"
        )
    if ":" in name and not isinstance(ENVIRONMENTS.find(name), type):
        raise UserError(f"environment {name!r} is a function: a design may name a class of trace_jax alone")
    if "target" in design.parameters:
        named = design.parameters["target"], design.parameters.get("target_parameters") or {}
        own = None if target is None else (target.entry_point, target.parameters)
        if named != own:
            raise UserError(
                f"environment {name!r} is of target {_spelled(*named)}, and the run's own is "
                f"{'none' if own is None else _spelled(*own)}: a design may name no other; set target.environment and "
                "target.parameters to the target that it was made for"
            )
    return ENVIRONMENTS.factory(name, design.parameters)


def _complete(registry: Registry, name: str, made: object) -> None:
    """Raises UserError if what a function has made lacks a method."""
    absent = [method for method in registry.methods if not hasattr(made, method)]
    if absent:
        raise UserError(
            f"{registry.kind} {name!r}: {type(made).__name__} has no {absent[0]}: see trace_jax.environments.protocol"
        )


def _spelled(name: Any, parameters: Any) -> str:
    return f"{name!r}" + (f" with {parameters}" if parameters else "")
