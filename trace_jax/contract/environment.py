"""Stage 2 record: a synthesised environment with its validity gates and calibration."""

from typing import Any, Literal, Self

from etils import epath
from pydantic import Field, model_validator

from trace_jax.contract.capability import CapabilityName
from trace_jax.contract.digest import LogChecksum, Sha256, digest_of
from trace_jax.contract.record import Part, Record
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Check


class Design(Part):
    """How to build the environment: an entry point (``module:Class``) and its keyword arguments."""

    entry_point: str
    parameters: dict[str, Any]


class Calibration(Part):
    """How hard the environment is for the base policy, over ``groups`` seeds × ``group_size`` rollouts."""

    groups: int
    group_size: int
    broken: int
    mean_reward: float
    reward_std: float
    success_rate: float
    all_success_groups: float
    all_zero_groups: float
    constant_groups: float
    pass_at_k: dict[str, float]  # k → unbiased estimate


Verdict = Literal["accepted", "too easy", "too hard", "broken", "gate failed"]


class Attempt(Part):
    """One round of design: the design, its gates and calibration, and the verdict and feedback for the designer."""

    round: int
    design: Design
    gates: tuple[Check, ...]
    calibration: Calibration | None
    seeds: tuple[int, ...] = ()  # of the environment, that calibrated it
    verdict: Verdict | None = None  # None in files of earlier builds
    feedback: str


class EnvironmentManifest(Record):
    """A validated, calibrated environment for one capability. ``name`` is unique in a work directory."""

    schema_version: int = 2  # 2: the digests of the design and of the calibration's rollouts
    name: str
    capability: CapabilityName
    target: str
    designer: str
    design: Design
    design_sha256: Sha256 = Field(default_factory=lambda fields: _digest(fields.get("design")))
    gates: tuple[Check, ...]
    calibration: Calibration | None  # None for a target that is its own environment
    attempts: tuple[Attempt, ...] = ()
    rollouts: int  # base rollouts spent on calibration
    recorded: LogChecksum | None = None  # these rollouts, see calibration_path: the first batches of an adapter

    @model_validator(mode="after")
    def _the_design_is_the_one_that_was_accepted(self) -> Self:
        found = _digest(self.design)
        if found != self.design_sha256:
            raise ValueError(
                f"design has sha256 {found}, expected {self.design_sha256} (by design_sha256): it was changed after "
                "its gates and calibration: restore it, or remove the manifest to calibrate the new design"
            )
        return self


def calibration_path(directory: PathLike, capability: str) -> epath.Path:
    """The file of a capability's calibration rollouts, in the directory of its environment's manifest."""
    return epath.Path(directory) / f"{capability}.rollouts.jsonl"


def _digest(design: Design | None) -> str:
    return "" if design is None else digest_of(design.model_dump())
