"""Loads the router of a route table on disk."""

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.files import read_document
from trace_jax.contract.routing import RouterKind, RouteTable, check_gate
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError
from trace_jax.routing.classifier import ClassifierRouter
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import GateRouter, load_gate
from trace_jax.routing.router import Router
from trace_jax.routing.select import SelectionPolicy
from trace_jax.routing.table import check_base

ROUTERS: tuple[RouterKind, ...] = ("gate", "classifier")  # the kinds that a table on disk can be of


def load_router(path: PathLike, base: str, reader: PromptReader, renderer: Renderer, policy: SelectionPolicy) -> Router:
    """The router of the table in ``path``. The table's directory contains its gate.

    Raises:
        UserError: a table or gate of another base, no gate file, another gate than the table was made with, or a kind
            of router without a file.
    """
    table = read_document(path, RouteTable)
    check_base(table, base)
    if table.router == "classifier":
        return ClassifierRouter(table, reader, renderer, policy)
    if table.router == "gate":
        gate = load_gate(check_gate(path, table), base)
        return GateRouter(table, gate, base, reader, renderer, policy)
    raise UserError(f"{path}: router {table.router!r} cannot be loaded from its table; use gate or classifier")
