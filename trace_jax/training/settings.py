"""Settings of stage 3: GRPO training of LoRA adapters, under TRL's names where TRL has the same thing.

Settings that training shares with all other rollouts (temperature, bounds of an episode, episodes in flight) are in
``trace_jax.rollout.settings``, and the seed is the run's own.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trace_jax.errors import UserError
from trace_jax.models.settings import TARGETS, Remat
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.settings import Settings, setting

LossType = Literal["grpo", "dapo", "dr_grpo"]  # rows of loss.AGGREGATIONS
RatioLevel = Literal["token", "sequence"]  # rows of loss.SURROGATES
KLEstimator = Literal["k1", "k2", "k3"]  # rows of loss.KL_ESTIMATORS
ScaleRewards = Literal["group", "batch", "none"]


def check_sampling(rollout: RolloutSettings) -> None:
    """Raise UserError for settings of rollouts that no training can learn from."""
    if rollout.temperature == 0:
        raise UserError(
            "rollout.temperature is 0: greedy rollouts have no distribution to train, so set it above 0, usually to 1"
        )


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(Settings):
    """A training run. It ends at ``max_steps`` or ``max_rollouts``, whichever comes first; at most one of them is None.

    With ``stop_reward`` it ends sooner: after two steps in a row with that mean reward.
    """

    section: ClassVar = "training"

    # How long the run is.
    max_steps: int | None = setting(40, "steps of the run; None: max_rollouts alone ends it", ge=0)
    max_rollouts: int | None = setting(
        None, "episodes of the run, whether trained on, constant or broken; None: max_steps alone ends it", ge=0
    )
    stop_reward: float | None = setting(
        None, "mean reward of a step that, reached twice in a row, ends the run; None: nothing does", gt=0, le=1
    )

    # What a step collects.
    groups_per_step: int = setting(8, "groups of rollouts that a step collects", ge=1)
    num_generations: int = setting(8, "rollouts of a group, all from one seed of the environment", ge=2)
    max_recollections: int = setting(
        3, "extra rounds of a step while fewer than half of its groups are informative or late", ge=0
    )
    max_staleness: int = setting(
        0, "updates by which the weights that sampled a token may be behind; 0: rollouts wait for updates", ge=0
    )
    group_seconds: float | None = setting(
        None, "seconds that a round waits for its groups; late ones join a later step; None: until all have ended", gt=0
    )
    max_mismatch: float | None = setting(
        None,
        "mean |Δ log-probability| between trainer and sampler at the same weights that stops the run; None: a warning",
        gt=0,
    )

    # Advantages.
    scale_rewards: ScaleRewards = setting("group", "whose standard deviation divides the advantages")
    std_floor: float = setting(0.0, "advantages divide by max(std, std_floor)", ge=0)

    # The loss.
    epsilon: float = setting(0.2, "the importance ratio is clipped to [1 - epsilon, 1 + epsilon_high]", gt=0, lt=1)
    epsilon_high: float | None = setting(None, "see epsilon; None: as epsilon; 0.28 is clip-higher (DAPO)", ge=0)
    beta: float = setting(0.0, "weight of the KL to the base, which is the same model without the adapter", ge=0)
    kl_estimator: KLEstimator = setting("k3", "estimator of that KL")
    loss_type: LossType = setting("dapo", "how the losses of tokens become one number")
    max_completion_length: int = setting(512, "trained tokens of an episode: the constant divisor of dr_grpo", ge=1)
    importance_sampling_level: RatioLevel = setting(
        "token", "one importance ratio a token, or one a sample, normalised by its length (GSPO)"
    )
    tis_cap: float | None = setting(
        None, "cap of the weight that corrects the sampler/trainer mismatch (TIS); None: no such correction", gt=0
    )
    icepop_low: float | None = setting(
        None, "tokens with a lower ratio π_old / π_sampler are masked (IcePop); None: none", gt=0, lt=1
    )
    icepop_high: float | None = setting(
        None, "tokens with a higher ratio π_old / π_sampler are masked (IcePop); None: none", gt=1
    )

    # The optimiser.
    num_iterations: int = setting(1, "optimiser steps on each batch", ge=1)
    learning_rate: float = setting(1e-4, "of AdamW", gt=0)
    warmup_steps: int = setting(0, "optimiser steps of linear warm-up; constant afterwards", ge=0)
    max_grad_norm: float = setting(1.0, "the norm of an adapter's gradient is clipped to it", gt=0)

    # The adapter.
    rank: int = setting(16, "LoRA rank", ge=1)
    alpha: float = setting(16.0, "LoRA alpha; the adapter is scaled by alpha / rank", gt=0)
    target_modules: tuple[str, ...] = setting(TARGETS, "projections that carry LoRA")

    # How an update is computed.
    micro_batch_tokens: int = setting(
        4096, "tokens that go through the model at once on each device; bounds the length of a packed row", ge=16
    )
    row_tokens: int | None = setting(
        None, "tokens of a packed row; None: what costs least for each batch, at one compilation a length", ge=16
    )
    remat: Remat | None = setting(
        None, "what the backward pass keeps of a layer; None: projections on a CPU, full elsewhere"
    )

    # What is kept.
    save_steps: int = setting(1, "steps between checkpoints", ge=1)
    max_to_keep: int = setting(2, "checkpoints kept: the last ones", ge=1)
    keep_period: int | None = setting(None, "checkpoints of its multiples, in steps, are kept as well", ge=1)
    keep_best: int = setting(0, "checkpoints of the highest mean reward that are kept as well", ge=0)
    snapshots: tuple[float, ...] = setting((), "fractions of the run, in (0, 1], at which an adapter is exported")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_steps is None and self.max_rollouts is None:
            raise UserError("training.max_steps and training.max_rollouts are both None: set at least one of them")
        if self.row_tokens is not None and self.row_tokens > self.micro_batch_tokens:
            raise UserError(
                f"training.row_tokens is {self.row_tokens}: it should be at most training.micro_batch_tokens, "
                f"{self.micro_batch_tokens}"
            )
        if unknown := [name for name in self.target_modules if name not in TARGETS]:
            raise UserError(f"training.target_modules holds {unknown[0]!r}: use some of {', '.join(TARGETS)}")
        if not self.target_modules or len(set(self.target_modules)) < len(self.target_modules):
            raise UserError(
                f"training.target_modules is {self.target_modules}: name each projection once, and one at least"
            )
        if bad := [fraction for fraction in self.snapshots if not 0 < fraction <= 1]:
            raise UserError(f"training.snapshots holds {bad[0]}: fractions of the run lie in (0, 1]")

    @property
    def most_steps(self) -> int:
        """Steps of the run if every step collects ``groups_per_step`` groups and none ends it sooner."""
        steps = [] if self.max_steps is None else [self.max_steps]
        if self.max_rollouts is not None:
            steps.append(-(-self.max_rollouts // (self.groups_per_step * self.num_generations)))
        return min(steps)
