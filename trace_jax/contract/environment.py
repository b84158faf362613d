"""Stage 2 record: a synthesised environment with its validity gates and calibration."""

from typing import Any, Literal

from trace_jax.contract.capability import CapabilityName
from trace_jax.contract.record import Part, Record
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
    """A validated, calibrated training ground for one capability. ``name`` is unique in a work directory."""

    name: str
    capability: CapabilityName
    target: str
    designer: str
    design: Design
    gates: tuple[Check, ...]
    calibration: Calibration | None  # None for a target used as its own training ground
    attempts: tuple[Attempt, ...] = ()
    rollouts: int  # base rollouts spent on calibration
