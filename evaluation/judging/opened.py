"""The analyst that the settings name, and what it cost."""

from collections.abc import Callable
from dataclasses import replace

from etils import epath

from evaluation.judging.report import Cost
from trace_jax.analysis import Analyst, make_analyst
from trace_jax.llm.accounting import TOTAL
from trace_jax.run_settings import RunSettings

CALLS = "model_calls.jsonl"
_LLM = "llm"


def with_endpoint(settings: RunSettings, url: str | None) -> RunSettings:
    """The settings, with the language model at ``url`` as their analyst if there is one."""
    if not url:
        return settings
    return replace(settings, analysis=replace(settings.analysis, analyst=_LLM), llm=replace(settings.llm, url=url))


def opener(settings: RunSettings) -> Callable[[epath.Path], Analyst]:
    """Opens the analyst for one source. A language model's calls are kept in the directory given."""

    def open_in(place: epath.Path) -> Analyst:
        return make_analyst(
            settings.analysis.analyst, analysis=settings.analysis, llm=settings.llm, record=place / CALLS
        )

    return open_in


def cost_of(analyst: Analyst, seconds: float) -> Cost:
    """What ``analyst`` used, its earlier starts included except for their time."""
    usage = getattr(getattr(analyst, "model", None), "usage", None)
    if usage is None:
        return Cost(seconds=seconds)
    total = usage()[TOTAL]
    return Cost(
        seconds=seconds,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        dollars=total.dollars,
    )
