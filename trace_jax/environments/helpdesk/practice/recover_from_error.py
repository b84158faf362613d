"""Recover from a tool error."""

from trace_jax.environments.helpdesk.practice.desk import PracticeDesk, Turn
from trace_jax.environments.helpdesk.requests import Request, cancel, cancel_locked, refund_item, status, status_timeout


class RecoverFromError(PracticeDesk):
    """A locked order, or a look-up that times out once. Routine: neither."""

    capability = "recover_from_error"
    offered = ("get_order", "cancel_order", "unlock_order", "refund")
    exercises = (cancel_locked, status_timeout)
    routines = (cancel, status, refund_item)

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether the error was met and answered: the order unlocked, or the look-up that timed out made again."""
        look_up, second = request.right.calls[:2]
        if second == look_up:
            return turn.calls.count(look_up) > 1
        return second in turn.calls and ("unlock_order", look_up[1]) in turn.calls
