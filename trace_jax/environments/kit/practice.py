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
        drawn = self._of_kinds(kinds)
        drawn.reset(seed)
        return self._task(drawn.scenario)

    def other_goal(self, seed: int, kinds: Sequence[str] = ()) -> PracticeTask | None:
        """The practice task of ``seed`` with another goal on the same state, for a gate alone; None if none is found.

        It may be what a user says in a task.
        """
        drawn = self._of_kinds(kinds)
        return None if drawn.mutant(seed) is None else self._task(drawn.scenario)

    def _of_kinds(self, kinds: Sequence[str]) -> Environment[Any]:
        made = self._make()
        made.source, made.kinds = "practice", tuple(kinds)
        return made

    def _task(self, scenario: Scenario[Any]) -> PracticeTask:
        return PracticeTask(
            tuple(practice_request(request) for request in scenario.requests), lambda: self._opened(scenario)
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
