"""An episode as the trainer sees it: exactly the tokens that the engine saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.contract.record import ContractError
from trace_jax.contract.trajectory import Trajectory


@dataclass(frozen=True)
class Sample:
    """One episode, ``[T]`` each: tokens, which of them were sampled, the sampler's log-probabilities (0 elsewhere).

    Samples of the same ``group`` may share their prompt in a packed row; None shares with none. ``adapter`` is the
    place, in the learner, of the adapter that sampled it and that learns from it.
    """

    tokens_T: np.ndarray
    trained_T: np.ndarray
    logprobs_T: np.ndarray
    advantage: float
    group: int | None = None
    adapter: int = 0

    @property
    def length(self) -> int:
        return len(self.tokens_T)


def sample(trajectory: Trajectory, advantage: float, group: int | None = None, adapter: int = 0) -> Sample:
    """The episode as one sequence, with what the engine sampled marked as trained.

    Raises:
        ContractError: nothing was sampled, or the first token was (nothing predicts it).
        FloatingPointError: a sampler log-probability is not finite.
    """
    segments = trajectory.segments
    tokens = np.array([token for s in segments for token in s.tokens], np.int32)
    trained = np.array([s.trained for s in segments for _ in s.tokens], bool)
    logprobs = np.array([value for s in segments for value in (s.logprobs if s.trained else [0.0] * len(s.tokens))])
    if not trained.any() or trained[0]:
        problem = "its first token is trained" if trained.any() else "no trained token"
        raise ContractError(f"trajectory {trajectory.id}: {problem}: record episodes with token segments, prompt first")
    if not np.isfinite(logprobs).all():
        raise FloatingPointError(f"trajectory {trajectory.id}: a sampler log-probability is not finite")
    return Sample(tokens, trained, logprobs, advantage, group, adapter)


def shared_prefix(samples: Sequence[Sample]) -> int:
    """How many leading tokens all samples have in common and none has sampled: what they can share."""
    first = samples[0].tokens_T
    length = min(int(np.argmax(one.trained_T)) for one in samples)
    for one in samples[1:]:
        differs = one.tokens_T[:length] != first[:length]
        length = int(np.argmax(differs)) if differs.any() else length
    return length
