"""Every choice that GRPO training offers, under TRL's names where TRL has the same thing."""

import math
from dataclasses import dataclass
from typing import Literal

from trace_jax.errors import UserError
from trace_jax.models.execution import Remat
from trace_jax.models.lora import TARGETS

LossType = Literal["grpo", "dapo", "dr_grpo"]
ScaleRewards = Literal["group", "batch", "none"]
RatioLevel = Literal["token", "sequence"]
KLEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True, kw_only=True)
class PolicyLossConfig:
    """What the loss computes; hashable, so that compiled steps can be kept by it."""

    epsilon: float = 0.2  # ratio is clipped to [1 - epsilon, 1 + epsilon_high]
    epsilon_high: float | None = None  # None: epsilon; 0.28 is "clip-higher" (DAPO)
    beta: float = 0.0  # weight of the KL to the base (the same model, adapter off)
    kl_estimator: KLEstimator = "k3"
    loss_type: LossType = "dapo"  # how token losses become one number; see aggregation.token_weights
    max_completion_length: int = 512  # trained tokens; the constant divisor of "dr_grpo"
    importance_sampling_level: RatioLevel = "token"  # "sequence": one length-normalised ratio a sample (GSPO)
    tis_cap: float | None = None  # truncated importance sampling of the sampler/trainer mismatch; see loss.policy_loss
    icepop_low: float | None = None  # tokens whose π_old / π_sampler is lower, or
    icepop_high: float | None = None  # higher, are masked; see importance.corrected_weight
    temperature: float = 1.0  # of the sampler and, so, of the trained distribution

    def __post_init__(self) -> None:
        _one_of("loss_type", self.loss_type, LossType)
        _one_of("importance_sampling_level", self.importance_sampling_level, RatioLevel)
        _one_of("kl_estimator", self.kl_estimator, KLEstimator)
        _at_least("beta", self.beta, 0.0)
        _at_least("max_completion_length", self.max_completion_length, 1)
        if not 0.0 < self.epsilon < 1.0:
            raise UserError(f"epsilon {self.epsilon} must lie between 0 and 1")
        if self.epsilon_high is not None:
            _at_least("epsilon_high", self.epsilon_high, 0.0)
        if self.tis_cap is not None and not self.tis_cap > 0.0:
            raise UserError(f"tis_cap {self.tis_cap} must be positive, or None to leave the correction out")
        if self.icepop_low is not None and not 0.0 < self.icepop_low < 1.0:
            raise UserError(f"icepop_low {self.icepop_low} must lie between 0 and 1, or be None for no lower bound")
        if self.icepop_high is not None and not 1.0 < self.icepop_high < math.inf:
            raise UserError(f"icepop_high {self.icepop_high} must exceed 1, or be None for no upper bound")
        if not self.temperature > 0.0:
            raise UserError(
                f"temperature {self.temperature} must be positive: greedy rollouts have no distribution to train"
            )

    @property
    def masking(self) -> bool:
        """True if tokens are masked by their ratio."""
        return self.icepop_low is not None or self.icepop_high is not None

    @property
    def corrected(self) -> bool:
        """True if the loss weighs tokens by the trainer's ratio to the sampler."""
        return self.tis_cap is not None or self.masking


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(PolicyLossConfig):
    """A training run. It ends at ``max_steps`` or ``max_rollouts``, whichever comes first; at least one is given.

    With ``stop_reward`` it ends sooner, once two steps in a row have that mean reward: what is learnt costs no more.
    """

    max_steps: int | None = None
    max_rollouts: int | None = None  # every episode counts: trained on, constant or broken
    stop_reward: float | None = None  # mean reward of a step's rollouts at which the task counts as learnt
    groups_per_step: int = 8
    num_generations: int = 8  # rollouts of a group, all from one seed of the environment
    max_recollections: int = 3  # extra rounds of a step while fewer than half of its groups are informative or late
    max_turn_tokens: int = 256  # sampled tokens a turn
    concurrency: int = 64  # episodes in flight
    max_staleness: int = 0  # updates by which the weights that sampled a token may be behind; 0: strictly on policy
    group_seconds: float | None = None  # a round's wait for its groups; later ones join a later step, or are dropped
    max_mismatch: float | None = None  # mean |Δ log-probability| to the sampler of the same weights that stops the run
    scale_rewards: ScaleRewards = "group"
    std_floor: float = 0.0  # advantages divide by max(std, std_floor)
    num_iterations: int = 1  # optimiser steps on each batch
    learning_rate: float = 1e-4
    warmup_steps: int = 0  # optimiser steps of linear warm-up, then constant
    max_grad_norm: float = 1.0
    rank: int = 16
    alpha: float = 16.0
    target_modules: tuple[str, ...] = TARGETS
    micro_batch_tokens: int = 4096  # tokens that go through the model at once on each device; the longest packed row
    row_tokens: int | None = None  # length of packed rows; None: what costs least for each batch, and a compilation
    remat: Remat | None = None  # what the backward pass keeps; None: projections on a CPU, else full
    save_steps: int = 1  # steps between checkpoints
    max_to_keep: int = 2  # checkpoints kept: the last ones (Orbax's LatestN)
    keep_period: int | None = None  # and those of each multiple of so many steps (EveryNSteps)
    keep_best: int = 0  # and so many of the highest mean reward (BestN)
    snapshots: tuple[float, ...] = ()  # fractions of the run at which an adapter is exported, e.g. (0.25, 0.5)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("scale_rewards", self.scale_rewards, ScaleRewards)
        if self.remat is not None:
            _one_of("remat", self.remat, Remat)
        if self.max_steps is None and self.max_rollouts is None:
            raise UserError("max_steps and max_rollouts are both None: give at least one of them")
        for name, low in (
            ("groups_per_step", 1), ("num_generations", 2), ("max_recollections", 0), ("max_turn_tokens", 1),
            ("concurrency", 1), ("max_staleness", 0), ("std_floor", 0.0), ("num_iterations", 1), ("warmup_steps", 0),
            ("rank", 1), ("micro_batch_tokens", 16), ("row_tokens", 16), ("save_steps", 1), ("max_to_keep", 1),
            ("keep_period", 1), ("keep_best", 0), ("max_steps", 0), ("max_rollouts", 0),
        ):  # fmt: skip
            if (value := getattr(self, name)) is not None:
                _at_least(name, value, low)
        if self.row_tokens is not None and self.row_tokens > self.micro_batch_tokens:
            raise UserError(f"row_tokens {self.row_tokens} exceeds micro_batch_tokens {self.micro_batch_tokens}")
        for name in ("learning_rate", "max_grad_norm", "alpha", "group_seconds", "max_mismatch"):
            if (value := getattr(self, name)) is not None and not 0.0 < value < math.inf:
                raise UserError(f"{name} {getattr(self, name)} must be positive and finite")
        if self.stop_reward is not None and not 0.0 < self.stop_reward <= 1.0:
            raise UserError(f"stop_reward {self.stop_reward} must lie in (0, 1], or be None")
        if any(not 0.0 < fraction <= 1.0 for fraction in self.snapshots):
            raise UserError(f"snapshots {self.snapshots} must be fractions of the run in (0, 1]")

    @property
    def policy_loss(self) -> PolicyLossConfig:
        """The part that the compiled step depends on."""
        return PolicyLossConfig(**{name: getattr(self, name) for name in PolicyLossConfig.__dataclass_fields__})


def _one_of(name: str, value: str, literal: object) -> None:
    allowed = literal.__args__  # type: ignore[attr-defined]
    if value not in allowed:
        raise UserError(f"{name} {value!r} is unknown; use one of {', '.join(allowed)}")


def _at_least(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise UserError(f"{name} {value} must be at least {low}")
