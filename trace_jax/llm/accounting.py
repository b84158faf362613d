"""What the calls of a run used, by stage: as a table and as JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trace_jax.contract.llm import ModelCall

TOTAL = "all"
_HEADER = (
    "| stage | requests | failed | repairs | from file | prompt tokens | answer tokens | charged | dollars | s |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


@dataclass
class StageUsage:
    """Totals of one stage.

    Attributes:
        requests: that were sent, in all starts of the run.
        failed: of these, got no answer.
        repairs: of these, stated the faults of an earlier answer.
        from_file: further requests that this start answered from the file.
        charged_tokens: see ``ModelCall``.
        dollars: None if the price of any call is unknown.
    """

    requests: int = 0
    failed: int = 0
    repairs: int = 0
    from_file: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    charged_tokens: int = 0
    dollars: float | None = 0.0
    seconds: float = 0.0

    def add(self, call: ModelCall) -> None:
        """Count one call."""
        self.requests += 1
        self.failed += call.answer is None
        self.repairs += call.repair is not None
        if call.usage is not None:
            self.prompt_tokens += call.usage.prompt_tokens
            self.completion_tokens += call.usage.completion_tokens
        self.charged_tokens += call.charged_tokens
        self.dollars = None if self.dollars is None or call.dollars is None else self.dollars + call.dollars
        self.seconds += call.seconds


def usage_by_stage(calls: Iterable[ModelCall], from_file: Mapping[str, int]) -> dict[str, StageUsage]:
    """Totals of each stage, in the order of first calls, and last of ``all``. ``from_file`` counts by stage."""
    stages: dict[str, StageUsage] = {}
    total = StageUsage()
    for call in calls:
        stages.setdefault(call.stage, StageUsage()).add(call)
        total.add(call)
    for stage, count in from_file.items():
        stages.setdefault(stage, StageUsage()).from_file = count
        total.from_file += count
    return {**stages, TOTAL: total}


def usage_as_json(usage: Mapping[str, StageUsage]) -> dict[str, dict[str, Any]]:
    """The same for a file."""
    return {stage: asdict(found) for stage, found in usage.items()}


def usage_table(usage: Mapping[str, StageUsage]) -> str:
    """The same as a Markdown table."""
    return "\n".join([*_HEADER, *(_row(stage, found) for stage, found in usage.items())])


def _row(stage: str, found: StageUsage) -> str:
    dollars = "–" if found.dollars is None else f"{found.dollars:.4f}"
    numbers = (found.requests, found.failed, found.repairs, found.from_file, found.prompt_tokens)
    cells = (stage, *numbers, found.completion_tokens, found.charged_tokens, dollars, f"{found.seconds:.1f}")
    return f"| {' | '.join(map(str, cells))} |"
