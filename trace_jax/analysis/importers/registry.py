"""Importers by the format that they read.

An importer is a function of ``SourceSettings``, which name the file, that returns trajectories:

    def load(source: SourceSettings) -> Sequence[Trajectory]: ...
"""

from trace_jax.analysis.importers import tau2_bench, tau_bench
from trace_jax.analysis.settings import SourceSettings
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError
from trace_jax.registry import Registry

IMPORTERS = Registry(
    "importer",
    "trace_jax.importers",
    {name: f"{__name__}:read_{name}" for name in ("trajectories", "tau_bench", "tau2_bench")},
)


def read_with(source: SourceSettings) -> tuple[Trajectory, ...]:
    """The episodes of ``source.path``, read by the importer ``source.format``.

    Raises UserError for an importer that does not exist, and for one that returns anything but trajectories.
    """
    found = tuple(IMPORTERS.find(source.format)(source))
    strange = [episode for episode in found if not isinstance(episode, Trajectory)]
    if strange:
        raise UserError(
            f"importer {source.format!r}: it returned a {type(strange[0]).__name__}: an importer returns trajectories"
        )
    return found


def read_trajectories(source: SourceSettings) -> tuple[Trajectory, ...]:
    """Our own JSON Lines file."""
    return read_episodes(source.path)


def read_tau_bench(source: SourceSettings) -> tuple[Trajectory, ...]:
    """A result file of τ-bench, which names neither domain nor model."""
    return tau_bench.load(source.path, source.domain, source.model)


def read_tau2_bench(source: SourceSettings) -> tuple[Trajectory, ...]:
    """A result file or directory of τ²-bench."""
    return tau2_bench.load(source.path)
