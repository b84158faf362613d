"""Episodes as the trainer sees them: exactly the tokens that the engine saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.contract.trajectory import Segment, Trajectory
from trace_jax.errors import UserError
from trace_jax.training.advantages import group_advantages
from trace_jax.training.collection import Batch
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.versions import version_of


@dataclass(frozen=True)
class Sample:
    """One context of an episode: what the engine saw together.

    Most episodes are one sample. An episode is several where the model family's template leaves out what the engine had
    seen before (earlier thinking). Each sample then begins with the conversation rendered anew and trains what was
    sampled after it, so that every sampled token is trained exactly once. The loss treats each sample as a sequence of
    its own: see ``loss.AGGREGATIONS``, and ``loss.sequence_surrogate`` for GSPO's ratio.

    Attributes:
        tokens_T: int32 ``[T]``, token ids.
        trained_T: bool ``[T]``, true for the tokens that were sampled.
        logprobs_T: float64 ``[T]``, the sampler's log-probabilities, 0 for tokens that were not sampled.
        advantage: of the episode, the same for all its tokens.
        group: samples of the same group may share their prompt in a packed row; None shares with none.
        adapter: index, in the learner, of the adapter that sampled it and that learns from it.
        staleness_T: int32 ``[T]``, how many updates ago the weights that sampled each token were current; None: 0.
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
    trajectory: Trajectory,
    advantage: float,
    *,
    group: int | None = None,
    adapter: int = 0,
    step: int | None = None,
) -> list[Sample]:
    """The contexts of an episode, in order. Sampled tokens are trained, and all share the advantage.

    Args:
        group, adapter: see ``Sample``.
        step: number of updates that the weights have had which are to learn from it; None: those that sampled it.

    Raises:
        UserError: a context has no sampled token, or its first token was sampled (nothing predicts that one); or the
            name of the adapter that sampled it has no version.
        FloatingPointError: a log-probability of the sampler is not finite.
    """
    return [
        Sample(
            *_tokens(trajectory.id, context),
            advantage=advantage,
            group=group,
            adapter=adapter,
            staleness_T=None if step is None else _staleness(context, step),
        )
        for context in _contexts(trajectory.segments)
    ]


def batch_samples(batch: Batch, training: GRPOConfig, *, adapter: int, step: int) -> list[Sample]:
    """The samples of all informative groups of ``batch``, with their advantages; see ``samples``.

    Raises FloatingPointError for a reward that is not finite.
    """
    advantages = group_advantages([group.rewards for group in batch.groups], training.scale_rewards, training.std_floor)
    return [
        sample
        for number, (group, advantages_G) in enumerate(zip(batch.groups, advantages, strict=True))
        if group.informative
        for rollout, advantage in zip(group.graded, advantages_G, strict=True)
        if rollout.usage.completion_tokens  # an episode that had no room left to sample teaches nothing
        for sample in samples(rollout, float(advantage), group=number, adapter=adapter, step=step)
    ]


def _contexts(segments: Sequence[Segment]) -> list[Sequence[Segment]]:
    """Runs of segments that the engine saw together. No segments make one empty context."""
    starts = [0, *(number for number, segment in enumerate(segments) if segment.fresh and number)]
    return [segments[start:end] for start, end in zip(starts, [*starts[1:], len(segments)], strict=True)]


def _tokens(name: str, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, which of them were sampled, and their log-probabilities, ``[T]`` each."""
    tokens = np.array([token for s in segments for token in s.tokens], np.int32)
    trained = np.array([s.trained for s in segments for _ in s.tokens], bool)
    logprobs = np.array([value for s in segments for value in (s.logprobs if s.trained else [0.0] * len(s.tokens))])
    if not trained.any() or trained[0]:
        problem = "its first token is trained" if trained.any() else "no trained token"
        raise UserError(f"trajectory {name}: {problem}: record episodes with token segments, prompt first")
    if not np.isfinite(logprobs).all():
        raise FloatingPointError(f"trajectory {name}: a sampler log-probability is not finite")
    return tokens, trained, logprobs


def _staleness(segments: Sequence[Segment], step: int) -> np.ndarray:
    ages = [step - version_of(s.adapter) if s.trained else 0 for s in segments]
    return np.repeat(np.array(ages, np.int32), [len(s.tokens) for s in segments])


def shared_prefix(samples: Sequence[Sample]) -> int:
    """Number of leading tokens that all samples have in common and that none of them has sampled."""
    first = samples[0].tokens_T
    length = min(int(np.argmax(sample.trained_T)) for sample in samples)
    for sample in samples[1:]:
        differs = sample.tokens_T[:length] != first[:length]
        length = int(np.argmax(differs)) if differs.any() else length
    return length
