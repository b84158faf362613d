"""What an analyst does: it proposes capabilities and labels trajectories with them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from trace_jax.analysis.settings import AnalysisSettings
from trace_jax.contract.capability import Candidates, LabelRun
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.registry import Registry


class Analyst(Protocol):
    """Proposes a dictionary of capabilities once, then labels trajectories with it in independent runs.

    ``label`` gives exactly one label to every pair of a sampled trajectory and a candidate, the same for the same seed.
    Neither may see broken or held-out trajectories.
    """

    name: str

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates: ...

    def label(self, trajectories: Sequence[Trajectory], candidates: Candidates, run: int, seed: int) -> LabelRun: ...


@runtime_checkable
class ConcurrentAnalyst(Analyst, Protocol):
    """An analyst that makes several label runs at once: those that ``label`` would make, in the order given."""

    def label_runs(
        self, trajectories: Sequence[Trajectory], candidates: Candidates, runs: Sequence[int], seed: int
    ) -> Sequence[LabelRun]: ...


ANALYSTS = Registry(
    "analyst",
    "trace_jax.analysts",
    {
        "llm": "trace_jax.analysis.llm.analyst:LanguageModelAnalyst",
        "rules": "trace_jax.analysis.rules_analyst:RulesAnalyst",
    },
    ("discover", "label"),
)


def make_analyst(
    name: str,
    *,
    analysis: AnalysisSettings | None = None,
    llm: LanguageModelSettings | None = None,
    record: PathLike | None = None,
) -> Analyst:
    """The analyst called ``name``. Raises UserError, with the known names, if there is none.

    The rest is for ``llm`` alone, whose requests and answers are kept in the file ``record``. Raises UserError if the
    settings name no endpoint.
    """
    if name == "llm":
        from trace_jax.analysis.llm.analyst import open_analyst  # here: it needs this module

        return open_analyst(analysis or AnalysisSettings(), llm or LanguageModelSettings(), record)
    analyst: Analyst = ANALYSTS.make(name)
    return analyst
