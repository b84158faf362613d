"""A ticket: a customer, a short list of requests, and the shop as it stands when the customer writes."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from trace_jax.contract.trajectory import ToolCall
from trace_jax.environments.helpdesk.database import STATUSES, Database, Drawer
from trace_jax.environments.helpdesk.requests import Builder, Call, Request
from trace_jax.environments.helpdesk.tools import execute
from trace_jax.environments.kit import ToolError


@dataclass(frozen=True)
class Ticket:
    """``initial`` is the shop before anything was done."""

    customer: str
    requests: tuple[Request, ...]
    initial: Database

    @cached_property
    def expected(self) -> Database:
        """The shop after every request was done right."""
        return after_calls(self.initial, [call for request in self.requests for call in request.right.calls])

    def opening(self) -> str:
        """The customer's first message: who writes, the subject line, and the first request."""
        subject = "; ".join(request.subject for request in self.requests)
        return f"Customer {self.customer}. Subject: {subject}. {self.requests[0].text}"


def after_calls(database: Database, calls: Sequence[Call]) -> Database:
    """A copy of ``database`` as it stands after ``calls``."""
    changed = database.copy()
    for name, arguments in calls:
        with suppress(ToolError):  # the right path of some requests begins with a refused call
            execute(changed, ToolCall(id="right", name=name, arguments=arguments))
    return changed


def draw_ticket(rng: np.random.Generator, customer: str, builders: Sequence[Builder], bystanders: int = 2) -> Ticket:
    """Draw one request per builder for ``customer``, among ``bystanders`` unrelated orders of another customer."""
    drawer = Drawer(rng)
    drawer.customer(customer)
    other = drawer.customer("C" + str(10 + (int(customer[1:]) - 9) % 30))
    for _ in range(bystanders):
        drawer.order(other, drawer.choice(STATUSES))
    requests = tuple(replace(build(drawer, customer), kind=build.__name__) for build in builders)
    return Ticket(customer, requests, drawer.database)
