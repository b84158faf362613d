"""Requests to the model: a prompt that is too long is made again of shorter pages."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel

from trace_jax.llm.errors import PromptTooLong
from trace_jax.llm.prompts import Prompt
from trace_jax.llm.structured import StructuredModel

T = TypeVar("T", bound=BaseModel)

_SECONDS = 10.0  # between two lines of progress
_SCALES = (1.0, 0.5, 0.25, 0.125)  # of the tokens that are meant for a page

log = logging.getLogger(__name__)


class Answered:
    """Logs how many of the ``total`` requests of a stage are answered, every ten seconds and at the end."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total, self.count = stage, total, 0
        self._last = time.monotonic()

    def add(self) -> None:
        """One more."""
        self.count += 1
        if self.count == self.total or time.monotonic() - self._last >= _SECONDS:
            self._last = time.monotonic()
            log.info("%s: %d of %d requests are answered", self.stage, self.count, self.total)


def no_faults(answer: object) -> Sequence[str]:
    """Every answer that fits its form is right."""
    return ()


async def ask(
    model: StructuredModel,
    build: Callable[[float], Prompt],
    form: type[T],
    *,
    stage: str,
    seed: int,
    check: Callable[[T], Sequence[str]] = no_faults,
) -> T:
    """The answer to ``build(1.0)``; to a prompt of shorter pages if the model's context does not hold it.

    Raises PromptTooLong if pages of an eighth of their tokens are too long as well, and whatever ``model.ask`` raises.
    """
    for scale in _SCALES[:-1]:
        try:
            return await model.ask(build(scale), form, stage=stage, seed=seed, check=check)
        except PromptTooLong as error:
            log.warning("%s; the pages are compacted to %g %% of their tokens", error, 50 * scale)
    return await model.ask(build(_SCALES[-1]), form, stage=stage, seed=seed, check=check)
