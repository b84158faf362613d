"""Conversations that the gateway recorded: from the records of their requests to trajectories, once they are judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trace_jax.contract.files import read_records
from trace_jax.contract.same_message import same_text
from trace_jax.contract.served import ServedAnswer, ServedRequest
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Message, Policy, Termination, Tool, Trajectory, Usage
from trace_jax.environments.protocol import seed_of

_BRANCHED = (
    "its requests do not continue one another (request {number} of {total} begins otherwise): give every conversation "
    "an X-Trace-Conversation of its own"
)


@dataclass(slots=True)
class ServedConversation:
    """What is recorded of a conversation. If ``fault`` is set, its messages are not known for sure.

    Attributes:
        sent: messages of the last request.
        answers: to the last request.
        requests: how many there were; the tokens of ``unknown`` of them are not known.
        reasoning: thinking beside the text, by request.
    """

    name: str
    policy: Policy
    sent: tuple[Message, ...] = ()
    answers: tuple[ServedAnswer, ...] = ()
    tools: tuple[Tool, ...] = ()
    requests: int = 0
    unknown: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    models: set[str] = field(default_factory=set)
    adapters: set[str] = field(default_factory=set)
    reasoning: dict[str, str] = field(default_factory=dict)
    cut: str | None = None
    branched_at: int = 0
    omitted: str | None = None

    def add(self, request: ServedRequest) -> None:
        """The conversation's next request."""
        self._count(request)
        if request.omitted is not None:
            self.omitted, self.sent, self.answers = request.omitted, (), ()
            return
        known = self._known()
        if request.repeats > len(known):
            self.omitted = "a request before is missing"
            return
        messages = (*known[: request.repeats], *request.messages)
        if not _begins_with(messages, self.sent):
            self.branched_at = self.branched_at or self.requests
        self.sent, self.answers = messages, request.answers
        self.tools = self.tools if request.tools is None else request.tools
        if not request.repeats:
            self.omitted = None  # all that was left out before is here

    @property
    def fault(self) -> str | None:
        """Why the conversation is no trajectory."""
        if self.omitted is not None:
            return f"it is not recorded whole: {self.omitted}"
        if self.branched_at:
            return _BRANCHED.format(number=self.branched_at, total=self.requests)
        if len(self.answers) > 1:
            return f"its last request has {len(self.answers)} answers, and which one was used is not known"
        return None

    def trajectory(self, reward: float, target: str) -> Trajectory:
        """The conversation as an episode of ``target`` that was judged ``reward``. It must have no ``fault``."""
        extra: dict[str, Any] = {
            "requests": self.requests,
            "models": sorted(self.models),
            "adapters": sorted(self.adapters),
            "turns_of_unknown_usage": self.unknown,
            "reasoning": self.reasoning,
            "cut": self.cut,
        }
        return Trajectory(
            id=self.name,
            target=target,
            task=self.name,
            split="train",
            seed=seed_of(self.name),
            trial=0,
            policy=self.policy,
            messages=(*self.sent, *(answer.message for answer in self.answers)),
            tools=self.tools,
            reward=reward,
            termination=self._termination(),
            usage=Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens),
            seconds=self.seconds,
            extra={name: value for name, value in extra.items() if value},
        )

    def _count(self, request: ServedRequest) -> None:
        if request.usage is None:
            self.unknown += 1
        else:
            self.prompt_tokens += request.usage.prompt_tokens
            self.completion_tokens += request.usage.completion_tokens
        if request.answers and request.answers[0].reasoning:
            self.reasoning[str(self.requests)] = request.answers[0].reasoning
        self.requests += 1
        self.seconds += request.seconds
        self.models.add(request.model)
        self.adapters.add(request.policy.adapter or "base")
        self.cut = request.cut

    def _known(self) -> tuple[Message, ...]:
        """What a request may repeat."""
        return (*self.sent, self.answers[0].message) if len(self.answers) == 1 else self.sent

    def _termination(self) -> Termination:
        if self.cut is not None:
            return "user_stop"
        return "max_tokens" if any(answer.finish_reason == "length" for answer in self.answers) else "done"


def read_conversations(path: PathLike) -> dict[str, ServedConversation]:
    """The conversations in a gateway's record, by name. Raises UserError as ``read_records`` does."""
    found: dict[str, ServedConversation] = {}
    for request in read_records(path, ServedRequest):
        if request.conversation not in found:
            found[request.conversation] = ServedConversation(request.conversation, request.policy)
        found[request.conversation].add(request)
    return found


def _begins_with(messages: Sequence[Message], start: Sequence[Message]) -> bool:
    if len(messages) < len(start):
        return False
    return all(a is b or same_text(a) == same_text(b) for a, b in zip(messages, start, strict=False))
