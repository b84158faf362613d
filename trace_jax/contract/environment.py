"""Stage 2 record: a synthesised environment with its validity gates and calibration."""

import hashlib
from typing import Any, Literal, Self

from etils import epath
from pydantic import Field, model_validator

from trace_jax.contract.capability import CapabilityName
from trace_jax.contract.digest import LogChecksum, Sha256, digest_of
from trace_jax.contract.record import Part, Record
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Check

SANDBOX = "sandbox:"  # begins the entry point of a design that brings its own source


class Design(Part):
    """How to build the environment: an entry point (``module:Class``) and its keyword arguments.

    A design that a language model wrote brings the text of its module in ``source``. Its entry point is
    ``sandbox:CLASS``, and nothing but a sandbox runs it.
    """

    entry_point: str
    parameters: dict[str, Any]
    source: str | None = None

    @model_validator(mode="after")
    def _source_belongs_into_the_sandbox(self) -> Self:
        if (self.source is not None) != self.entry_point.startswith(SANDBOX):
            have = "no source" if self.source is None else "a source"
            raise ValueError(
                f"design {self.entry_point!r} has {have}: a module that a model wrote has the entry point "
                f"{SANDBOX}CLASS, and no other design brings a source"
            )
        return self

    @property
    def sha256(self) -> str:
        """The digest of entry point, parameters and source."""
        return digest_of(self.model_dump())


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


Verdict = Literal["accepted", "too easy", "too hard", "broken", "gate failed", "no design"]


class Attempt(Part):
    """One round of design: the design, its gates and calibration, and the verdict and feedback for the designer.

    Several candidates may be designed in the same round; each is told its own attempts alone. ``design`` is None if the
    round brought none that could be tried.
    """

    round: int
    candidate: int = 0
    design: Design | None
    gates: tuple[Check, ...]
    calibration: Calibration | None
    seeds: tuple[int, ...] = ()  # of the environment, that calibrated it
    verdict: Verdict | None = None  # None in files of earlier builds
    feedback: str
    differential_rollouts: int = 0  # of a weaker policy and of the base with the hint; their checks are in ``gates``
    episode: str = ""  # a page of the episode that shows what the calibration found, on the smallest seed that does


class DesignAttempt(Record):
    """An attempt of a capability that is FAILED, which has no manifest: a line of ``NAME.attempts.jsonl``."""

    capability: CapabilityName
    attempt: Attempt


class Authorship(Part):
    """How a language model wrote a design, and what all answers on the way to it cost, those of refused ones included.

    Tokens that an endpoint did not count, and dollars without a price, are missing from the sums.
    """

    model: str
    prompts: tuple[str, ...]  # NAME@VERSION of each template, in the order of first use
    source_sha256: Sha256  # of the source of the accepted design, as UTF-8
    requests: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None


class EnvironmentManifest(Record):
    """A validated, calibrated environment for one capability. ``name`` is unique in a work directory."""

    schema_version: int = 3  # 2: the digests of the design and of the calibration's rollouts; 3: designs with a source
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
    written_by: Authorship | None = None  # for a design with a source

    @model_validator(mode="after")
    def _the_design_is_the_one_that_was_accepted(self) -> Self:
        found = self.design.sha256
        if found != self.design_sha256:
            raise ValueError(
                f"design has sha256 {found}, expected {self.design_sha256} (by design_sha256): it was changed after "
                "its gates and calibration: restore it, or remove the manifest to calibrate the new design"
            )
        source = self.design.source
        if (self.written_by is None) != (source is None):
            raise ValueError(
                f"manifest {self.name}: written_by is {'absent' if self.written_by is None else 'given'} for a design "
                f"with {'no source' if source is None else 'a source'}: give both or neither"
            )
        if (
            self.written_by is not None
            and source is not None
            and self.written_by.source_sha256 != source_sha256(source)
        ):
            raise ValueError(
                f"manifest {self.name}: source has sha256 {source_sha256(source)}, expected "
                f"{self.written_by.source_sha256} (by written_by): restore the file"
            )
        return self


def attempts_path(directory: PathLike, capability: str) -> epath.Path:
    """The file of a FAILED capability's attempts, in the directory where its manifest would be."""
    return epath.Path(directory) / f"{capability}.attempts.jsonl"


def calibration_path(directory: PathLike, capability: str) -> epath.Path:
    """The file of a capability's calibration rollouts, in the directory of its environment's manifest."""
    return epath.Path(directory) / f"{capability}.rollouts.jsonl"


def source_sha256(source: str) -> str:
    """The SHA-256 of the text of a module, as UTF-8."""
    return hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()


def _digest(design: Design | None) -> str:
    return "" if design is None else design.sha256
