"""Trainer and server compute the same log-probabilities. ``pytest -s`` prints the table."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from real_server import CONFIG, STOP, RealServer, new_engine, random_lora

from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.errors import EngineError
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS, LoRA
from trace_jax.training.head import token_logprobs

LENGTH = 128  # of teacher-forced rows
ADAPTERS = {
    "all_r8": random_lora(1, 8, TARGETS),
    "qv_r4": random_lora(2, 4, ("q_proj", "v_proj")),
    "mlp_r16": random_lora(3, 16, ("gate_proj", "up_proj", "down_proj")),
}
Request = tuple[tuple[int, ...], Sampling, str | None]


@pytest.fixture(scope="module")
def engine(server: RealServer, tmp_path_factory: pytest.TempPathFactory):
    engine, directory = new_engine(server), tmp_path_factory.mktemp("adapters")

    async def load() -> None:
        for name, lora in ADAPTERS.items():
            save_peft(lora, CONFIG, directory / name, "base")
            await engine.load_adapter(name, directory / name)

    async def unload() -> None:
        for name in ADAPTERS:
            await engine.unload_adapter(name)

    asyncio.run(load())
    yield engine
    asyncio.run(unload())


def ask(engine: SGLangEngine, requests: Sequence[Request]) -> list[Completion]:
    async def all_of_them() -> list[Completion]:
        return await asyncio.gather(*(engine.generate(*request) for request in requests))

    return asyncio.run(all_of_them())


def trained(decoder: Decoder, lora: LoRA | None, request: Request, completion: Completion) -> np.ndarray:
    """Log-probabilities of a completion as the trainer computes them: the whole row at once, its own head."""
    prompt, sampling, _ = request
    row = np.zeros((1, LENGTH), np.int32)
    row[0, : len(prompt) + len(completion.token_ids)] = prompt + completion.token_ids
    ones, positions = jnp.ones((1, LENGTH), jnp.int32), jnp.arange(LENGTH)[None]
    hidden = jax.jit(lambda tokens: decoder(tokens, positions, ones, 0 * ones, lora=lora))(row)
    first = len(prompt) - 1
    logprobs, _ = token_logprobs(
        hidden[0, first : first + len(completion.token_ids)],
        decoder.head_VD(),
        jnp.array(completion.token_ids),
        sampling.temperature or 1.0,
    )
    return np.asarray(logprobs)


def requests_of(rng: np.random.Generator, adapters: Sequence[str | None], temperature: float) -> list[Request]:
    return [
        (
            tuple(int(i) for i in rng.integers(7, CONFIG.vocab_size, rng.integers(1, 60))),
            Sampling(int(rng.integers(1, 60)), temperature, int(rng.integers(2**31))),
            adapter,
        )
        for adapter in adapters
    ]


def test_trainer_and_server_agree(engine: SGLangEngine, decoder: Decoder) -> None:
    rng = np.random.default_rng()
    rows, worst = [], 0.0
    for batch in ([None] * 6, ["all_r8"] * 6, ["qv_r4"] * 6, ["mlp_r16"] * 6, [*ADAPTERS, None] * 3):
        for temperature in (1.0, 0.7, 0.0):
            requests = requests_of(rng, batch, temperature)
            largest, tokens = 0.0, 0
            for request, completion in zip(requests, ask(engine, requests), strict=True):
                lora = None if request[2] is None else ADAPTERS[request[2]]
                expected = trained(decoder, lora, request, completion)
                largest = max(largest, float(np.abs(expected - completion.logprobs).max()))
                tokens += len(completion.token_ids)
                ended = completion.token_ids[-1] in STOP
                assert (completion.finish_reason == "stop") == ended
                assert ended or len(completion.token_ids) == request[1].max_tokens
                assert not set(completion.token_ids[:-1]) & set(STOP)
            name = "mixed" if len(set(batch)) > 1 else batch[0] or "base"
            rows.append(f"{name:8} T={temperature:<4} {tokens:5} tokens  largest |Δ| {largest:.1e}")
            worst = max(worst, largest)
    print("\n" + "\n".join(rows))
    assert worst <= 1e-4, rows


def test_greedy_takes_the_likeliest_token(engine: SGLangEngine, decoder: Decoder) -> None:
    (request,) = requests_of(np.random.default_rng(), ["all_r8"], 0.0)
    first, again = ask(engine, [request, request])
    assert first.token_ids == again.token_ids
    hidden = decoder(
        jnp.array([request[0]]), jnp.arange(len(request[0]))[None], jnp.ones((1, len(request[0])), jnp.int32),
        jnp.zeros((1, len(request[0])), jnp.int32), lora=ADAPTERS["all_r8"],
    )  # fmt: skip
    assert int(decoder.logits(hidden)[0, -1].argmax()) == first.token_ids[0]


@pytest.mark.parametrize(
    "request_, words",
    [
        (((7, 400), Sampling(4), None), "token id 400 is outside the vocabulary of 320"),
        (((7, -1), Sampling(4), None), "token id -1 is outside"),
        (((), Sampling(4), None), "the prompt has no tokens"),
        (((7,), Sampling(256), None), "exceed the engine's capacity of 256"),
        (((7,), Sampling(4, float("nan")), None), "temperature is nan"),
        (((7,), Sampling(4), "never"), "adapter 'never' is not loaded; loaded are all_r8, qv_r4, mlp_r16"),
    ],
)
def test_what_no_server_should_see_is_refused(engine: SGLangEngine, request_: Request, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        ask(engine, [request_])
    assert asyncio.run(engine.health())


def test_the_directory_of_a_loaded_adapter_is_as_exported(engine: SGLangEngine, tmp_path: Path) -> None:
    """The louder copy that verifies a quiet adapter is gone, and was not taken for it."""
    quiet = random_lora(4, 4, ("q_proj", "v_proj"), size=1e-4)
    save_peft(quiet, CONFIG, tmp_path / "quiet", "base")

    async def load() -> None:
        await engine.load_adapter("quiet", tmp_path / "quiet")

    asyncio.run(load())
    assert [path.name for path in tmp_path.iterdir()] == ["quiet"]
    asyncio.run(engine.unload_adapter("quiet"))
