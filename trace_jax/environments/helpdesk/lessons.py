"""Practice tickets of the desk: lessons for a new agent, and requests of chosen kinds, with their solutions."""

from collections.abc import Sequence

import numpy as np

from trace_jax.contract.trajectory import Message
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.draw import customer, draw_from, draw_task
from trace_jax.environments.helpdesk.requests import (
    ALL,
    Builder,
    Path,
    Request,
    dearer,
    dearest,
    price_of_two,
    refund_two,
)
from trace_jax.environments.helpdesk.ticket import Ticket, draw_ticket
from trace_jax.environments.practice.path import path
from trace_jax.environments.protocol import PracticeRequest, PracticeTask

# Kinds that are drawn several times as often: adding, and finding the last of a list, take a small model the longest.
_OFTENER: dict[Builder, int] = {refund_two: 3, price_of_two: 3, dearer: 4, dearest: 7}
_LESSONS = tuple(builder for builder in ALL for _ in range(_OFTENER.get(builder, 1)))
_BUILDERS: dict[str, Builder] = {builder.__name__: builder for builder in ALL}
KINDS = tuple(_BUILDERS)


def draw_lesson(requests: int, seed: int) -> Ticket:
    """A ticket of the practice source with ``requests`` requests, hard kinds oftener than the others."""

    def make(rng: np.random.Generator) -> Ticket:
        return draw_ticket(rng, customer(rng), [_LESSONS[rng.integers(len(_LESSONS))] for _ in range(requests)])

    return draw_from("practice", make, "helpdesk", "lesson", requests, seed)


def draw_practice(seed: int, kinds: Sequence[str]) -> Ticket:
    """A ticket of the practice source with one request of each of ``kinds``; without kinds, one like a task."""
    if not kinds:
        return draw_task("practice", seed)

    def make(rng: np.random.Generator) -> Ticket:
        return draw_ticket(rng, customer(rng), [_BUILDERS[kind] for kind in kinds])

    return draw_from("practice", make, "helpdesk", "practice", *kinds, seed)


def practice_task(ticket: Ticket) -> PracticeTask:
    """A ticket as a practice task."""
    requests = tuple(_request(request) for request in ticket.requests)
    return PracticeTask(requests, lambda: Desk("practice", lambda _: ticket))


def _request(request: Request) -> PracticeRequest:
    wrong = None if request.wrong is None else _messages(request.wrong)
    return PracticeRequest(request.kind, request.text, _messages(request.right), request.must_say, wrong)


def _messages(taken: Path) -> tuple[Message, ...]:
    return path(*taken.calls, taken.reply)
