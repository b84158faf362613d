"""What the gateway served: one record a request. ``launch.label_rewards`` joins them with rewards into trajectories."""

from pydantic import Field

from trace_jax.contract.record import Part, Record
from trace_jax.contract.trajectory import Message, Policy, Tool, Usage


class ServedAnswer(Part):
    """One answer. ``finish_reason`` is None if the answer was cut off; ``reasoning`` is thinking beside the text."""

    message: Message
    reasoning: str = ""
    finish_reason: str | None = None


class ServedRequest(Record):
    """One request that the gateway answered. It has no reward: nobody has judged it yet.

    The requests of a conversation begin with the messages of the request before, so these are not written again: the
    request's messages are the first ``repeats`` of what is recorded of the conversation so far (its messages and, if
    there was one, its answer), then ``messages``. ``tools`` are None if they are those of the request before.

    Attributes:
        conversation: as the log of route decisions names it: the value of X-Trace-Conversation, behind ``KEY/`` if the
            gateway has API keys.
        time: when the response began, in seconds since 1970 (UTC).
        model: as the client named it.
        policy: the revision of the base, and the adapters that served.
        answers: one for each of the ``n`` that the request wants.
        seconds: from the request to the end of its response.
        cut: why the response did not reach its end.
        omitted: why messages and answers are not recorded.
    """

    conversation: str
    time: float
    model: str
    policy: Policy
    repeats: int = Field(default=0, ge=0)
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] | None = None
    answers: tuple[ServedAnswer, ...] = ()
    usage: Usage | None = None
    seconds: float = 0.0
    cut: str | None = None
    omitted: str | None = None
