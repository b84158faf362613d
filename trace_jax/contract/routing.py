"""Stage 4 records: the table of adapters a router chooses from, and its decision for one conversation."""

from typing import Self

from etils import epath
from pydantic import Field, model_validator

from trace_jax.contract.digest import Sha256, check_file
from trace_jax.contract.record import Part, Record
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError

RouterKind = str  # "gate", "classifier", "random", "oracle", or what a router of another package is called


class Route(Part):
    """One choice of the router: an adapter and the description of what it is good at."""

    adapter: str
    capability: str
    description: str


class RouteTable(Record):
    """All routes over one base. The base itself is always a choice and needs no entry."""

    schema_version: int = 2  # 2: the digest of the gate
    base: str
    router: RouterKind
    routes: tuple[Route, ...]
    gate: str | None = None  # safetensors file of the learned gate, relative to the table
    gate_sha256: Sha256 | None = None  # of that file
    temperature: float = 1.0
    minimum_weight: float = Field(default=0.0, ge=0.0, le=1.0)  # best weight below this: undecided, the base serves
    rollouts: int = 0  # spent before its adapters were trained: analysis and calibration

    @model_validator(mode="after")
    def _gate_with_its_digest(self) -> Self:
        if (self.gate is None) != (self.gate_sha256 is None):
            raise ValueError(f"gate is {self.gate!r} and gate_sha256 {self.gate_sha256!r}: give both or neither")
        return self


class RouteDecision(Record):
    """Where one conversation goes. Weights cover every route and the base (key ``""``) and sum to 1."""

    conversation: str
    router: RouterKind
    weights: dict[str, float]
    adapters: dict[str, float]  # adapters to use with their merge weights; empty: the base serves
    undecided: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        total = sum(self.weights.values())
        if self.weights and abs(total - 1.0) > 1e-4:
            raise ValueError(f"route decision for {self.conversation}: weights sum to {total}, not 1")
        if self.undecided and self.adapters:
            named = sorted(self.adapters)
            raise ValueError(f"route decision for {self.conversation}: undecided, yet names adapters {named}")
        return self


def check_gate(path: PathLike, table: RouteTable) -> epath.Path:
    """The file of the gate of the ``table`` at ``path``. Raises UserError unless it is the one that was trained."""
    if table.gate is None or table.gate_sha256 is None:
        raise UserError(f"{path}: router is the gate, but no gate file is named: train the gate again")
    gate = epath.Path(path).parent / table.gate
    remedy = "the gate was changed after its training, or swapped: restore the file, or remove the table to train anew"
    check_file(gate, table.gate_sha256, path, remedy)
    return gate
