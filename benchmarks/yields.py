"""How many designs each gate refused, in work directories, and what the designs cost."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trace_jax.contract.capability import SelectedCapability
from trace_jax.contract.environment import Attempt, DesignAttempt, EnvironmentManifest, attempts_path, calibration_path
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import read_document, read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.errors import UserError
from trace_jax.synthesis.llm.designer import stage_of

ENVIRONMENTS, CALLS, FAILED = "environments", "model_calls.jsonl", ".failed.json"


@dataclass
class Yield:
    """What became of the designs for one capability.

    Attributes:
        outcome: "accepted" or "failed".
        rounds: rounds of design; ``designs`` those that went through the gates.
        unusable: answers of the designer that held no design which could be tried.
        refused: how many designs each gate refused.
        off: designs that passed the gates and missed the window of the calibration.
        rollouts: of calibrations.
        sampled: tokens that the base sampled in them.
        asked: tokens of the language model that designed, prompts and answers.
    """

    source: str
    capability: str
    outcome: str
    rounds: int
    designs: int
    unusable: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    off: int = 0
    rollouts: int = 0
    sampled: int = 0
    asked: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def yields_of(workdir: Path) -> list[Yield]:
    """A row for each capability of a work directory. Raises UserError if it holds no environments."""
    directory = workdir / ENVIRONMENTS if (workdir / ENVIRONMENTS).is_dir() else workdir
    found = list(_rows(directory, str(workdir)))
    if not found:
        raise UserError(f"{directory}: no manifest and no NAME{FAILED} of an environment: give a work directory")
    return found


def refused_by(attempts: Iterable[Attempt]) -> Counter[str]:
    """How many of the designs each gate refused."""
    return Counter(check.name for attempt in attempts for check in attempt.gates if not check.passed)


def _rows(directory: Path, source: str) -> Iterator[Yield]:
    for path in sorted(directory.glob("*.json")):
        name = path.name.removesuffix(FAILED).removesuffix(".json")
        if path.name.endswith(FAILED):
            lost, kept = read_document(path, SelectedCapability), attempts_path(directory, name)
            records = read_records(kept, DesignAttempt) if kept.exists() else ()
            row = _counted(source, name, "failed", [record.attempt for record in records], lost.rollouts)
        else:
            manifest = read_document(path, EnvironmentManifest)
            row = _counted(source, name, "accepted", manifest.attempts, manifest.rollouts)
        played = calibration_path(directory, name)
        if played.exists():
            row.sampled = sum(episode.usage.completion_tokens for episode in read_episodes(played))
        row.asked = _asked(directory / CALLS, name)
        yield row


def _counted(source: str, name: str, outcome: str, attempts: Sequence[Attempt], rollouts: int) -> Yield:
    tried = [attempt for attempt in attempts if attempt.gates]
    return Yield(
        source,
        name,
        outcome,
        rounds=len({attempt.round for attempt in attempts}),
        designs=len(tried),
        unusable=sum(attempt.verdict == "no design" for attempt in attempts),
        refused=refused_by(tried),
        off=sum(attempt.verdict in ("too easy", "too hard", "broken") for attempt in tried),
        rollouts=rollouts,
    )


def _asked(path: Path, capability: str) -> int:
    """The tokens of all requests for a capability."""
    if not path.exists():
        return 0
    calls = [call for call in read_records(path, ModelCall) if call.stage == stage_of(capability)]
    return sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in calls if call.usage is not None)
