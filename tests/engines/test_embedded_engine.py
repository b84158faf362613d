"""The engine against a teacher-forced forward pass, and against itself in other company."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.embedded.sampling import uniforms
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.errors import EngineError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS, LoRA, init_lora, pad_rank, stack

SLOTS, CAPACITY = 6, 256
STOP = tuple(range(10))
Request = tuple[tuple[int, ...], Sampling, str | None]


@pytest.fixture
def engine(decoder: Decoder, config: DecoderConfig, adapters: dict[str, LoRA]) -> EmbeddedEngine:
    engine = new_engine(decoder, config)
    for name, adapter in adapters.items():
        engine.set_adapter(name, adapter)
    return engine


def new_engine(decoder: Decoder, config: DecoderConfig) -> EmbeddedEngine:
    return EmbeddedEngine(
        decoder, config, STOP, EngineSettings(slots=SLOTS, capacity=CAPACITY), max_rank=4, max_adapters=3
    )


def ask(engine: EmbeddedEngine, requests: Sequence[Request]) -> list[Completion]:
    async def all_of_them() -> list[Completion]:
        return await asyncio.gather(*(engine.generate(*request) for request in requests))

    return asyncio.run(all_of_them())


def prompt(rng: np.random.Generator, length: int) -> tuple[int, ...]:
    return tuple(int(i) for i in rng.integers(10, 300, length))


def full_rank(adapter: LoRA, config: DecoderConfig) -> LoRA:
    """The adapter on all targets, so that different ones stack."""
    empty = init_lora(config, 4, 1.0, TARGETS)
    return LoRA({**empty.weights, **pad_rank(adapter, 4).weights}, adapter.scale)


@pytest.fixture(scope="session")
def forced(decoder: Decoder, config: DecoderConfig, adapters: dict[str, LoRA]):
    """Log-probabilities [T, V], float64, of each next token at a temperature, by the packed forward pass."""
    both, names = (
        stack([full_rank(adapters["a"], config), full_rank(adapters["b"], config)]),
        {"a": 0, "b": 1, None: -1},
    )

    @jax.jit
    def logits(tokens: jax.Array, adapter: jax.Array) -> jax.Array:
        ones = jnp.ones_like(tokens)
        hidden = decoder(tokens, jnp.arange(CAPACITY)[None], ones, 0 * ones, both, adapter)
        return decoder.logits(hidden)[0]

    def score(tokens: Sequence[int], temperature: float, adapter: str | None) -> np.ndarray:
        padded = np.zeros((1, CAPACITY), np.int32)
        padded[0, : len(tokens)] = tokens
        scaled = np.asarray(logits(padded, np.array([names[adapter]])), np.float64) / (temperature or 1.0)
        scaled -= scaled.max(axis=-1, keepdims=True)
        return (scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True)))[: len(tokens)]

    return score


def check(request: Request, completion: Completion, forced) -> None:
    tokens, sampling, adapter = request
    exact = forced(tokens + completion.token_ids, sampling.temperature, adapter)[len(tokens) - 1 : -1]
    chosen = exact[np.arange(len(completion.token_ids)), completion.token_ids]
    np.testing.assert_allclose(completion.logprobs, chosen, atol=1e-4)
    if sampling.temperature == 0:
        np.testing.assert_allclose(chosen, exact.max(axis=-1), atol=1e-4)
    assert 1 <= len(completion.token_ids) <= sampling.max_tokens
    assert not set(completion.token_ids[:-1]) & set(STOP)
    assert (completion.finish_reason == "stop") == (completion.token_ids[-1] in STOP)
    assert completion.finish_reason == "stop" or len(completion.token_ids) == sampling.max_tokens


def test_mixed_batch_equals_teacher_forcing(engine: EmbeddedEngine, forced) -> None:
    rng = np.random.default_rng()
    requests: list[Request] = [
        (prompt(rng, n), Sampling(int(rng.integers(1, 60)), temperature, int(rng.integers(2**31))), adapter)
        for n, temperature, adapter in zip(
            [1, 2, 31, 32, 33, 34, 127, 128, 129, 150, 190, 64, 5, 70, 196],
            [1.0, 0.7, 0.0] * 5,
            ["a", None, "b", "b", "a", "a", None, None, "b"] * 2,
            strict=False,
        )
    ]
    assert len(requests) > 2 * SLOTS  # finished rows are refilled
    for request, completion in zip(requests, ask(engine, requests), strict=True):
        check(request, completion, forced)


@pytest.mark.parametrize("adapter", [None, "a", "b"])
def test_batch_of_one_adapter_equals_teacher_forcing(engine: EmbeddedEngine, forced, adapter: str | None) -> None:
    rng = np.random.default_rng()
    requests: list[Request] = [(prompt(rng, 20 + i), Sampling(40, 1.0, i), adapter) for i in range(SLOTS)]
    for request, completion in zip(requests, ask(engine, requests), strict=True):
        check(request, completion, forced)


def check_tie(request: Request, tokens: Sequence[int], others: Sequence[int], forced) -> None:
    """Check that two samples of one request part where rounding decides, within 1e-4 of cumulative probability."""
    start, sampling, adapter = request
    at = next(i for i, (one, other) in enumerate(zip(tokens, others, strict=False)) if one != other)
    seen = (*start, *tokens[:at])
    running = np.exp(forced(seen, sampling.temperature, adapter)[-1]).cumsum()
    drawn = float(uniforms(jnp.array([sampling.seed]), jnp.array([[at]]))[0, 0])
    low, high = sorted((tokens[at], others[at]))
    assert running[low] >= drawn - 1e-4 and running[high - 1] <= drawn + 1e-4


def test_tokens_do_not_depend_on_the_company(engine: EmbeddedEngine, forced) -> None:
    rng = np.random.default_rng()
    requests: list[Request] = [
        (prompt(rng, int(rng.integers(1, 150))), Sampling(30, 1.0, i), [None, "a", "b"][i % 3]) for i in range(14)
    ]
    together, equal = ask(engine, requests), 0
    for i in rng.permutation(len(requests)):
        (alone,) = ask(engine, [requests[i]])
        if alone.token_ids == together[i].token_ids:
            equal += 1
            np.testing.assert_allclose(alone.logprobs, together[i].logprobs, atol=1e-4)
        else:
            check_tie(requests[i], alone.token_ids, together[i].token_ids, forced)
    assert equal >= len(requests) - 1


def test_seeds_give_different_tokens(engine: EmbeddedEngine) -> None:
    start = prompt(np.random.default_rng(), 20)
    for seeds in (range(12), [-1, *(1 << shift for shift in range(31, 42))]):  # of any size: clients choose them
        completions = ask(engine, [(start, Sampling(12, 1.0, seed), None) for seed in seeds])
        assert len({completion.token_ids for completion in completions}) > 8


def test_a_group_s_prompt_is_computed_once(engine: EmbeddedEngine, forced) -> None:
    start = prompt(np.random.default_rng(), 100)
    requests: list[Request] = [(start, Sampling(20, 1.0, seed), "a") for seed in range(2 * SLOTS)]
    for request, completion in zip(requests, ask(engine, requests), strict=True):
        check(request, completion, forced)
    assert engine.stats.prefill_tokens == 99
    assert engine.stats.reused_tokens == 99 * (2 * SLOTS - 1)


def test_a_common_beginning_is_computed_once_for_each_adapter(engine: EmbeddedEngine, forced) -> None:
    rng = np.random.default_rng()
    start = prompt(rng, 70)
    requests: list[Request] = [
        (start + prompt(rng, 30), Sampling(5, 1.0, i), adapter)
        for i, adapter in enumerate(["a", None, "a", None, "a", "b"])
    ]
    for request, completion in zip(requests, ask(engine, requests), strict=True):
        check(request, completion, forced)
    assert engine.stats.prefill_tokens == 3 * 70 + 6 * 29


def test_a_conversation_costs_what_is_new(engine: EmbeddedEngine, forced) -> None:
    """Several conversations at once; each turn computes only its last sampled token and what follows."""
    rng = np.random.default_rng()
    adapters = [None, "a", "b", "a"]
    history = [prompt(rng, 40) for _ in adapters]
    spent = 4 * 39
    for turn in range(5):
        requests: list[Request] = [(history[i], Sampling(8, 1.0, turn), adapters[i]) for i in range(4)]
        completions = ask(engine, requests)
        assert engine.stats.prefill_tokens == spent
        for i, (request, completion) in enumerate(zip(requests, completions, strict=True)):
            check(request, completion, forced)
            history[i] += completion.token_ids + prompt(rng, 15)
        spent += 4 * 15  # the last sampled token and all of the new ones but the last


def test_the_same_after_a_flush_bit_for_bit(
    engine: EmbeddedEngine, decoder: Decoder, config: DecoderConfig, adapters
) -> None:
    rng = np.random.default_rng()
    requests: list[Request] = [
        (prompt(rng, int(rng.integers(1, 150))), Sampling(30, 1.0, i), [None, "a"][i % 2]) for i in range(10)
    ]
    first = ask(engine, requests)
    engine.flush()
    assert ask(engine, requests) == first
    fresh = new_engine(decoder, config)
    fresh.set_adapter("a", adapters["a"])
    assert ask(fresh, requests) == first


def test_few_compilations(engine: EmbeddedEngine) -> None:
    rng = np.random.default_rng()
    for length in range(1, 200, 11):
        ask(engine, [(prompt(rng, length), Sampling(int(rng.integers(1, 50)), 1.0, 0), None)])
    assert engine.stats.compilations <= 4  # prefill and decode, one block of columns and two


def test_adapters_come_from_peft_directories(
    engine: EmbeddedEngine, forced, tmp_path: Path, config: DecoderConfig, adapters: dict[str, LoRA]
) -> None:
    save_peft(adapters["b"], config, tmp_path, base="tiny")
    asyncio.run(engine.load_adapter("b@2", tmp_path))
    start = prompt(np.random.default_rng(), 30)
    (completion,) = ask(engine, [(start, Sampling(20, 1.0, 3), "b@2")])
    check((start, Sampling(20, 1.0, 3), "b"), completion, forced)


def test_a_place_is_reused_without_what_was_computed_before(
    engine: EmbeddedEngine, forced, adapters: dict[str, LoRA]
) -> None:
    start, sampling = prompt(np.random.default_rng(), 40), Sampling(20, 1.0, 1)
    ask(engine, [(start, sampling, "a")])
    asyncio.run(engine.unload_adapter("a"))
    with pytest.raises(EngineError, match="'a' is not loaded"):
        ask(engine, [(start, sampling, "a")])
    engine.set_adapter("again", adapters["b"])  # takes the place of "a"
    (completion,) = ask(engine, [(start, sampling, "again")])
    check((start, sampling, "b"), completion, forced)


def test_bad_requests_are_refused_by_name(
    engine: EmbeddedEngine, config: DecoderConfig, adapters: dict[str, LoRA]
) -> None:
    good = Sampling(8)
    for request, name in [
        (((1, 2), good, "nobody"), "nobody"),
        (((1, 320, 2), good, None), "320"),
        (((1, -4), good, None), "-4"),
        (((), good, None), "no tokens"),
        (((11,) * 257, good, None), "257"),
        (((11,) * 250, good, None), "250 tokens and max_tokens 8 exceed .* 256"),
        (((11,), Sampling(0), None), "max_tokens is 0"),
        (((11,), Sampling(4, temperature=-0.5), None), "-0.5"),
        (((11,), Sampling(4, temperature=float("nan")), None), "nan"),
    ]:
        with pytest.raises(EngineError, match=name):
            ask(engine, [request])
    with pytest.raises(EngineError, match="'a' is in use"):
        engine.set_adapter("a", adapters["b"])
    with pytest.raises(EngineError, match="'wide'.* rank 5"):
        engine.set_adapter("wide", init_lora(config, 5, 1.0))
    engine.set_adapter("third", adapters["a"])
    with pytest.raises(EngineError, match="'fourth'.*holds 3, its maximum"):
        engine.set_adapter("fourth", adapters["a"])
    assert ask(engine, [((11, 12), good, None)])[0].token_ids  # none of this did any harm


def test_an_adapter_that_is_not_finite_is_refused(engine: EmbeddedEngine, adapters: dict[str, LoRA]) -> None:
    for bad in (jnp.nan, jnp.inf):
        weights = jax.tree.map(lambda x, bad=bad: jnp.asarray(x).at[0, 1, 0, 0].set(bad), adapters["a"].weights)
        with pytest.raises(EngineError, match="'broken' .*not finite"):
            engine.set_adapter("broken", LoRA(weights, adapters["a"].scale))


def test_non_finite_logits_break_the_request_and_leave_nothing_behind(
    engine: EmbeddedEngine, forced, adapters: dict[str, LoRA]
) -> None:
    huge = LoRA(jax.tree.map(lambda x: 1e20 * x, adapters["a"].weights), adapters["a"].scale)
    engine.set_adapter("huge", huge)
    rng = np.random.default_rng()

    async def all_fail() -> list[Completion | BaseException]:
        asked = (engine.generate(prompt(rng, 40), Sampling(10, 1.0, i), "huge") for i in range(2 * SLOTS))
        return await asyncio.gather(*asked, return_exceptions=True)

    for result in asyncio.run(all_fail()):
        assert isinstance(result, EngineError) and "not finite" in str(result)
    requests: list[Request] = [(prompt(rng, 40), Sampling(10, 1.0, i), ["a", None][i % 2]) for i in range(2 * SLOTS)]
    for request, completion in zip(requests, ask(engine, requests), strict=True):
        check(request, completion, forced)


def test_a_caller_that_leaves_frees_its_slot(engine: EmbeddedEngine, forced) -> None:
    rng = np.random.default_rng()
    requests: list[Request] = [(prompt(rng, 30), Sampling(60, 1.0, i), None) for i in range(2 * SLOTS)]

    async def impatient() -> list[Completion]:
        tasks = [asyncio.ensure_future(engine.generate(*request)) for request in requests]
        await asyncio.sleep(0)
        for _ in range(6):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks[1::2])

    for request, completion in zip(requests[1::2], asyncio.run(impatient()), strict=True):
        check(request, completion, forced)
    again: list[Request] = [(prompt(rng, 30), Sampling(10, 1.0, i), None) for i in range(SLOTS)]
    for request, completion in zip(again, ask(engine, again), strict=True):
        check(request, completion, forced)


def test_an_interrupted_run_leaves_the_engine_usable(engine: EmbeddedEngine, forced) -> None:
    rng = np.random.default_rng()
    requests: list[Request] = [(prompt(rng, 30), Sampling(60, 1.0, i), "a") for i in range(2 * SLOTS)]

    async def interrupted() -> None:
        for request in requests:
            asyncio.ensure_future(engine.generate(*request))
        for _ in range(7):
            await asyncio.sleep(0)

    asyncio.run(interrupted())  # closes the loop on running requests
    for request, completion in zip(requests, ask(engine, requests), strict=True):
        check(request, completion, forced)


@pytest.mark.parametrize("slots", [SLOTS, 33], ids=["one shard", "two shards"])
def test_groups_that_follow_one_another_through_used_slots(
    slots: int, decoder: Decoder, config: DecoderConfig, forced
) -> None:
    """Equal prompts on slots that held others: prefixes are copied from slots that wait for copies themselves."""
    engine = EmbeddedEngine(
        decoder, config, STOP, EngineSettings(slots=slots, capacity=CAPACITY), max_rank=4, max_adapters=3
    )
    rng = np.random.default_rng()
    policy = prompt(rng, 40)
    for _ in range(4):
        tasks = [policy + prompt(rng, int(rng.integers(5, 40))) for _ in range(2)]
        group = [
            (task, Sampling(int(rng.integers(2, 20)), 1.0, int(seed)), None)
            for task in tasks
            for seed in rng.integers(0, 1 << 30, slots * 2 // 3)
        ]
        for request, completion in zip(group, ask(engine, group), strict=True):
            check(request, completion, forced)
