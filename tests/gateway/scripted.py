"""A stand-in for the embedded engine, for completions that no sampler would make when a test needs them."""

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field

from served import ByWord, make_app, make_gateway, serving

from trace_jax.engines.protocol import Completion
from trace_jax.gateway.embedded import EmbeddedBackend
from trace_jax.gateway.engine import EngineThread
from trace_jax.models.config import DecoderConfig


@dataclass
class Scripted:
    """Samples the tokens that it is given, a few at a time, and keeps the prompts."""

    says: tuple[int, ...] = ()
    at_once: int = 1
    prompts: list[tuple[int, ...]] = field(default_factory=list)

    async def generate(self, token_ids, sampling, adapter=None, *, on_tokens):
        self.prompts.append(token_ids)
        said = self.says[: sampling.max_tokens]
        logprobs = tuple(-float(i) for i in range(len(said)))
        for at in range(0, len(said), self.at_once):
            on_tokens(list(said[at : at + self.at_once]), list(logprobs[at : at + self.at_once]))
            await asyncio.sleep(0)
        return Completion(said, logprobs, "stop" if said == self.says else "length")


@contextmanager
def scripted_gateway(engine, renderer, tokenizer, directory, *, forms=None, capacity=4096, router=None, **settings):
    """The address of a gateway before ``engine``."""
    size = tokenizer.get_vocab_size()
    config = DecoderConfig(
        vocab_size=size, hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, intermediate_size=8
    )

    async def make(stack):
        thread = stack.enter_context(EngineThread(engine))
        room = {"capacity": capacity, "max_rank": 8}
        backend = EmbeddedBackend("tiny", thread, renderer, tokenizer, forms=forms or {}, **room)
        decider = router or ByWord(())
        return make_app(await make_gateway(stack, backend, decider, {}, config, directory, **settings))

    with serving(make) as url:
        yield url
