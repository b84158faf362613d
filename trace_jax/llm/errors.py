"""What may go wrong between a request and its answer. Every message names the URL or the file, and the model."""

from collections.abc import Sequence

from trace_jax.errors import EngineError, UserError


class LLMError(EngineError):
    """A request got no usable answer, however often it was sent.

    Attributes:
        status: the HTTP status of the last response; None without one, or if its body was no completion.
        code: the endpoint's own name of the fault, such as ``context_length_exceeded``; empty without one.
    """

    def __init__(self, message: str, *, status: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class EndpointRefused(LLMError):
    """No request will be answered until a user mends something: the key, the model's name, the URL or the credit."""


class EndpointUnreachable(LLMError):
    """No connection to the endpoint could be made."""


class PromptTooLong(LLMError):
    """The request is longer than the model's context. A shorter prompt may be answered."""


class AnswerRefused(LLMError):
    """The answer did not fit its form, and neither did the repaired one.

    Attributes:
        faults: of the last answer, one sentence each.
    """

    def __init__(self, message: str, faults: Sequence[str]) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class BudgetSpent(UserError):
    """The next request could exceed the budget, so it was not sent."""


class NotRecorded(UserError):
    """A replay needs an answer that is not on file."""
