"""The kit: environments and targets in a few lines, from a state dataclass with tool methods. Needs pydantic alone.

    @dataclass
    class Lamps:
        on: dict[str, bool]

        @kit.tool
        def switch(self, room: str, on: bool) -> bool:
            '''Switch the lamp of a room on or off.'''
            if room not in self.on:
                raise kit.ToolError(f"no room {room}")
            self.on[room] = on
            return on

    class Lights(kit.Environment[Lamps]):
        name, policy, state_type = "lights", "You switch lamps. Tell what you did.", Lamps

        def draw(self, rng: Random) -> kit.Scenario[Lamps]:
            scenario = kit.Scenario(Lamps({room: rng.random() < 0.5 for room in ("hall", "bath", "attic")}))
            room, on = rng.choice(["hall", "bath", "attic"]), rng.random() < 0.5
            text = f"Switch the {room} lamp {'on' if on else 'off'}."
            scenario.add(kit.Request(text, (kit.call("switch", room=room, on=on),)))
            return scenario

    def lights(train: int = 8, held_out: int = 8) -> kit.Target:
        return kit.Target(Lights, train=train, held_out=held_out)

``kit.Exercise`` is the base class of an environment that trains one capability, and ``kit.offered`` takes tools as a
target words them: see ``examples/environments``.

The names are imported at once, not lazily: type checkers see the base classes, and a worker in another Python
environment needs no further package.
"""

from trace_jax.environments.kit.arithmetic import arithmetic
from trace_jax.environments.kit.environment import Environment
from trace_jax.environments.kit.exercise import Exercise
from trace_jax.environments.kit.offered import offered
from trace_jax.environments.kit.practice import PracticeTarget
from trace_jax.environments.kit.scenario import Request, Scenario, call
from trace_jax.environments.kit.target import Target
from trace_jax.environments.kit.tools import Effects, ToolError, effects, look_up, results, tool, tools

__all__ = [
    "Effects",
    "Environment",
    "Exercise",
    "PracticeTarget",
    "Request",
    "Scenario",
    "Target",
    "ToolError",
    "arithmetic",
    "call",
    "effects",
    "look_up",
    "offered",
    "results",
    "tool",
    "tools",
]
