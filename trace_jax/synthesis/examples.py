"""What a designer is shown of the base's episodes: pages of failed and passed ones, the policy, results of tools."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trace_jax.contract.trajectory import Trajectory
from trace_jax.synthesis.kinds import Evidence

Page = Callable[[Trajectory], str]  # an episode as a text that a language model can read

FAILED, PASSED = 4, 2  # episodes that are shown
RESULTS = 3  # different results of each tool
PAGE_CHARACTERS, RESULT_CHARACTERS = 6000, 600
_CUT = "\n[…]\n"


@dataclass(frozen=True)
class Examples:
    """Texts from the base's episodes.

    Attributes:
        policy: the system message of the target; empty if it has none.
        failed: pages of failed episodes in which the capability is lacking.
        passed: pages of passed episodes in which the same tools are called.
        results: results of each tool, the shortest first.
    """

    policy: str = ""
    failed: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    results: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def examples_of(evidence: Evidence, page: Page) -> Examples:
    """The examples in ``evidence``, each cut to a bounded length."""
    graded = [episode for episode in evidence.episodes if not episode.broken]
    failed = [episode for episode in graded if episode.id in evidence.lacking][:FAILED]
    passed = _alike([episode for episode in graded if episode.passed], failed)[:PASSED]
    return Examples(
        policy=next((m.content or "" for e in graded for m in e.messages if m.role == "system"), ""),
        failed=tuple(shortened(page(episode), PAGE_CHARACTERS) for episode in failed),
        passed=tuple(shortened(page(episode), PAGE_CHARACTERS) for episode in passed),
        results=_results(graded),
    )


def shortened(text: str, most: int) -> str:
    """``text``, without its middle if it is longer than ``most`` characters: the ends tell what decides."""
    if len(text) <= most:
        return text
    half = (most - len(_CUT)) // 2
    return text[:half] + _CUT + text[-half:]


def _alike(passed: Sequence[Trajectory], failed: Sequence[Trajectory]) -> list[Trajectory]:
    """The ``passed`` episodes, those of the ``failed`` ones' tasks first, then those with the same tools."""
    tasks, tools = {episode.task for episode in failed}, {name for episode in failed for name in _called(episode)}
    return sorted(passed, key=lambda episode: (episode.task not in tasks, -len(tools & _called(episode))))


def _called(episode: Trajectory) -> set[str]:
    return {call.name for message in episode.messages for call in message.tool_calls}


def _results(episodes: Sequence[Trajectory]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for episode in episodes:
        names = {call.id: call.name for message in episode.messages for call in message.tool_calls}
        for message in episode.messages:
            name = names.get(message.tool_call_id or "")
            if message.role == "tool" and name is not None and message.content:
                found.setdefault(name, {})[shortened(message.content, RESULT_CHARACTERS)] = None
    return {name: tuple(sorted(texts, key=len)[:RESULTS]) for name, texts in sorted(found.items())}
