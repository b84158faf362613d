"""The same requests in a customer's own words."""

import re
from dataclasses import replace

import numpy as np

from trace_jax.environments.helpdesk.requests import Request

# The pattern of a request's text, and other phrases with the same particulars.
_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"What is the status of order (\w+)\?",
        (
            "Where is my order {0}?",
            "Could you tell me how far order {0} has come?",
            "Has {0} left your shop yet?",
            "I have heard nothing about {0}, what is going on?",
            "Any news on order {0}?",
        ),
    ),
    (
        r"Please change my city to (\w+)\.",
        (
            "I have moved to {0}.",
            "I live in {0} now, please put that on file.",
            "My new home is {0}, could you update it?",
            "From now on my city is {0}.",
        ),
    ),
    (
        r"Please cancel order (\w+)\.",
        (
            "I do not want {0} any more.",
            "Could you stop order {0}?",
            "I changed my mind, call off {0}.",
            "{0} was a mistake, please drop it.",
            "Order {0} should be cancelled.",
        ),
    ),
    (
        r"Please refund the (\w+) of order (\w+)\.",
        (
            "The {0} in order {1} is broken, I want my money back.",
            "I would like to be paid back for the {0} of {1}.",
            "Can I have a refund for the {0} I got with {1}?",
            "The {0} from {1} does not work, please return what I paid.",
        ),
    ),
    (
        r"Please resend order (\w+) to (\w+)\.",
        (
            "{0} never came, send it again, to {1} this time.",
            "Could you ship order {0} once more, to {1}?",
            "My parcel {0} got lost. I am in {1} now, please post a new one there.",
            "Send {0} to {1} again, please.",
        ),
    ),
)


def reworded(request: Request, rng: np.random.Generator) -> Request:
    """``request`` in its own words or in one of the phrases, each as likely as any other.

    Raises ValueError for a kind of request that is not in the book.
    """
    for pattern, phrases in _PHRASES:
        if (match := re.fullmatch(pattern, request.text)) is not None:
            which = int(rng.integers(1 + len(phrases)))
            return request if which == 0 else replace(request, text=phrases[which - 1].format(*match.groups()))
    raise ValueError(f"request {request.text!r} is not in the phrase book: add its phrases")
