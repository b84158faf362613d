"""Do every part of a compound request."""

from trace_jax.environments.helpdesk.practice.desk import PracticeDesk, Turn
from trace_jax.environments.helpdesk.requests import (
    Request,
    buy,
    cancel,
    city_and_cancel,
    city_and_status,
    new_city,
    refund_item,
    status,
)


class CompleteAllSteps(PracticeDesk):
    """Two things are asked for at once. Routine: one thing."""

    capability = "complete_all_steps"
    offered = ("get_order", "cancel_order", "set_city", "refund", "place_order")
    exercises = (city_and_status, city_and_cancel)
    routines = (cancel, new_city, status, refund_item, buy)

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether the first part was done as asked and the other one begun."""
        return all(call in turn.calls for call in request.right.calls[:2])
