"""Do every part of a compound request."""

from trace_jax.environments.helpdesk.requests import Request, cancel, city_and_cancel, city_and_status, new_city, status
from trace_jax.synthesis.families.practice import PracticeDesk, Turn, changes


class CompleteAllSteps(PracticeDesk):
    """Two things are asked for at once. Routine: one of them."""

    capability = "complete_all_steps"
    offered = ("get_order", "cancel_order", "set_city")
    exercises = (city_and_status, city_and_cancel)
    lookalikes = (cancel, new_city, status)

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether the part that comes last was acted on as well as another one."""
        return request.right.calls[-1] in turn.calls and bool(changes(turn.before, turn.after))
