"""Stage 1 records: candidate capabilities, label runs, selected capabilities, and their life cycle."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from trace_jax.contract.digest import LogChecksum
from trace_jax.contract.record import Part, Record

CapabilityName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class Label(StrEnum):
    """NA: the task does not need the capability. PRESENT: needed and shown. LACKING: needed and not shown."""

    NA = "NA"
    PRESENT = "PRESENT"
    LACKING = "LACKING"


class Status(StrEnum):
    """How far a capability has come: PENDING → GENERATED → VALIDATED → TRAINED → ROUTED, or FAILED at any point."""

    PENDING = "PENDING"
    GENERATED = "GENERATED"
    VALIDATED = "VALIDATED"
    TRAINED = "TRAINED"
    ROUTED = "ROUTED"
    FAILED = "FAILED"


class Candidate(Part):
    """A capability that the analyst proposes, described precisely enough for another analyst to apply."""

    name: CapabilityName
    description: str
    examples: tuple[str, ...] = ()  # trajectory ids


class MessageQuote(Part):
    """A message of a trajectory that shows something, with some words of it. ``message`` counts from 0."""

    trajectory: str
    message: int = Field(ge=0)
    quote: str


class Candidates(Record):
    """The frozen dictionary: at most 10 proposed capabilities, plus distractors that keep the labelling honest."""

    schema_version: int = 3  # 2: what was left out; 3: evidence
    analyst: str
    capabilities: tuple[Candidate, ...] = Field(max_length=10)
    distractors: tuple[Candidate, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)  # evidence that is no candidate → why not
    evidence: dict[str, tuple[MessageQuote, ...]] = Field(default_factory=dict)  # candidate → messages that show it

    @property
    def all(self) -> tuple[Candidate, ...]:
        """Proposed capabilities and distractors, in that order."""
        return self.capabilities + self.distractors


class PairLabel(Part):
    """The label of one (trajectory, capability) pair, with the evidence in a few words."""

    trajectory: str
    capability: CapabilityName
    label: Label
    evidence: str = ""


class LabelRun(Record):
    """One independent labelling of every (trajectory, capability) pair; ``trajectories`` is the sample it saw."""

    run: int
    seed: int
    analyst: str
    trajectories: tuple[str, ...]
    labels: tuple[PairLabel, ...]


class RunStatistics(Part):
    """Counts of one run for one capability, and the rates that follow from them.

    Coverage is ``lacking_failed / failed``. An error rate is LACKING / (LACKING + PRESENT), once among the failed and
    once among the passed trajectories; delta is the first minus the second.
    """

    run: int
    lacking_failed: int
    present_failed: int
    lacking_passed: int
    present_passed: int
    failed: int
    passed: int
    coverage: float
    error_rate_failed: float
    error_rate_passed: float
    delta: float
    selected: bool


class Interval(Part):
    """A point estimate with a confidence interval."""

    mean: float
    low: float
    high: float
    level: float = 0.95


class CapabilityReport(Part):
    """All that the aggregation found about one capability, selected or not."""

    capability: Candidate
    distractor: bool
    runs: tuple[RunStatistics, ...]
    runs_passed: int
    coverage: Interval
    delta: Interval
    p_value: float  # one-sided permutation test over tasks of the mean delta, Holm-adjusted; 1 where lacked too seldom
    agreement: float | None  # Krippendorff's alpha; None where labels never vary
    support: int  # failed trajectories labelled LACKING by a majority of the runs that saw them
    selected: bool
    reason: str


class AnalysisReport(Record):
    """The aggregation over all runs: a report on each capability, best mean delta first."""

    schema_version: int = 4  # 2: the checksum of the labels; 3: what was left out; 4: what the target gives away
    capabilities: tuple[CapabilityReport, ...]
    rejected_runs: dict[str, str] = Field(default_factory=dict)  # run number → why its partition was refused
    left_out: dict[str, str] = Field(default_factory=dict)  # evidence that is no candidate → why not
    passed: int
    failed: int
    broken: int
    given_away: tuple[str, ...] = ()  # tasks that an agent passes that does nothing
    idle: int = 0  # passed episodes on these tasks in which the agent did nothing: they count nowhere
    labels: LogChecksum | None = None  # the label runs that it was made from; None: they are not on disk


class SelectedCapability(Record):
    """A capability that the base lacks, and how far it has come on its way to a routed adapter."""

    capability: Candidate
    rank: int
    coverage: Interval
    delta: Interval
    failed_examples: tuple[str, ...]  # ids of failed trajectories labelled LACKING
    status: Status = Status.PENDING
    reason: str = ""  # why it FAILED
    rollouts: int = (
        0  # spent on the environment of a FAILED capability; otherwise the environment's manifest counts them
    )

    @model_validator(mode="after")
    def _failed_says_why(self) -> Self:
        if (self.status is Status.FAILED) != bool(self.reason):
            raise ValueError(f"capability {self.capability.name}: status {self.status} with reason {self.reason!r}")
        return self
