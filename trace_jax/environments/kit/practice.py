"""A target of the kit that brings practice requests."""

from collections.abc import Callable, Sequence
from typing import Any

from trace_jax.environments.kit.environment import Environment
from trace_jax.environments.kit.scenario import Request, Scenario, messages
from trace_jax.environments.kit.target import Target
from trace_jax.environments.protocol import PracticeRequest, PracticeTask
from trace_jax.errors import UserError


class PracticeTarget(Target):
    """A target whose environments draw requests of any of ``kinds``: ``draw`` keeps to ``self.kinds`` if there are any.

    Practice comes from scenarios of the source "practice", so no conversation of it is in a split.
    """

    def __init__(
        self, make: Callable[[], Environment[Any]], *, train: int, held_out: int, kinds: Sequence[str]
    ) -> None:
        super().__init__(make, train=train, held_out=held_out)
        self.request_kinds = tuple(kinds)

    def practice(self, seed: int, kinds: Sequence[str] = ()) -> PracticeTask:
        """One request of each of ``kinds``, in that order; without kinds, requests as a task has them."""

        drawn = self._make()
        drawn.source, drawn.kinds = "practice", tuple(kinds)
        drawn.reset(seed)
        return PracticeTask(
            tuple(practice_request(request) for request in drawn.scenario.requests),
            lambda: self._opened(drawn.scenario),
        )

    def _opened(self, scenario: Scenario[Any]) -> Environment[Any]:
        made = self._make()
        made.source, made._drawn = "practice", scenario
        return made


def practice_request(request: Request) -> PracticeRequest:
    """A request of a scenario, with its solution and its mistake. Raises UserError for one without a kind."""
    if not request.kind:
        raise UserError(f"practice request {request.text!r} has no kind: give one to kit.Request")
    wrong = messages(*request.mistake) if request.mistake else None
    return PracticeRequest(request.kind, request.text, request.solution, request.must_say, wrong)
