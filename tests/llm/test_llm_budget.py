"""A budget stops the run before it is exceeded, and what is on file counts."""

import asyncio
from pathlib import Path

import pytest
from asked_models import Verdict, ask, good, hello, model_of, on_file
from scripted_endpoint import Endpoint, raw, refusal

from trace_jax.errors import UserError
from trace_jax.llm import BudgetSpent, LanguageModel, LanguageModelSettings, StructuredModel
from trace_jax.llm.answer import TokenUsage
from trace_jax.llm.budget import Budget, Cost


def bound(served: Endpoint, text: str = "hello", **changes: object) -> int:
    """The bound of the first request, as a budget of one token names it."""
    with pytest.raises(BudgetSpent) as raised:
        ask(model_of(served, budget_tokens=1, max_tokens=50, **changes), text)
    return int(str(raised.value).partition("could use ")[2].split()[0])


def test_the_bound_is_bytes_and_the_limit_of_an_answer(served: Endpoint) -> None:
    small, large = bound(served), bound(served, "é" * 100)
    assert large - small == 200 - len("hello") and small > 50 + len("hello")
    with pytest.raises(BudgetSpent, match=r"^llm\.budget_tokens is 1: 0 are spent, and the next request, for judge, "):
        ask(model_of(served, budget_tokens=1))
    assert not served.bodies


def test_a_run_stops_before_the_budget_and_goes_on_with_a_larger_one(served: Endpoint, tmp_path: Path) -> None:
    limit = bound(served)
    record = tmp_path / "calls.jsonl"
    served.reply = lambda body: good(usage=(100, 10))

    def run(budget: int) -> StructuredModel:
        model = model_of(served, record, max_tokens=50, budget_tokens=budget)
        for seed in range(6):
            ask(model, seed=seed)
        return model

    with pytest.raises(BudgetSpent, match=r"220 are spent"):
        run(limit + 110 + 109)
    assert len(served.bodies) == 2
    with pytest.raises(BudgetSpent, match=r"330 are spent"):
        run(limit + 220)
    assert len(served.bodies) == 3
    assert run(limit + 550).usage()["all"].charged_tokens == 660
    assert len(served.bodies) == 6


def test_dollars_are_bounded_as_well(served: Endpoint) -> None:
    served.reply = lambda body: good(usage=(100, 10))
    prices = {"prompt_price": 1000.0, "completion_price": 2000.0, "max_tokens": 50}
    model = model_of(served, budget_dollars=1.0, **prices)
    spent = 0.0
    with pytest.raises(BudgetSpent, match=r"^llm\.budget_dollars is 1: 0\.\d{4} are spent, .* dollars: raise it"):
        for seed in range(20):
            ask(model, seed=seed)
            spent += 0.12
    assert 0 < spent < 1
    with pytest.raises(UserError, match=r"llm\.budget_dollars is 1 and the prices are unknown"):
        LanguageModelSettings(budget_dollars=1.0, prompt_price=1.0)


def test_requests_at_one_time_wait_for_one_another_and_never_exceed_it(served: Endpoint) -> None:
    limit = bound(served)
    served.delay = 0.02
    served.reply = lambda body: good(usage=(100, 10))
    model = model_of(served, max_tokens=50, budget_tokens=2 * limit + 1000)

    async def many() -> list[object]:
        asks = [model.ask(hello(), Verdict, stage="judge", seed=seed) for seed in range(60)]
        return await asyncio.gather(*asks, return_exceptions=True)

    found = asyncio.run(many())
    answered = sum(isinstance(value, Verdict) for value in found)
    assert all(isinstance(value, Verdict | BudgetSpent) for value in found)
    assert answered == len(served.bodies) and served.most <= 2 + 1000 // limit
    assert 2 * limit + 1000 - limit < answered * 110 <= 2 * limit + 1000


def test_an_attempt_whose_tokens_are_unknown_is_charged_its_bound(served: Endpoint, tmp_path: Path) -> None:
    limit = bound(served)
    served.script = [raw(b"{"), refusal(429), good(usage=None)]
    model = model_of(served, tmp_path / "calls.jsonl", max_tokens=50, budget_tokens=10 * limit)
    ask(model)
    (call,) = on_file(tmp_path / "calls.jsonl")
    assert call.usage is None and call.charged_tokens == 2 * limit  # a 429 costs nothing


def test_attempts_beyond_the_budget_are_not_made(served: Endpoint, tmp_path: Path) -> None:
    limit = bound(served)
    served.reply = lambda body: raw(b"{")
    model = model_of(served, tmp_path / "calls.jsonl", max_tokens=50, budget_tokens=int(2.5 * limit), attempts=6)
    with pytest.raises(BudgetSpent):
        ask(model)
    assert len(served.bodies) == 2
    (call,) = on_file(tmp_path / "calls.jsonl")
    assert (call.error_code, call.charged_tokens) == ("BudgetSpent", 2 * limit)


def test_what_was_set_aside_is_free_again_after_an_error() -> None:
    budget = Budget(LanguageModelSettings(budget_tokens=100), Cost())

    async def fail() -> None:
        for _ in range(5):
            with pytest.raises(RuntimeError):
                async with budget.charged("x", Cost(90)):
                    raise RuntimeError
        async with budget.charged("x", Cost(90)) as charge:
            charge.settle(TokenUsage(5, 5))

    asyncio.run(fail())
    assert budget.spent == Cost(10)


def test_a_replay_costs_nothing(served: Endpoint, tmp_path: Path) -> None:
    served.reply = lambda body: good()
    ask(model_of(served, tmp_path / "calls.jsonl"))
    ask(model_of(Endpoint(url=""), tmp_path / "calls.jsonl", replay=True, budget_tokens=1))


def test_the_calls_of_an_earlier_stage_count_as_well(served: Endpoint, tmp_path: Path) -> None:
    limit = bound(served)
    served.reply = lambda body: good(usage=(100, 10))
    quick = {"url": served.url, "model": "m", "max_tokens": 50, "budget_tokens": limit + 100}
    settings = LanguageModelSettings(**quick)
    later = StructuredModel(LanguageModel(settings), record=tmp_path / "b.jsonl", earlier=[tmp_path / "a.jsonl"])
    ask(model_of(served, tmp_path / "a.jsonl", max_tokens=50))  # after the later stage was opened
    with pytest.raises(BudgetSpent, match="110 are spent"):
        ask(later, seed=2)
    assert len(served.bodies) == 1
