"""The toy's engine as if it were on another machine: it answers late, and what it was asked can be looked up."""

import asyncio
import dataclasses
import time

import toy


class Remote:
    """Passes everything on. A request waits for ``ready(affinity)``, looked up every hundredth of a second;
    ``shift(adapter, token)`` is added to log-probabilities. ``asked`` are the times of all requests, ``said`` (adapter,
    sampled tokens) of those answered, ``open`` how many are neither answered nor given up, ``held`` the adapters,
    ``most`` how many were held at once.
    """

    def __init__(self, ready=lambda affinity: True, shift=lambda adapter, token: 0.0, on_request=lambda number: None):
        self.engine = toy.parts()[2]
        self.ready, self.shift, self.on_request = ready, shift, on_request
        self.asked, self.said, self.open, self.held, self.most = [], [], 0, [], 0

    async def generate(self, token_ids, sampling, adapter=None, *, affinity=""):
        self.on_request(len(self.asked))
        self.asked.append(time.monotonic())
        self.open += 1
        try:
            while True:
                await asyncio.sleep(0.01)
                if self.ready(affinity):
                    break
            done = await self.engine.generate(token_ids, sampling, adapter)
        finally:
            self.open -= 1
        self.said.append((adapter, done.token_ids))
        told = zip(done.token_ids, done.logprobs, strict=True)
        return dataclasses.replace(done, logprobs=tuple(value + self.shift(adapter, token) for token, value in told))

    def set_adapter(self, name, lora):
        self.engine.set_adapter(name, lora)
        self.held.append(name)
        self.most = max(self.most, len(self.held))

    async def unload_adapter(self, name):
        await self.engine.unload_adapter(name)
        self.held.remove(name)

    def flush(self):
        self.engine.flush()
