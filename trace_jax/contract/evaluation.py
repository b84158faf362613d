"""The record of an evaluation: methods side by side on the same tasks and trials."""

from typing import Self

from pydantic import Field, model_validator

from trace_jax.contract.capability import Interval
from trace_jax.contract.digest import LogChecksum
from trace_jax.contract.record import Part, Record
from trace_jax.contract.trajectory import Split


class Effort(Part):
    """What the episodes of a method took, broken ones included. An episode that methods share counts for each."""

    episodes: int
    prompt_tokens: int
    completion_tokens: int
    turns: float  # messages of the agent in an episode, mean
    seconds: float  # of an episode, mean; episodes that were played at the same time slowed one another down
    seconds_median: float
    seconds_p95: float


class ErrorCounts(Part):
    """What went wrong in the episodes of a method, broken ones included.

    Each call of a tool is in at most one of ``unknown_tools``, ``malformed_calls`` and ``invalid_arguments``. A call is
    in ``tool_errors`` if its result is an error, whatever the call was.
    """

    terminations: dict[str, int]  # why episodes ended → episodes
    broken: dict[str, int]  # kind of error that broke an episode → episodes
    calls: int  # of tools
    unknown_tools: dict[str, int]  # name that no tool has → calls
    malformed_calls: dict[str, int]  # tool → calls whose arguments are no JSON object
    invalid_arguments: dict[str, int]  # tool → calls whose arguments do not fit its schema
    tool_errors: dict[str, int]  # tool → calls that were answered by an error
    failed_checks: dict[str, int]  # check of the grader → graded episodes that failed it


class MethodResult(Part):
    """One method on all tasks. ``rewards[task][trial]``, None where the episode broke (never counted as 0).

    ``pass_at_k`` and ``pass_hat_k`` are by k as text. A method that was not played itself, as the best of others, may
    lack ``effort`` and ``errors``.
    """

    method: str
    temperature: float
    rollouts_spent: int  # rollouts used to make this method
    rewards: dict[str, tuple[float | None, ...]]
    pass_rate: Interval
    mean_reward: Interval
    broken: int
    pass_at_k: dict[str, Interval] = Field(default_factory=dict)  # at least one of k trials passes
    pass_hat_k: dict[str, Interval] = Field(default_factory=dict)  # all of k trials pass
    effort: Effort | None = None
    errors: ErrorCounts | None = None


class Comparison(Part):
    """Paired difference of pass rates, ``method`` − ``baseline``, bootstrapped over tasks."""

    method: str
    baseline: str
    temperature: float
    difference: Interval


class EvaluationReport(Record):
    """Methods compared on one target split.

    ``do_nothing`` is an agent that answers every message with an empty one. What it passes shows no skill.
    """

    schema_version: int = 3  # 3: pass@k, pass^k, effort and errors of each method, and what doing nothing scores
    target: str
    split: Split
    tasks: tuple[str, ...]
    trials: int
    seed: int
    methods: tuple[MethodResult, ...]
    do_nothing: MethodResult | None = None  # None: it was not played
    comparisons: tuple[Comparison, ...] = ()
    notes: dict[str, str] = Field(default_factory=dict)
    episodes: dict[str, LogChecksum] = Field(default_factory=dict)  # logs it was made from, by path from the report

    @model_validator(mode="after")
    def _same_tasks(self) -> Self:
        for method in (*self.methods, *([] if self.do_nothing is None else [self.do_nothing])):
            if set(method.rewards) != set(self.tasks):
                raise ValueError(f"method {method.method}: its tasks differ from the report's")
        return self

    @property
    def passed_by_doing_nothing(self) -> tuple[str, ...]:
        """The tasks that ``do_nothing`` passes, in the order of the report."""
        rewards = {} if self.do_nothing is None else self.do_nothing.rewards
        return tuple(task for task in self.tasks if 1.0 in rewards.get(task, ()))
