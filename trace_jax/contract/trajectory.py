"""Trajectory: one episode of a policy in an environment, recorded without loss."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from trace_jax.contract.record import Part, Record
from trace_jax.contract.rewards import without_rounding

Split = Literal["train", "held_out"]
Effect = Literal["read", "write"]
Termination = Literal["done", "max_turns", "max_tokens", "user_stop", "agent_stop", "error"]


class ToolCall(Part):
    """A function call as the agent wrote it. ``arguments`` is None where ``raw_arguments`` is no JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] | None
    raw_arguments: str | None = None


class Message(Part):
    """One OpenAI-style chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class Tool(Part):
    """A callable offered to the agent; ``parameters`` is a JSON Schema of type object.

    ``effect`` is what its author declares that it does to the state. Agents do not see it.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    effect: Effect | None = None  # None: nothing is declared

    def offered(self) -> dict[str, Any]:
        """What an agent sees of it, as JSON values."""
        return self.model_dump(mode="json", exclude={"effect"})


class Check(Part):
    """One named assertion of a grader."""

    name: str
    passed: bool
    detail: str = ""


class Segment(Part):
    """Consecutive tokens of an episode. Sampled segments are ``trained`` and carry one log-probability per token.

    ``adapter`` is the versioned name of the adapter that sampled them (None: the base); it may change in an episode.
    A ``fresh`` segment begins a new context: the model family's template leaves out what came before, so the engine saw
    none of the earlier segments. Together with those that follow it is another training sample of the same episode.
    """

    tokens: tuple[int, ...]
    trained: bool
    logprobs: tuple[float, ...] = ()
    adapter: str | None = None
    fresh: bool = False

    @model_validator(mode="after")
    def _logprobs_match(self) -> Self:
        expected = len(self.tokens) if self.trained else 0
        if len(self.logprobs) != expected:
            raise ValueError(
                f"segment of {len(self.tokens)} tokens (trained={self.trained}) has {len(self.logprobs)} logprobs"
            )
        if self.adapter is not None and not self.trained:
            raise ValueError(f"segment of {len(self.tokens)} rendered tokens names adapter {self.adapter!r}")
        return self


class Policy(Part):
    """The model that played the episode: the revision of the base, and the adapter on top of it, if any."""

    base: str
    adapter: str | None = None


class Usage(Part):
    """Token counts of an episode."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Trajectory(Record):
    """One episode. It either has a ``reward``, or is broken and says why in ``error``.

    A broken episode may be played again under its id. Its broken records in a file are ignored once it is graded.
    A reward that differs from 0 or 1 by rounding alone (``without_rounding``) is 0 or 1.
    ``policy`` is the policy that the episode began with; each sampled segment names the adapter that sampled it.
    ``extra`` keeps what an importer found and what has no field here, so that nothing is lost.
    """

    schema_version: int = 2  # 2: segments name their adapter and may begin a new context
    id: str
    target: str
    task: str
    split: Split
    seed: int
    trial: int
    policy: Policy
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    reward: float | None = Field(default=None, ge=0.0, le=1.0)
    components: dict[str, float] = Field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    termination: Termination
    segments: tuple[Segment, ...] = ()
    usage: Usage = Usage()
    seconds: float = 0.0
    error: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("reward", mode="before")
    @classmethod
    def _whole_where_it_is_rounded(cls, found: Any) -> Any:
        return without_rounding(found) if isinstance(found, float) else found

    @model_validator(mode="after")
    def _graded_or_broken(self) -> Self:
        if (self.reward is None) == (self.error is None):
            raise ValueError(
                f"trajectory {self.id}: exactly one of reward ({self.reward!r}) and error ({self.error!r}) must be set"
            )
        return self

    @property
    def broken(self) -> bool:
        """True if the episode could not be graded. It is neither trained on nor counted as failed."""
        return self.error is not None

    @property
    def passed(self) -> bool:
        """True if the reward is 1."""
        return self.reward == 1.0
