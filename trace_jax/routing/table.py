"""The route table: which adapters a router may choose, over which base."""

from collections import Counter
from collections.abc import Mapping, Sequence

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.routing import Route, RouterKind, RouteTable
from trace_jax.errors import UserError


def build_table(
    base: str,
    router: RouterKind,
    adapters: Sequence[AdapterManifest],
    descriptions: Mapping[str, str],
    *,
    gate: str | None = None,
    gate_sha256: str | None = None,
    temperature: float = 1.0,
    minimum_weight: float = 0.0,
    rollouts: int = 0,
) -> RouteTable:
    """A table of one route an adapter, ordered as ``adapters``.

    Args:
        base: revision of the base model; an adapter of another base is refused.
        descriptions: what each capability is, by name; of a mixture, the descriptions are joined.

    Raises:
        UserError: an adapter of another base, without capability, or named twice; a capability without description.
    """
    repeated = [name for name, count in Counter(a.name for a in adapters).items() if count > 1]
    if repeated:
        raise UserError(f"adapter {repeated[0]!r} is listed twice; names are unique: drop one manifest")
    if not temperature > 0.0:
        raise UserError(f"route table temperature is {temperature}; it must be above 0")
    routes = []
    for adapter in adapters:
        if adapter.base != base:
            raise UserError(f"adapter {adapter.name!r} is for base {adapter.base}, not {base}: train it on this base")
        if not adapter.capabilities:
            raise UserError(f"adapter {adapter.name!r} names no capability; a router has nothing to choose it by")
        missing = [name for name in adapter.capabilities if name not in descriptions]
        if missing:
            raise UserError(f"capability {missing[0]!r} of adapter {adapter.name!r} has no description; add it")
        routes.append(
            Route(
                adapter=adapter.name,
                capability="+".join(adapter.capabilities),
                description=" ".join(descriptions[name] for name in adapter.capabilities),
            )
        )
    return RouteTable(
        base=base,
        router=router,
        routes=tuple(routes),
        gate=gate,
        gate_sha256=gate_sha256,
        temperature=temperature,
        minimum_weight=minimum_weight,
        rollouts=rollouts,
    )


def check_base(table: RouteTable, base: str) -> None:
    """Refuse a table built over another base than the one that will serve."""
    if table.base != base:
        raise UserError(f"route table is for base {table.base}, the model is {base}: rebuild the table for this base")
