"""The record of an evaluation: methods side by side on the same tasks and trials."""

from typing import Self

from pydantic import Field, model_validator

from trace_jax.contract.capability import Interval
from trace_jax.contract.digest import LogChecksum
from trace_jax.contract.record import Part, Record
from trace_jax.contract.trajectory import Split


class MethodResult(Part):
    """One method on all tasks. ``rewards[task][trial]``, None where the episode broke (never counted as 0)."""

    method: str
    temperature: float
    rollouts_spent: int  # rollouts used to make this method
    rewards: dict[str, tuple[float | None, ...]]
    pass_rate: Interval
    mean_reward: Interval
    broken: int


class Comparison(Part):
    """Paired difference of pass rates, ``method`` − ``baseline``, bootstrapped over tasks."""

    method: str
    baseline: str
    temperature: float
    difference: Interval


class EvaluationReport(Record):
    """Methods compared on one target split."""

    schema_version: int = 2  # 2: the checksums of its episodes
    target: str
    split: Split
    tasks: tuple[str, ...]
    trials: int
    seed: int
    methods: tuple[MethodResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    notes: dict[str, str] = Field(default_factory=dict)
    episodes: dict[str, LogChecksum] = Field(default_factory=dict)  # logs it was made from, by path from the report

    @model_validator(mode="after")
    def _same_tasks(self) -> Self:
        for method in self.methods:
            if set(method.rewards) != set(self.tasks):
                raise ValueError(f"method {method.method}: its tasks differ from the report's")
        return self
