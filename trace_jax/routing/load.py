"""Loads the router of a route table on disk."""

from dataclasses import dataclass

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.files import read_document
from trace_jax.contract.routing import RouteTable, check_gate
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError
from trace_jax.registry import Registry
from trace_jax.routing.classifier import ClassifierRouter
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import GateRouter, load_gate
from trace_jax.routing.router import Router
from trace_jax.routing.select import SelectionPolicy
from trace_jax.routing.table import check_base

ROUTERS = Registry(
    "router",
    "trace_jax.routers",
    {name: f"{__name__}:{name}_router" for name in ("gate", "classifier")},
)


@dataclass(frozen=True)
class TableOnDisk:
    """What a router is made from: a route table, the model that reads prompts, and the policy that selects adapters.

    A router is a function or class of this one argument. ``path`` is the table's file; what a router has learnt lies
    in its directory.
    """

    path: PathLike
    table: RouteTable
    base: str
    reader: PromptReader
    renderer: Renderer
    policy: SelectionPolicy


def load_router(
    path: PathLike,
    base: str,
    reader: PromptReader,
    renderer: Renderer,
    policy: SelectionPolicy,
    *,
    configured: str | None = None,
) -> Router:
    """The router of the table in ``path``. The table's directory contains its gate.

    Args:
        configured: the router of the settings. A table alone cannot make this process import a module: a router that
            it calls ``module:NAME`` is loaded only if the settings name the same.

    Raises:
        UserError: a table or gate of another base, no gate file, another gate than the table was made with, or a router
            that is not known.
    """
    table = read_document(path, RouteTable)
    check_base(table, base)
    if ":" in table.router and table.router != configured:
        raise UserError(
            f"{path}: its router {table.router!r} is code to import: set routing.router to it if you trust it"
        )
    try:
        make = ROUTERS.find(table.router)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    router: Router = make(TableOnDisk(path, table, base, reader, renderer, policy))
    return router


def gate_router(given: TableOnDisk) -> GateRouter:
    """The learned gate, from its file."""
    gate = load_gate(check_gate(given.path, given.table), given.base)
    return GateRouter(given.table, gate, given.base, given.reader, given.renderer, given.policy)


def classifier_router(given: TableOnDisk) -> ClassifierRouter:
    """The base model itself, which has nothing to load."""
    return ClassifierRouter(given.table, given.reader, given.renderer, given.policy)
