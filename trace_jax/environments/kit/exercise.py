"""The base class of an environment that trains one capability."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from trace_jax.contract.trajectory import Check, Message
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
        """Openings of both sorts of episodes. With another exercise, the user asks for what both open with at once."""
        exercised = self._opening(self.draw(Random(f"{self.name}/prompts/{seed}")))
        drawn = self.draw_routine(Random(f"{self.name}/prompts/{seed}"))
        routine = () if drawn is None else self._opening(drawn)
        if not isinstance(combined_with, Exercise):  # another kind of environment may need what this one exercises
            return Prompts(exercised, routine)
        other_first = Random(f"{self.name}/order/{seed}").random() < 0.5
        return Prompts(exercised, routine, _both(exercised, combined_with.prompts(seed).exercised, other_first))

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


class ShownExercise(Exercise[Any]):
    """An exercise in another process, of which nothing is known but its prompts of one seed."""

    def __init__(self, name: str, prompts: Prompts) -> None:
        self.name, self._prompts = name, prompts

    def prompts(self, seed: int, combined_with: protocol.Environment | None = None) -> Prompts:
        """Those prompts, whatever the seed is."""
        return self._prompts


def _both(own: tuple[Message, ...], other: tuple[Message, ...], other_first: bool) -> tuple[Message, ...]:
    """The opening ``own``, in which the user also asks what the user of ``other`` asks last. Empty if one does not."""
    if not other or own[-1].role != "user" or other[-1].role != "user":
        return ()
    texts = [own[-1].content or "", other[-1].content or ""]
    return (*own[:-1], Message(role="user", content=" ".join(reversed(texts) if other_first else texts)))


def _asks(scenario: Scenario[Any]) -> bool:
    said = any(request.must_say for request in scenario.requests)
    return said or any(changed_parts(scenario.initial, scenario.expected))
