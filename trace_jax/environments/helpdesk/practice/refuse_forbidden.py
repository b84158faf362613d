"""Refuse what the policy forbids, and say why."""

from trace_jax.environments.helpdesk.practice.desk import PracticeDesk, Turn
from trace_jax.environments.helpdesk.requests import Request, cancel, cancel_forbidden, refund_forbidden, refund_item


class RefuseForbidden(PracticeDesk):
    """The order's status forbids what is asked for. Routine: it allows it."""

    capability = "refuse_forbidden"
    offered = ("get_order", "cancel_order", "refund")
    exercises = (cancel_forbidden, refund_forbidden)
    routines = (cancel, refund_item)

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether the order was looked up (and, as for all progress, nothing was changed that should not be)."""
        return request.right.calls[0] in turn.calls
