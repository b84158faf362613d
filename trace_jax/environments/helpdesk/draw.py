"""Draws tickets, and decides which source each ticket belongs to: a split of the target, or practice."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Literal

import numpy as np

from trace_jax.environments.helpdesk.database import CUSTOMERS
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY, ROUTINE, Builder
from trace_jax.environments.helpdesk.ticket import Ticket, draw_ticket

PAIR_SHARE = 0.2  # share of tickets that turn on two capabilities

Source = Literal["train", "held_out", "practice"]
_SOURCES: tuple[Source, ...] = ("train", "held_out", "practice")


def generator(*key: object) -> np.random.Generator:
    """A random generator that depends on the key alone, on every platform."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def source_of(ticket: Ticket) -> Source:
    """The source of a ticket, by a hash of everything that the customer says: no text is in two sources."""
    said = "\n".join((ticket.opening(), *(request.text for request in ticket.requests)))
    return _SOURCES[hashlib.sha256(said.encode()).digest()[0] % len(_SOURCES)]


def draw_from(source: Source, make: Callable[[np.random.Generator], Ticket], *key: object) -> Ticket:
    """The first ticket of ``source`` that ``make`` draws from the generators of ``key``."""
    tickets = (make(generator(*key, attempt)) for attempt in count())
    return next(ticket for ticket in tickets if source_of(ticket) == source)


def customer(rng: np.random.Generator) -> str:
    """A customer id."""
    return CUSTOMERS[rng.integers(len(CUSTOMERS))]


def _pick(rng: np.random.Generator, builders: tuple[Builder, ...], count: int) -> list[Builder]:
    return [builders[rng.integers(len(builders))] for _ in range(count)]


@lru_cache(maxsize=1024)  # the rollouts of a group play the same ticket, and nothing changes it
def draw_task(source: Source, seed: int) -> Ticket:
    """A ticket of three or four requests that turns on one capability (2 or 3 of the requests), sometimes on two.

    Seeds take the capabilities in turn, so that every split has the same number of tickets of each.
    """
    names = sorted(BY_CAPABILITY)
    first = names.pop(seed % len(names))

    def make(rng: np.random.Generator) -> Ticket:
        if rng.random() < PAIR_SHARE:
            counts = {first: int(rng.integers(1, 3)), names[rng.integers(len(names))]: 1}
        else:
            counts = {first: int(rng.integers(2, 4))}
        builders = [builder for name, times in counts.items() for builder in _pick(rng, BY_CAPABILITY[name], times)]
        builders += _pick(rng, ROUTINE, int(rng.integers(3, 5)) - len(builders))
        return draw_ticket(rng, customer(rng), [builders[i] for i in rng.permutation(len(builders))])

    return draw_from(source, make, "helpdesk", source, seed)
