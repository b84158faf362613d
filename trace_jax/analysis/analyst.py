"""What an analyst does: it proposes capabilities and labels trajectories with them."""

from collections.abc import Sequence
from typing import Protocol

from trace_jax.contract.capability import Candidates, LabelRun
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError
from trace_jax.registry import Registry


class Analyst(Protocol):
    """Proposes a dictionary of capabilities once, then labels trajectories with it in independent runs.

    ``label`` gives exactly one label to every pair of a sampled trajectory and a candidate, the same for the same seed.
    Neither may see broken or held-out trajectories.
    """

    name: str

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates: ...

    def label(self, trajectories: Sequence[Trajectory], candidates: Candidates, run: int, seed: int) -> LabelRun: ...


ANALYSTS = Registry(
    "analyst",
    "trace_jax.analysts",
    {"rules": "trace_jax.analysis.rules_analyst:RulesAnalyst"},
    ("discover", "label"),
)


def make_analyst(name: str) -> Analyst:
    """The analyst called ``name``. Raises UserError, with the known names, if there is none."""
    if name == "llm":
        raise UserError("analyst 'llm': not in this build, which has no client for language models; use 'rules'")
    analyst: Analyst = ANALYSTS.make(name)
    return analyst
