"""What the designer will need: the fewest and the most requests and tokens, before any is sent.

The first request of each capability is made as it will be. What later requests and answers hold is assumed: see the
constants. A repair of an answer repeats its request with the answer, and comes on top.
"""

from collections.abc import Callable, Sequence

from trace_jax.llm.prompts import prompt
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.synthesis.calibration import Window
from trace_jax.synthesis.designer import Brief
from trace_jax.synthesis.llm.designer import PACKAGE
from trace_jax.synthesis.llm.values import prompt_values
from trace_jax.synthesis.settings import SynthesisSettings

ANSWER_TOKENS = 4500  # a module of 240 lines in JSON, its plan and its knobs
FINDINGS_TOKENS = 300  # what is told of each attempt
EPISODE_TOKENS = 2000  # the page of an episode in the last environment

_HEADER = ("| designs | requests | prompt tokens | answer tokens | dollars |", "|---|---|---|---|---|")
_MILLION = 1e6


def estimate(
    briefs: Sequence[Brief], settings: SynthesisSettings, llm: LanguageModelSettings, count: Callable[[str], int]
) -> str:
    """A Markdown table: if every first design is accepted, and if every round of every candidate is a new module.

    ``count`` counts the tokens of a text.
    """
    first = [first_prompt_tokens(brief, count) for brief in briefs]
    rows, most = [], 0
    for what, rounds in (("first ones accepted", 1), ("a new module in every round", settings.max_rounds)):
        requests = len(briefs) * settings.candidates * rounds
        prompts = settings.candidates * sum(_prompts(size, rounds) for size in first)
        answers = requests * ANSWER_TOKENS
        most = prompts + answers
        rows.append(f"| {what} | {requests} | {prompts} | {answers} | {_dollars(prompts, answers, llm)} |")
    lines = [*_HEADER, *rows, "", f"The longest first prompt has about {max(first)} tokens."]
    if llm.budget_tokens is not None and most > llm.budget_tokens:
        lines.append(f"The most is more than llm.budget_tokens, {llm.budget_tokens}: the synthesis may stop before.")
    return "\n".join(lines)


def first_prompt_tokens(brief: Brief, count: Callable[[str], int]) -> int:
    """Tokens of the first request for ``brief``."""
    made = prompt(PACKAGE, "design", **prompt_values(brief, (), Window()))
    return sum(count(message["content"]) for message in made.messages)


def _prompts(first: int, rounds: int) -> int:
    """Tokens of the prompts of one candidate in so many rounds."""
    again = first + ANSWER_TOKENS + EPISODE_TOKENS
    return first + sum(again + FINDINGS_TOKENS * attempts for attempts in range(1, rounds))


def _dollars(prompts: int, answers: int, llm: LanguageModelSettings) -> str:
    if llm.prompt_price is None or llm.completion_price is None:
        return "–"
    return f"{(prompts * llm.prompt_price + answers * llm.completion_price) / _MILLION:.2f}"
