"""The JSON report on an analyst."""

from trace_jax.contract.capability import Interval
from trace_jax.contract.record import Part, Record


class FaultScore(Part):
    """What became of one fault. ``capability`` is the best one selected, ``proposed`` the best of all candidates."""

    fault: str
    episodes: int  # failed ones that have it
    found: bool
    capability: str | None
    precision: float
    coverage: float
    proposed: str | None
    proposed_precision: float
    proposed_coverage: float


class SelectedScore(Part):
    """What a selected capability stands for: a fault, or something that the agent does not lack. None: no one thing."""

    capability: str
    stands_for: str | None
    right: bool
    precision: float
    coverage: float


class NamedAgreement(Part):
    """Failures judged by people that are marked by a skill which the table of categories gives for their root cause."""

    hits: int
    failures: int  # whose root cause is a lapse of the agent
    share: Interval
    by_chance: float  # share if the root causes were dealt out at random among all judged failures


class Blamed(Part):
    """Failures whose root cause, people say, is no lapse of the agent, and those ``marked`` by some candidate."""

    marked: int
    failures: int


class Cost(Part):
    """What the analyst used. Tokens are None for an analyst that asks no language model, dollars without prices."""

    seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    dollars: float | None = None


class SourceScore(Record):
    """An analyst on the episodes of one source."""

    source: str
    seed: int
    episodes: str  # their content, as ``analysis/source.json`` has it
    passed: int
    failed: int
    judged: int
    faults: tuple[FaultScore, ...]
    selected: tuple[SelectedScore, ...]
    distractors: tuple[str, ...]  # that were selected
    rejected_runs: int
    agreement_of_runs: float | None  # mean Krippendorff alpha of the candidates
    agreement_with_truth: Interval | None  # alpha over (fault, judged failed episode), the best selected for each fault
    named: NamedAgreement | None = None  # for people's labels
    blamed: Blamed | None = None  # for people's labels
    cost: Cost


class AnalystReport(Record):
    """An analyst on all sources. Shares are over all faults, or all selected capabilities, of the planted sources."""

    analyst: str
    model: str | None
    runs: int
    sources: tuple[SourceScore, ...]
    recall: Interval | None
    precision: Interval | None
    cost: Cost
