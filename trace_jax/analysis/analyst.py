"""What an analyst does: it proposes capabilities and labels trajectories with them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from trace_jax.analysis.rules_analyst import RulesAnalyst
from trace_jax.contract.capability import Candidates, LabelRun
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError


class Analyst(Protocol):
    """Proposes a dictionary of capabilities once, then labels trajectories with it in independent runs.

    ``label`` gives exactly one label to every pair of a sampled trajectory and a candidate, the same for the same seed.
    Neither may see broken or held-out trajectories.
    """

    name: str

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates: ...

    def label(self, trajectories: Sequence[Trajectory], candidates: Candidates, run: int, seed: int) -> LabelRun: ...


_ANALYSTS: dict[str, Callable[[], Analyst]] = {"rules": RulesAnalyst}


def make_analyst(name: str) -> Analyst:
    """The analyst registered under ``name``. Raises UserError for one that this build does not have."""
    if name == "llm":
        raise UserError("analyst 'llm': not in this build, which has no client for language models; use 'rules'")
    if name not in _ANALYSTS:
        raise UserError(f"analyst {name!r}: unknown; use {' or '.join(sorted(_ANALYSTS))}")
    return _ANALYSTS[name]()
