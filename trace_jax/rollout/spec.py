"""Which episodes are played."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trace_jax.contract.trajectory import Split
from trace_jax.engines.protocol import Sampling
from trace_jax.environments.host import Host
from trace_jax.environments.protocol import Task


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """Which episode to play. ``host`` opens a new environment, whose ``reset`` gets ``seed``.

    ``task`` names the task in the trajectory. ``sampling.max_tokens`` bounds one turn.

    ``adapter`` may be a function. It is called at the start and before each turn, so that a long episode goes on with
    newer versions of an adapter.
    """

    id: str
    host: Host
    target: str
    task: str
    split: Split
    seed: Task
    trial: int
    sampling: Sampling
    adapter: str | None | Callable[[], str | None] = None

    def next_adapter(self) -> str | None:
        """The adapter of the next turn."""
        return self.adapter() if callable(self.adapter) else self.adapter

    def extra(self, told: dict[str, Any]) -> dict[str, Any]:
        """What has no field of a trajectory: what the environment tells, and the target's version if there is one."""
        return told if self.host.version is None else {**told, "target_version": self.host.version}


def turn_seed(seed: int, turn: int) -> int:
    """The sampling seed of a turn, in [0, 2^31). Turns of one episode must not share random numbers."""
    return zlib.crc32(f"{seed}/{turn}".encode()) & 0x7FFFFFFF
