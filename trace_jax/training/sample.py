"""Episodes as the trainer sees them: exactly the tokens that the engine saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.contract.trajectory import Segment, Trajectory
from trace_jax.errors import UserError
from trace_jax.training.versions import version_of


@dataclass(frozen=True)
class Sample:
    """One context, ``[T]`` each: tokens, which of them were sampled, the sampler's log-probabilities (0 elsewhere).

    Most episodes are one sample. One is several where the model family's template left out what the engine had seen
    (earlier thinking): each begins with the conversation rendered anew, and trains what was sampled behind it, so that
    every sampled token is trained exactly once. The losses take each for a sequence of its own: see
    ``aggregation.token_weights``; a sequence-level ratio (GSPO) is that of a context.

    Samples of the same ``group`` may share their prompt in a packed row; None shares with none. ``adapter`` is the
    place, in the learner, of the adapter that sampled it and that learns from it. ``staleness_T`` is how many updates
    ago the weights that sampled each token were in force; None: they are the learner's.
    """

    tokens_T: np.ndarray
    trained_T: np.ndarray
    logprobs_T: np.ndarray
    advantage: float
    group: int | None = None
    adapter: int = 0
    staleness_T: np.ndarray | None = None

    @property
    def length(self) -> int:
        return len(self.tokens_T)


def samples(
    trajectory: Trajectory, advantage: float, group: int | None = None, adapter: int = 0, step: int | None = None
) -> list[Sample]:
    """The contexts of the episode, in order, with what the engine sampled marked as trained; all share the advantage.

    Args:
        step: updates behind the weights that are to learn from it; None: those that sampled it.

    Raises:
        UserError: nothing was sampled in a context, or its first token was (nothing predicts it); what sampled it
            names no version.
        FloatingPointError: a sampler log-probability is not finite.
    """
    contexts = _contexts(trajectory.segments)
    return [_sample(trajectory.id, context, advantage, group, adapter, step) for context in contexts]


def _contexts(segments: Sequence[Segment]) -> list[Sequence[Segment]]:
    """Segments in a row that the engine saw together; one context, and an empty one, if there are none."""
    starts = [0, *(number for number, segment in enumerate(segments) if segment.fresh and number)]
    return [segments[start:end] for start, end in zip(starts, [*starts[1:], len(segments)], strict=True)]


def _sample(
    name: str, segments: Sequence[Segment], advantage: float, group: int | None, adapter: int, step: int | None
) -> Sample:
    tokens = np.array([token for s in segments for token in s.tokens], np.int32)
    trained = np.array([s.trained for s in segments for _ in s.tokens], bool)
    logprobs = np.array([value for s in segments for value in (s.logprobs if s.trained else [0.0] * len(s.tokens))])
    if not trained.any() or trained[0]:
        problem = "its first token is trained" if trained.any() else "no trained token"
        raise UserError(f"trajectory {name}: {problem}: record episodes with token segments, prompt first")
    if not np.isfinite(logprobs).all():
        raise FloatingPointError(f"trajectory {name}: a sampler log-probability is not finite")
    staleness = None
    if step is not None:
        ages = [step - version_of(s.adapter) if s.trained else 0 for s in segments]
        staleness = np.repeat(np.array(ages, np.int32), [len(s.tokens) for s in segments])
    return Sample(tokens, trained, logprobs, advantage, group, adapter, staleness)


def shared_prefix(samples: Sequence[Sample]) -> int:
    """How many leading tokens all samples have in common and none has sampled: what they can share."""
    first = samples[0].tokens_T
    length = min(int(np.argmax(one.trained_T)) for one in samples)
    for one in samples[1:]:
        differs = one.tokens_T[:length] != first[:length]
        length = int(np.argmax(differs)) if differs.any() else length
    return length
