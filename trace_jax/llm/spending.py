"""What requests to a language model have used."""

from dataclasses import asdict, dataclass

from trace_jax.llm.answer import TokenUsage
from trace_jax.llm.settings import LanguageModelSettings

_MILLION = 1e6


@dataclass
class Spending:
    """Totals. Answers whose tokens the endpoint did not count are ``unknown``: they add nothing to the tokens.

    Attributes:
        answers: requests that were answered.
        retries: attempts beyond the first of each request.
        failures: requests that were given up.
    """

    answers: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unknown: int = 0

    def add(self, usage: TokenUsage | None) -> None:
        """Count one answer."""
        self.answers += 1
        if usage is None:
            self.unknown += 1
            return
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens

    def dollars(self, settings: LanguageModelSettings) -> float | None:
        """US dollars for the tokens counted, a lower bound if answers are ``unknown``. None without both prices."""
        if settings.prompt_price is None or settings.completion_price is None:
            return None
        tokens = self.prompt_tokens * settings.prompt_price + self.completion_tokens * settings.completion_price
        return tokens / _MILLION

    def as_json(self, settings: LanguageModelSettings) -> dict[str, float | int | str | None]:
        """All totals, the model and the dollars, for a record."""
        return {"model": settings.model, **asdict(self), "dollars": self.dollars(settings)}
