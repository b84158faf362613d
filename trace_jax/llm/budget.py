"""A budget that is never exceeded: what a request could use is set aside before it is sent.

The bound of a request: a token has at least one byte, so its prompt has no more tokens than bytes, and what the chat
template adds, for which 64 tokens and 16 a message are set aside; its answer has at most ``llm.max_tokens`` tokens, or
without that setting ``llm.context_tokens``. An endpoint that counts more than that can exceed the budget by one round
of requests. A process that is killed forgets what was in flight.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from trace_jax.contract.llm import ModelCall
from trace_jax.llm.answer import TokenUsage
from trace_jax.llm.errors import BudgetSpent
from trace_jax.llm.settings import LanguageModelSettings

_FRAME, _MESSAGE_FRAME = 64, 16  # tokens that a chat template adds to a request and to each message
_MILLION = 1e6


@dataclass(frozen=True)
class Cost:
    """Tokens, and US dollars where the prices are known."""

    tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.dollars + other.dollars)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens - other.tokens, self.dollars - other.dollars)


class Charge:
    """What one request is charged.

    Attributes:
        bound: what one attempt could cost.
        cost: of all attempts so far.
    """

    def __init__(self, budget: "Budget", stage: str, bound: Cost) -> None:
        self._budget, self._stage, self.bound, self.cost = budget, stage, bound, Cost()

    def lose(self) -> None:
        """Charge an attempt whose tokens are unknown. Raises BudgetSpent if another one could exceed the budget."""
        self._add(self.bound)
        self._budget.check(self._stage, self.bound)

    def settle(self, usage: TokenUsage | None) -> None:
        """Charge the attempt that was answered; its bound if the endpoint did not count."""
        self._add(self.bound if usage is None else cost_of(self._budget.settings, usage))

    def _add(self, cost: Cost) -> None:
        self.cost += cost
        self._budget.spent += cost


class Budget:
    """The tokens and dollars of a run.

    Attributes:
        spent: by all calls so far, those on file included.
        dollars_known: whether both prices are set; without them all dollars are 0.
    """

    def __init__(self, settings: LanguageModelSettings, spent: Cost) -> None:
        self.settings, self.spent = settings, spent
        self._reserved, self._running = Cost(), 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def dollars_known(self) -> bool:
        return self.settings.prompt_price is not None and self.settings.completion_price is not None

    def bound(self, messages: Sequence[Mapping[str, Any]], form: Mapping[str, Any]) -> Cost:
        """What one attempt with ``messages`` and the JSON Schema ``form`` costs at most."""
        size = sum(len(message["content"].encode()) + _MESSAGE_FRAME for message in messages)
        prompt = _FRAME + size + len(json.dumps(form, ensure_ascii=False).encode())
        return cost_of(self.settings, TokenUsage(prompt, self.settings.max_tokens or self.settings.context_tokens))

    @asynccontextmanager
    async def charged(self, stage: str, bound: Cost) -> AsyncIterator[Charge]:
        """Sets ``bound`` aside while the block runs; waits as long as only requests in flight stand in the way.

        Raises BudgetSpent, which names ``stage``, if the rest of the budget is smaller.
        """
        self.check(stage, bound)
        while not self._fits(self._reserved + bound):
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
            self.check(stage, bound)
        self._reserved, self._running = self._reserved + bound, self._running + 1
        try:
            yield Charge(self, stage, bound)
        finally:
            self._running -= 1
            self._reserved = self._reserved - bound if self._running else Cost()  # no rounding is left over
            self._wake()

    def check(self, stage: str, bound: Cost) -> None:
        """Raise BudgetSpent if ``bound`` could exceed the budget."""
        if self._fits(bound):
            return
        settings, spent = self.settings, self.spent
        if settings.budget_tokens is not None and spent.tokens + bound.tokens > settings.budget_tokens:
            what = f"{settings.section}.budget_tokens is {settings.budget_tokens}: {spent.tokens} are spent, "
            more = f"{bound.tokens} tokens"
        else:
            what = f"{settings.section}.budget_dollars is {settings.budget_dollars:g}: {spent.dollars:.4f} are spent, "
            more = f"{bound.dollars:.4f} dollars"
        raise BudgetSpent(
            f"{what}and the next request, for {stage}, could use {more}: raise it and start again; answers are kept"
        )

    def _fits(self, more: Cost) -> bool:
        total, settings = self.spent + more, self.settings
        return (settings.budget_tokens is None or total.tokens <= settings.budget_tokens) and (
            settings.budget_dollars is None or total.dollars <= settings.budget_dollars
        )

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)


def charged_to(settings: LanguageModelSettings, call: ModelCall) -> Cost:
    """What a call on file was charged; at the prices of ``settings`` if it had none."""
    if call.dollars is not None or call.usage is None:
        return Cost(call.charged_tokens, call.dollars or 0.0)
    usage = TokenUsage(call.usage.prompt_tokens, call.usage.completion_tokens)
    return Cost(call.charged_tokens, cost_of(settings, usage).dollars)


def cost_of(settings: LanguageModelSettings, usage: TokenUsage) -> Cost:
    """Tokens and dollars of ``usage``; 0 dollars without prices."""
    dollars = usage.prompt_tokens * (settings.prompt_price or 0) + usage.completion_tokens * (
        settings.completion_price or 0
    )
    return Cost(usage.prompt_tokens + usage.completion_tokens, dollars / _MILLION)
