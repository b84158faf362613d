"""What became of each capability in stage 2, as a table: why, and what it cost."""

from collections.abc import Sequence
from pathlib import Path

from trace_jax.contract.capability import SelectedCapability
from trace_jax.contract.environment import DesignAttempt, EnvironmentManifest, attempts_path
from trace_jax.contract.files import read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.llm.accounting import StageUsage, usage_by_stage
from trace_jax.pipeline.environments import Made
from trace_jax.synthesis.llm.designer import stage_of

_HEADER = (
    "| capability | outcome | designs | rollouts | requests | tokens | dollars | why |",
    "|---|---|---|---|---|---|---|---|",
)


def outcome_table(selected: Sequence[SelectedCapability], made: Sequence[Made], calls: Path) -> str:
    """A Markdown table with a row for each of the ``selected`` capabilities and what was ``made`` of it.

    ``calls`` is the file of the language model's requests, if there is one.
    """
    usage = usage_by_stage(read_records(calls, ModelCall), {}) if calls.exists() else {}
    rows = []
    for capability, outcome in zip(selected, made, strict=True):
        name = capability.capability.name
        spent = usage.get(stage_of(name), StageUsage())
        what, designs, why = _told(outcome, calls.parent)
        tokens = spent.prompt_tokens + spent.completion_tokens
        dollars = "–" if spent.dollars is None else f"{spent.dollars:.4f}"
        cells = (name, what, designs, outcome.rollouts, spent.requests, tokens, dollars, why.replace("|", "/"))
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*_HEADER, *rows])


def _told(outcome: Made, directory: Path) -> tuple[str, str, str]:
    """What became of it, how many designs were tried, and why. ``directory`` holds the attempts of FAILED ones."""
    if isinstance(outcome, EnvironmentManifest):
        found = outcome.calibration
        fits = "" if found is None else f"mean reward {found.mean_reward:.2f}, success rate {found.success_rate:.2f}"
        return "accepted", str(len(outcome.attempts)), fits
    if isinstance(outcome, SelectedCapability):
        attempts = attempts_path(directory, outcome.capability.name)
        tried = len(list(read_records(attempts, DesignAttempt))) if attempts.exists() else 0
        return "FAILED", str(tried), outcome.reason
    return "waits", "–", outcome.reason
