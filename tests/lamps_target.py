"""A small target for the tests of the language model designer, lamps that an agent lists and switches off, and what a
model writes for it: the example of its prompt."""

import re
from dataclasses import dataclass
from random import Random
from typing import Any

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Authorship, Design, EnvironmentManifest, source_sha256
from trace_jax.environments import kit
from trace_jax.llm.prompts import prompt
from trace_jax.synthesis.calibration import Window
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.llm.designer import PACKAGE
from trace_jax.synthesis.llm.form import Knob, WrittenModule
from trace_jax.synthesis.llm.values import prompt_values

ROOMS = ("kitchen", "hall", "attic")


@dataclass
class Lamp:
    room: str
    on: bool


@dataclass
class Lamps:
    lamps: dict[str, Lamp]

    @kit.tool
    def list_lamps(self) -> dict[str, Lamp]:
        """List the lamps by id."""
        return self.lamps

    @kit.tool
    def switch_off(self, lamp_id: str) -> Lamp:
        """Switch a lamp off.

        Args:
            lamp_id: Id of the lamp, such as L17
        """
        lamp = kit.look_up(self.lamps, lamp_id, "lamp")
        lamp.on = False
        return lamp


class LampDesk(kit.Environment[Lamps]):
    name, state_type = "lamps", Lamps
    policy = "You switch lamps. Look before you switch."

    def draw(self, rng: Random) -> kit.Scenario[Lamps]:
        lamps = {f"L{number}": Lamp(rng.choice(ROOMS), True) for number in rng.sample(range(100, 999), 4)}
        scenario = kit.Scenario(Lamps(lamps))
        key = rng.choice(list(lamps))
        calls = (kit.call("list_lamps"), kit.call("switch_off", lamp_id=key))
        scenario.add(kit.Request(f"Switch {key} off, will you?", calls))
        return scenario


def lamps(train: int = 8, held_out: int = 8) -> kit.Target:
    return kit.Target(LampDesk, train=train, held_out=held_out)


OWN = Design(entry_point="lamps_target:lamps", parameters={})
LOOK_FIRST = Candidate(name="look_first", description="Look before you act.")


def example() -> str:
    """The module that the prompt shows."""
    brief = make_brief(LOOK_FIRST, OWN, lamps())
    text = prompt(PACKAGE, "design", **prompt_values(brief, (), Window())).messages[0]["content"]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1)


def written(module: str | None = None, first: int = 2, **changes: Any) -> WrittenModule:
    """An answer of the designer's model."""
    knobs = [
        Knob(parameter="wanted", meaning="lamps to switch off", values=[1, 2, 3, 4], first=first),
        Knob(parameter="lamps", meaning="lamps in the house", values=[5, 8], first=8),
    ]
    answer = WrittenModule(
        plan="Look first.",
        class_name="LampsExercise",
        tools=["list_lamps", "switch_off"],
        knobs=knobs,
        module=example(),
    )
    return answer.model_copy(update=changes if module is None else {"module": module, **changes})


def design() -> Design:
    """The design of the example."""
    made = written()
    return made.design(made.first, lamps().tools)


def manifest(made: Design, **changes: Any) -> EnvironmentManifest:
    """A manifest of a design that a model wrote."""
    author = Authorship(
        model="m", prompts=("design@1",), source_sha256=source_sha256(made.source or ""), requests=1, prompt_tokens=2,
        completion_tokens=3, dollars=None,
    )  # fmt: skip
    return EnvironmentManifest(
        name="look_first", capability="look_first", target=OWN.entry_point, designer="llm", design=made, gates=(),
        calibration=None, rollouts=0, written_by=author,
    ).replace(**changes)  # fmt: skip
