"""What an analysis will ask, before anything is asked: requests and tokens by stage.

The prompts for discovery and labels are made as they will be, with a dictionary of ten assumed capabilities. Sizes of
answers are assumed: see the constants. Repairs, second questions and prompts that are too long come on top.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trace_jax.analysis.llm.dictionary import KNOWN, MERGE, Found, merge_prompt
from trace_jax.analysis.llm.discovery import DISCOVER, discovery_prompt
from trace_jax.analysis.llm.forms import MOST_CAPABILITIES
from trace_jax.analysis.llm.labeling import LABEL, label_prompt, plan_labeling
from trace_jax.analysis.llm.pages import Pages, labelled, make_pages
from trace_jax.analysis.llm.samples import samples
from trace_jax.analysis.settings import AnalysisSettings
from trace_jax.contract.capability import Candidate, Candidates
from trace_jax.contract.trajectory import Trajectory
from trace_jax.llm.prompts import Prompt
from trace_jax.llm.settings import LanguageModelSettings

_DESCRIPTION = "When it is needed, what shows it, and what counts as lacking it, in two or three sentences. " * 3
_PROPOSALS = 5  # capabilities of one sample
_PROPOSAL_TOKENS, _MERGED_TOKENS, _LABEL_TOKENS = 250, 120, 35  # of an answer, for each item

_HEADER = ("| stage | requests | prompt tokens | answer tokens |", "|---|---|---|---|")
_MILLION = 1e6


@dataclass(frozen=True)
class Estimate:
    """What one stage asks. ``longest`` is the largest prompt, in tokens."""

    stage: str
    requests: int
    prompt_tokens: int
    answer_tokens: int
    longest: int


def estimate(
    trajectories: Sequence[Trajectory], analysis: AnalysisSettings, llm: LanguageModelSettings, seed: int
) -> list[Estimate]:
    """The stages in order. ``trajectories`` are graded ones, some failed and some passed."""
    pages = make_pages(analysis, llm)
    chosen = [labelled(sample) for sample in samples(trajectories, analysis.passes, pages.sample_size)]
    found = [_size(discovery_prompt(sample, pages), pages) for sample in chosen]
    stages = [_stage(DISCOVER, found, len(chosen) * _PROPOSALS * _PROPOSAL_TOKENS)]
    if len(chosen) > 1:
        proposed = [Found("an_assumed_capability", _DESCRIPTION, ())] * (len(chosen) * _PROPOSALS)
        stages.append(_stage(MERGE, [_size(merge_prompt(proposed), pages)], MOST_CAPABILITIES * _MERGED_TOKENS))
    assumed = [
        Candidate(name=f"assumed_capability_{number}", description=_DESCRIPTION) for number in range(MOST_CAPABILITIES)
    ]
    candidates = Candidates(analyst="llm", capabilities=tuple(assumed), distractors=KNOWN)
    plan = plan_labeling(trajectories, candidates, pages, run=0, seed=seed)
    sizes = [_size(label_prompt(batch, plan.capabilities, pages), pages) for batch in plan.batches]
    labels = len(trajectories) * len(candidates.all) * analysis.runs
    return [*stages, _stage(LABEL, sizes * analysis.runs, labels * _LABEL_TOKENS)]


def estimate_table(stages: Sequence[Estimate], llm: LanguageModelSettings) -> str:
    """The estimate as a Markdown table, its sum, and the cost where the prices are known."""
    requests, prompts, answers = (
        sum(counts) for counts in zip(*((s.requests, s.prompt_tokens, s.answer_tokens) for s in stages), strict=True)
    )
    rows = [f"| {s.stage} | {s.requests} | {s.prompt_tokens} | {s.answer_tokens} |" for s in stages]
    lines = [*_HEADER, *rows, f"| all | {requests} | {prompts} | {answers} |", ""]
    lines.append(f"The longest prompt has about {max(s.longest for s in stages)} tokens.")
    if llm.prompt_price is not None and llm.completion_price is not None:
        dollars = (prompts * llm.prompt_price + answers * llm.completion_price) / _MILLION
        lines.append(f"About {dollars:.2f} US dollars.")
    if llm.budget_tokens is not None and prompts + answers > llm.budget_tokens:
        lines.append(
            f"This is more than llm.budget_tokens, {llm.budget_tokens}: the analysis would stop before its end."
        )
    return "\n".join(lines)


def _size(prompt: Prompt, pages: Pages) -> int:
    return sum(pages.count(message["content"]) for message in prompt.messages)


def _stage(name: str, sizes: Sequence[int], answer_tokens: int) -> Estimate:
    return Estimate(name, len(sizes), sum(sizes), answer_tokens, max(sizes, default=0))
