"""Settings of playing episodes, shared by all stages: rollouts of the base, calibration, training, evaluation."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(Settings):
    """How episodes are sampled and bounded.

    ``max_episode_tokens`` bounds what the engine sees, prompts and completions together. Where the renderer begins a
    new context it bounds each context, and so each of the trainer's samples. An episode that meets ``max_turns`` or
    ``max_episode_tokens`` is graded as it stands; one that meets ``max_seconds`` is broken.
    """

    section: ClassVar = "rollout"
    trials: int = setting(4, "episodes of each training task that the analysis sees", ge=1)
    temperature: float = setting(1.0, "of sampling; 0 is greedy, which training refuses", ge=0)
    max_turns: int = setting(16, "agent turns of an episode", ge=1)
    max_episode_tokens: int = setting(512, "tokens of an episode's context, prompts and completions together", ge=1)
    max_turn_tokens: int = setting(256, "sampled tokens of a turn", ge=1)
    max_seconds: float = setting(300.0, "seconds of an episode", gt=0)
    concurrency: int = setting(64, "episodes in flight", ge=1)
    thinking: bool | None = setting(None, "whether a hybrid Qwen3 thinks; None: as its template does")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Settings):
    """How held-out tasks are played."""

    section: ClassVar = "evaluation"
    trials: int = setting(4, "sampled episodes of each held-out task and method", ge=1)
    temperature: float = setting(1.0, "of the sampled trials; greedy ones come on top", gt=0)
    do_nothing: bool = setting(
        True, "also play an agent that does nothing, once a task; switch it off where an episode is dear"
    )
