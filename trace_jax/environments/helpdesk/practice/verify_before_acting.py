"""Look the fact up before acting on what somebody said in passing."""

from trace_jax.environments.helpdesk.practice.desk import PracticeDesk, Turn, changes
from trace_jax.environments.helpdesk.requests import (
    Request,
    cancel,
    refund_item,
    refund_recalled,
    resend_on_file,
    resend_to,
    status,
)


class VerifyBeforeActing(PracticeDesk):
    """A city or a price is recalled, and wrong. Routine: the city is named, the price is not."""

    capability = "verify_before_acting"
    offered = ("get_customer", "get_order", "refund", "resend_order", "cancel_order")
    exercises = (resend_on_file, refund_recalled)
    routines = (resend_to, refund_item, status, cancel)

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether the record was looked up and something was done."""
        return request.right.calls[0] in turn.calls and bool(changes(turn.before, turn.after))
