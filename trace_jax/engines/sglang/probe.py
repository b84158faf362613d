"""Fixed tokens whose log-probabilities show which weights a server computes with."""

import numpy as np

from trace_jax.errors import EngineError

_TOKENS = 64
CHANGE = 0.1  # nats, mean |Δ log-probability|; rounding in bfloat16 changes equal weights' results less


class Probe:
    """The same tokens for all servers of a pool, and each server's log-probabilities of them without adapters."""

    def __init__(self, vocab_size: int, capacity: int) -> None:
        tokens: list[int] = np.random.default_rng(0).integers(vocab_size, size=min(_TOKENS, capacity - 1)).tolist()
        self.tokens = tokens
        self._bases: dict[str, np.ndarray] = {}  # log-probabilities by server

    def same_base(self, url: str, logprobs: np.ndarray) -> None:
        """Note the log-probabilities ``[T - 1]`` of the server at ``url``.

        Raises EngineError if they differ from another server's: the two hold different weights.
        """
        for other, held in self._bases.items():
            if other != url and (change := distance(url, held, logprobs)) >= CHANGE:
                raise EngineError(
                    f"{url} serves another base than {other} (mean |Δ log-probability| {change:.2g}): "
                    "start both with the same --model-path"
                )
        self._bases[url] = logprobs

    def forget(self, url: str) -> None:
        """Drop what was noted for a server, which may hold other weights from now on."""
        self._bases.pop(url, None)


def distance(where: str, logprobs: np.ndarray, others: np.ndarray) -> float:
    """Mean |Δ log-probability|. Raises EngineError if it is not finite."""
    found = float(np.abs(others - logprobs).mean())
    if not np.isfinite(found):
        raise EngineError(f"{where}: log-probabilities are not finite: check the weights of base and adapter")
    return found
