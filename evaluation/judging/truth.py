"""Episodes, and what is known of why they failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trace_jax.contract.trajectory import Trajectory

Episodes = frozenset[str]  # ids


@dataclass(frozen=True)
class Truth:
    """Episodes whose failures have known causes. An analyst sees the ``trajectories`` alone.

    Attributes:
        name: of the source, such as ``bank``.
        seed: of its draw.
        faults: by fault of the agent, the failed episodes in which it cost something.
        absent: by skill that the agent has, or habit that costs nothing, the failed episodes in which it occurred.
        judged: the failed episodes about which the truth says something. A label elsewhere is neither right nor wrong.
        categories: by judged episode, what people call its root cause; empty if the truth is planted.
    """

    name: str
    seed: int
    trajectories: tuple[Trajectory, ...]
    faults: Mapping[str, Episodes]
    absent: Mapping[str, Episodes]
    judged: Episodes
    categories: Mapping[str, str] = field(default_factory=dict)


def failed_episodes(trajectories: tuple[Trajectory, ...]) -> Episodes:
    """The ids of the episodes that were graded and did not pass."""
    return frozenset(episode.id for episode in trajectories if not episode.broken and not episode.passed)
