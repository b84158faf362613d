"""Conversations that the gateway recorded: from the records of their requests to trajectories, once they are judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trace_jax.contract.files import read_records
from trace_jax.contract.same_message import same_text
from trace_jax.contract.served import ServedAnswer, ServedRequest
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Message, Termination, Tool, Trajectory, Usage
from trace_jax.environments.protocol import seed_of

_BRANCHED = (
    "its requests do not continue one another (request {number} of {total} begins otherwise): give every conversation "
    "an X-Trace-Conversation of its own"
)


@dataclass
class ServedConversation:
    """What is recorded of a conversation. If ``fault`` is set, its messages are not known for sure."""

    name: str
    requests: list[ServedRequest] = field(default_factory=list)
    sent: tuple[Message, ...] = ()  # of the last request
    answers: tuple[ServedAnswer, ...] = ()  # to it
    tools: tuple[Tool, ...] = ()
    branched_at: int = 0
    omitted: str | None = None

    def add(self, request: ServedRequest) -> None:
        """The conversation's next request."""
        self.requests.append(request.model_copy(update={"messages": (), "tools": None}))
        if request.omitted is not None:
            self.omitted, self.sent, self.answers = request.omitted, (), ()
            return
        messages = (*self._known()[: request.repeats], *request.messages)
        if request.repeats > len(self._known()):
            self.omitted = "a request before is missing"
            return
        if not _begins_with(messages, self.sent):
            self.branched_at = self.branched_at or len(self.requests)
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
            return _BRANCHED.format(number=self.branched_at, total=len(self.requests))
        if len(self.answers) > 1:
            return f"its last request has {len(self.answers)} answers, and which one was used is not known"
        return None

    def trajectory(self, reward: float, target: str) -> Trajectory:
        """The conversation as an episode of ``target`` that was judged ``reward``. It must have no ``fault``."""
        last, first = self.requests[-1], self.requests[0]
        counted = [request.usage for request in self.requests if request.usage is not None]
        return Trajectory(
            id=self.name,
            target=target,
            task=self.name,
            split="train",
            seed=seed_of(self.name),
            trial=0,
            policy=first.policy,
            messages=(*self.sent, *(answer.message for answer in self.answers)),
            tools=self.tools,
            reward=reward,
            termination=_termination(last, self.answers),
            usage=Usage(
                prompt_tokens=sum(usage.prompt_tokens for usage in counted),
                completion_tokens=sum(usage.completion_tokens for usage in counted),
            ),
            seconds=sum(request.seconds for request in self.requests),
            extra=self._extra(len(self.requests) - len(counted)),
        )

    def _known(self) -> tuple[Message, ...]:
        """What a request may repeat."""
        return (*self.sent, self.answers[0].message) if len(self.answers) == 1 else self.sent

    def _extra(self, unknown: int) -> dict[str, Any]:
        thoughts = [answer.reasoning for request in self.requests for answer in request.answers[:1]]
        found: dict[str, Any] = {
            "requests": len(self.requests),
            "models": sorted({request.model for request in self.requests}),
            "adapters": sorted({request.policy.adapter or "base" for request in self.requests}),
            "turns_of_unknown_usage": unknown,
            "reasoning": {str(turn): text for turn, text in enumerate(thoughts) if text},
            "cut": self.requests[-1].cut,
        }
        return {name: value for name, value in found.items() if value}


def read_conversations(path: PathLike) -> dict[str, ServedConversation]:
    """The conversations in a gateway's record, by name. Raises UserError as ``read_records`` does."""
    found: dict[str, ServedConversation] = {}
    for request in read_records(path, ServedRequest):
        found.setdefault(request.conversation, ServedConversation(request.conversation)).add(request)
    return found


def _begins_with(messages: Sequence[Message], start: Sequence[Message]) -> bool:
    if len(messages) < len(start):
        return False
    return all(a is b or same_text(a) == same_text(b) for a, b in zip(messages, start, strict=False))


def _termination(last: ServedRequest, answers: Sequence[ServedAnswer]) -> Termination:
    if last.cut is not None:
        return "user_stop"
    return "max_tokens" if any(answer.finish_reason == "length" for answer in answers) else "done"
