"""The analyst that asks a language model. It is synchronous outside; its requests run concurrently."""

import asyncio
from collections.abc import Sequence

from trace_jax.analysis.llm.dictionary import KNOWN
from trace_jax.analysis.llm.discovery import discover
from trace_jax.analysis.llm.labeling import LABEL, label, plan_labeling
from trace_jax.analysis.llm.pages import make_pages
from trace_jax.analysis.llm.requests import Answered
from trace_jax.analysis.llm.samples import samples
from trace_jax.analysis.settings import AnalysisSettings
from trace_jax.contract.capability import Candidates, LabelRun
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError
from trace_jax.llm.model import LanguageModel
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.llm.structured import StructuredModel


class LanguageModelAnalyst:
    """Proposes and labels capabilities by what a language model answers.

        analyst = open_analyst(AnalysisSettings(analyst="llm"), LanguageModelSettings(url=…, model=…), "calls.jsonl")

    Every answer is checked: evidence has to exist, and each pair has to be labelled once. Two distractors, skills that
    agents hardly ever lack, stand in each dictionary; a model that finds them lacking labels by the outcome. Answers
    are read from the record of ``model`` where it has them, so that a second start costs nothing.

    Raises UserError when a budget would be exceeded, and LLMError when the endpoint fails.
    """

    name = "llm"

    def __init__(self, model: StructuredModel, analysis: AnalysisSettings, llm: LanguageModelSettings) -> None:
        self.model, self._analysis, self._llm = model, analysis, llm
        self._pages = make_pages(analysis, llm)

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates:
        """At most ten candidates and the distractors. Nothing is asked unless some episodes failed and some passed."""
        passed = sum(trajectory.passed for trajectory in trajectories)
        if passed in (0, len(trajectories)):
            return Candidates(analyst=self.name, capabilities=())
        chosen = samples(trajectories, self._analysis.passes, self._pages.sample_size)
        found = asyncio.run(discover(self.model, chosen, self._pages))
        return Candidates(
            analyst=self.name,
            capabilities=tuple(capability.candidate() for capability in found.capabilities),
            distractors=KNOWN if found.capabilities else (),
            evidence={capability.name: capability.evidence for capability in found.capabilities},
            left_out=dict(found.left_out),
        )

    def label(self, trajectories: Sequence[Trajectory], candidates: Candidates, run: int, seed: int) -> LabelRun:
        """Label every pair, in an order of episodes and capabilities that ``seed`` and ``run`` draw."""
        return self.label_runs(trajectories, candidates, [run], seed)[0]

    def label_runs(
        self, trajectories: Sequence[Trajectory], candidates: Candidates, runs: Sequence[int], seed: int
    ) -> tuple[LabelRun, ...]:
        """Several runs at once. None of them sees another one's labels."""
        return asyncio.run(self._label_runs(trajectories, candidates, runs, seed))

    async def _label_runs(
        self, trajectories: Sequence[Trajectory], candidates: Candidates, runs: Sequence[int], seed: int
    ) -> tuple[LabelRun, ...]:
        limit = asyncio.Semaphore(self._llm.concurrency)
        plans = [plan_labeling(trajectories, candidates, self._pages, run=run, seed=seed) for run in runs]
        answered = Answered(LABEL, sum(len(plan.batches) for plan in plans))
        return tuple(
            await asyncio.gather(
                *(label(self.model, plan, trajectories, self._pages, limit=limit, answered=answered) for plan in plans)
            )
        )


def open_analyst(
    analysis: AnalysisSettings, llm: LanguageModelSettings, record: PathLike | None
) -> LanguageModelAnalyst:
    """The analyst that asks the endpoint of ``llm``, and keeps each request with its answer in the file ``record``.

    Raises UserError if ``llm`` names no endpoint and is no replay.
    """
    if not (llm.url or llm.replay):
        raise UserError(
            "analysis.analyst is llm, and there is no endpoint: set --config.llm.url=http://HOST:PORT/v1 and "
            f"--config.llm.model=NAME, and the API key in ${llm.api_key_variable} if the endpoint wants one; or use "
            "--config.analysis.analyst=rules, which needs none"
        )
    return LanguageModelAnalyst(StructuredModel(LanguageModel(llm), record=record, replay=llm.replay), analysis, llm)
