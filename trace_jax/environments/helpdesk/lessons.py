"""Tickets that teach a new agent the desk: a given number of requests of any kind."""

import numpy as np

from trace_jax.environments.helpdesk.draw import customer, draw_from
from trace_jax.environments.helpdesk.requests import (
    BY_CAPABILITY,
    ROUTINE,
    Builder,
    dearer,
    dearest,
    price_of_two,
    refund_two,
)
from trace_jax.environments.helpdesk.ticket import Ticket, draw_ticket

# Kinds that are drawn several times as often: adding, and finding the last of a list, take a small model the longest.
_OFTENER: dict[Builder, int] = {refund_two: 3, price_of_two: 3, dearer: 4, dearest: 7}
_ALL = (*ROUTINE, *(builder for builders in BY_CAPABILITY.values() for builder in builders))
_KINDS = tuple(builder for builder in _ALL for _ in range(_OFTENER.get(builder, 1)))


def draw_lesson(requests: int, seed: int) -> Ticket:
    """A ticket of the practice source with ``requests`` requests, hard kinds oftener than the others."""

    def make(rng: np.random.Generator) -> Ticket:
        return draw_ticket(rng, customer(rng), [_KINDS[rng.integers(len(_KINDS))] for _ in range(requests)])

    return draw_from("practice", make, "helpdesk", "lesson", requests, seed)
