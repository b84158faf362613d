"""The base class of an environment that trains one capability."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from trace_jax.contract.trajectory import Check
from trace_jax.environments import protocol
from trace_jax.environments.kit.checks import progress
from trace_jax.environments.kit.environment import Environment
from trace_jax.environments.kit.parts import changed_parts
from trace_jax.environments.kit.scenario import Scenario
from trace_jax.environments.protocol import Prompts, Task, seed_of
from trace_jax.errors import UserError

S = TypeVar("S")

_DRAWS = 100  # of a scenario in which something is to be done


class Exercise(Environment[S]):
    """An environment in which most episodes need a capability. ``draw`` draws these, and ``draw_routine`` the others.

    The reward says how far the agent came: see ``checks.progress``. A subclass may bring ``hint(self)``, a text that
    helps with episodes like the current one without giving its answer away.

    Attributes:
        contrast_every: every so-many-th task is routine, so that the policy does not learn to always do the unusual; 0
            for none.
    """

    contrast_every: int = 0

    def draw_routine(self, rng: Random) -> Scenario[S] | None:
        """A scenario that does not need the capability, or None if there are none."""
        return None

    def prompts(self, seed: int, combined_with: protocol.Environment | None = None) -> Prompts:
        """Openings of both sorts of episodes; none is combined with another environment."""
        exercised = self._opening(self.draw(Random(f"{self.name}/prompts/{seed}")))
        routine = self.draw_routine(Random(f"{self.name}/prompts/{seed}"))
        return Prompts(exercised, () if routine is None else self._opening(routine))

    def reward(self, checks: Sequence[Check]) -> float:
        """The share of what was to be done that was done, less for what was not."""
        scenario = self.scenario
        return progress(scenario.initial, scenario.expected, self.world, scenario.requests, self._answers)

    def _drawn_for(self, task: Task, rng: Random) -> Scenario[S]:
        """A scenario in which something is to be done: requests that undo one another are drawn again."""
        contrast = self.contrast_every and seed_of(task) % self.contrast_every == 0
        for _ in range(_DRAWS):
            routine = self.draw_routine(rng) if contrast else None
            scenario = self.draw(rng) if routine is None else routine
            if not scenario.requests or _asks(scenario):
                return scenario
        raise UserError(
            f"environment {self.name!r}: {_DRAWS} draws for task {task!r}, and the calls of none change the state, nor "
            "are there words to say: whoever does nothing would earn 1"
        )


def _asks(scenario: Scenario[Any]) -> bool:
    said = any(request.must_say for request in scenario.requests)
    return said or any(changed_parts(scenario.initial, scenario.expected))
