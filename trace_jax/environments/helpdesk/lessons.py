"""Practice for a newcomer to the desk: tickets of a given number of requests of any kind."""

import numpy as np

from trace_jax.environments.helpdesk.requests import BY_CAPABILITY, ROUTINE
from trace_jax.environments.helpdesk.target import customer, draw_from
from trace_jax.environments.helpdesk.ticket import Ticket, draw_ticket

# Adding, and finding the last of a list, take a small model longest to learn.
_HARD = (*BY_CAPABILITY["compute_over_values"], *BY_CAPABILITY["choose_under_constraints"])
_KINDS = (*ROUTINE, *(builder for builders in BY_CAPABILITY.values() for builder in builders), *2 * _HARD)


def draw_lesson(requests: int, seed: int) -> Ticket:
    """A ticket of the practice source with ``requests`` requests, hard kinds three times as likely as the others."""

    def make(rng: np.random.Generator) -> Ticket:
        return draw_ticket(rng, customer(rng), [_KINDS[rng.integers(len(_KINDS))] for _ in range(requests)])

    return draw_from("practice", make, "helpdesk", "lesson", requests, seed)
