"""The classifier's reader on a server that holds the base: no second copy of the model is needed."""

import asyncio
from collections.abc import Sequence

import numpy as np

from trace_jax.contract.record import ContractError
from trace_jax.gateway.servers import Servers
from trace_jax.rollout.engine import EngineError


class ServerReader:
    """A ``LabelReader`` for other threads than that of the event loop ``loop``, in which ``servers`` lives."""

    def __init__(self, servers: Servers, loop: asyncio.AbstractEventLoop) -> None:
        self._servers, self._loop = servers, loop

    def check_length(self, prompt: Sequence[int]) -> None:
        most = self._servers.max_tokens - 1
        if not 0 < len(prompt) <= most:
            raise ContractError(f"prompt of {len(prompt)} tokens; the servers read 1 to {most}: shorten it")

    def next_logprobs(self, prompts: Sequence[Sequence[int]], token_ids: Sequence[int]) -> np.ndarray:
        """``[N, C]`` float32, from one request to ``/generate``. Raises EngineError."""
        body = {
            "input_ids": [list(prompt) for prompt in prompts],
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": True,
            "token_ids_logprob": [list(token_ids)] * len(prompts),
        }
        found = asyncio.run_coroutine_threadsafe(self._servers.generate(body, "labels"), self._loop).result()
        try:
            rows = [{token: lp for lp, token, *_ in one["meta_info"]["output_token_ids_logprobs"][0]} for one in found]
            return np.array([[row[token] for token in token_ids] for row in rows], np.float32)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(f"/generate answers without the labels' log-probabilities ({error!r})") from None
