"""Claims: an exercise pays for progress and charges for damage; tools are a target's own; arithmetic runs no code."""

import json
from dataclasses import dataclass
from random import Random

import pytest

from trace_jax.contract.trajectory import Message
from trace_jax.environments import kit
from trace_jax.environments.kit.exercise import ShownExercise
from trace_jax.environments.protocol import Prompting, Prompts
from trace_jax.errors import UserError

SWITCH = {
    "name": "switch",
    "description": "Switch a lamp.\n\nTell which.",
    "parameters": {
        "title": "parameters",
        "type": "object",
        "properties": {"room": {"title": "Room", "type": "string"}, "on": {"title": "On", "type": "boolean"}},
        "required": ["room", "on"],
    },
}


@dataclass
class Lamps:
    on: dict[str, bool]

    @kit.tool
    def switch(self, room: str, on: bool) -> str:
        """Switch the lamp of a room on or off."""
        kit.look_up({room: True for room in self.on}, room, "room")
        self.on[room] = on
        return f"{room} is {'on' if on else 'off'}"


class Lights(kit.Exercise[Lamps]):
    name, policy, state_type, tools = "lights", "You switch lamps.", Lamps, kit.offered(json.dumps([SWITCH]))

    def __init__(self, contrast_every: int = 0) -> None:
        self.contrast_every = contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Lamps]:
        return self.asked(rng, "Light the hall and the bath", ("hall", "bath"))

    def draw_routine(self, rng: Random) -> kit.Scenario[Lamps]:
        return self.asked(rng, "Light the attic", ("attic",))

    def asked(self, rng: Random, text: str, rooms: tuple[str, ...]) -> kit.Scenario[Lamps]:
        scenario = kit.Scenario(Lamps(dict.fromkeys(("hall", "bath", "attic"), False)))
        calls = tuple(kit.call("switch", room=room, on=True) for room in rooms)
        scenario.add(kit.Request(f"{text} ({rng.randrange(10**6)}).", calls, ("lit",)))
        return scenario

    def tool_text(self, result: object) -> str:
        return result if isinstance(result, str) else json.dumps(result)

    def error_text(self, problem: str) -> str:
        return f"Error: {problem}"


def rewarded(*steps, seed=1):
    """The reward after switching the lamps named, and saying the texts that end with a dot."""
    environment = Lights()
    environment.reset(seed)
    for step in steps:
        calls = () if step.endswith(".") else (kit.call("switch", room=step, on=True),)
        environment.step(Message(role="assistant", content=step if not calls else None, tool_calls=calls))
    return environment.grade().reward


def test_the_reward_is_the_share_done_and_every_damage_halves_it():
    assert rewarded("hall", "bath", "All lit.") == 1.0
    assert rewarded("hall", "All lit.") == pytest.approx(2 / 3)
    assert rewarded("hall", "Hm.") == pytest.approx(1 / 3)
    assert rewarded("Done.") == 0.0
    assert rewarded("hall", "bath", "attic", "All lit.") == 0.5
    assert rewarded("hall", "bath") == pytest.approx(2 / 3 * 0.5)  # it never replied


def test_routine_episodes_come_in_between_and_prompts_show_both():
    environment = Lights(contrast_every=3)
    texts = [environment.reset(seed).messages[-1].content for seed in range(6)]
    assert ["attic" in text for text in texts] == [True, False, False] * 2
    before = environment.scenario
    assert isinstance(environment, Prompting)
    prompts = Lights().prompts(5)
    assert environment.prompts(5) == prompts and environment.scenario is before
    assert "hall" in prompts.exercised[-1].content and "attic" in prompts.routine[-1].content
    assert prompts.combined == () and prompts.exercised[0].role == "system"


def test_two_exercises_are_combined_by_a_user_who_asks_for_both_at_once():
    class Dark(Lights):
        name, policy, state_type = "dark", "Save light.", Lamps

        def draw(self, rng):
            scenario = kit.Scenario(Lamps({"hall": True}))
            scenario.add(kit.Request("All dark.", (kit.call("switch", room="hall", on=False),)))
            return scenario

    asked = set()
    for seed in range(8):
        prompts = Lights().prompts(seed, Dark())
        own = prompts.exercised[-1].content
        assert prompts.combined[:-1] == prompts.exercised[:-1]
        assert prompts.combined[-1].content in (f"{own} All dark.", f"All dark. {own}")
        asked.add(prompts.combined[-1].content.startswith("All dark."))
        assert (prompts.exercised, prompts.routine) == ((alone := Lights().prompts(seed)).exercised, alone.routine)
    assert asked == {True, False}
    assert Lights().prompts(0, ShownExercise("silent", Prompts(()))).combined == ()


def test_an_exercise_is_not_combined_with_another_kind_of_environment_which_may_need_the_same():
    class Other:
        name, prompts = "other", Lights.prompts

    assert Lights().prompts(0, Other()).combined == ()


def test_an_episode_in_which_nothing_is_to_be_done_is_drawn_again():
    class Undone(Lights):
        never = False

        def draw(self, rng):
            scenario = kit.Scenario(Lamps({"hall": False}))
            on = (kit.call("switch", room="hall", on=True),)
            off = (kit.call("switch", room="hall", on=False),)
            undo = self.never or rng.random() < 0.5
            scenario.add(kit.Request("On and off." if undo else "On.", on + off if undo else on))
            return scenario

    texts = {Undone().reset(seed).messages[-1].content for seed in range(20)}
    assert texts == {"On."}
    Undone.never = True
    with pytest.raises(UserError, match="100 draws for task 3, and the calls of none change the state"):
        Undone().reset(3)


def test_results_and_refusals_are_worded_as_the_target_words_them():
    environment = Lights()
    environment.reset(1)
    calls = (kit.call("switch", room="hall", on=True), kit.call("switch", room="cave", on=True))
    answers = environment.step(Message(role="assistant", tool_calls=calls)).messages
    assert [answer.content for answer in answers] == ["hall is on", "Error: no room cave"]


def test_tools_may_be_a_targets_own_and_be_folded():
    (tool,) = Lights.tools
    assert tool.offered() == SWITCH
    assert kit.offered(json.dumps([SWITCH], indent=1).replace("Switch a", "Switch\n    a")) == (tool,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{", "kit.offered: no list of tools: Expecting"),
        ('[{"name": "switch"}]', "0.description: Field required"),
        ("{}", "Input should be a valid tuple"),
    ],
)
def test_what_is_no_list_of_tools_says_so(text, words):
    with pytest.raises(UserError, match=words):
        kit.offered(text)


def test_an_offered_tool_needs_a_method_with_its_arguments():
    for changed, words in (
        ({"name": "dim"}, "environment Wrong: Lamps has no tool 'dim': it has"),
        (
            {"parameters": {"properties": {"room": {}}, "required": ["room"]}},
            r"switch is offered with properties \['room'\], and its method has \['on', 'room'\]",
        ),
        (
            {"parameters": SWITCH["parameters"] | {"required": ["room"]}},
            r"switch is offered with required \['room'\], and its method has \['on', 'room'\]",
        ),
    ):
        with pytest.raises(UserError, match=words):
            type("Wrong", (kit.Exercise,), {"state_type": Lamps, "tools": kit.offered(json.dumps([SWITCH | changed]))})


def test_arithmetic():
    assert kit.arithmetic("2 + 3 * (4 - 1.5) / 5") == 3.5
    assert kit.arithmetic(" -7 ") == -7.0
    for wrong in (
        "2 ** 9",
        "__import__('os')",
        "1 if 1 else 2",
        "True + 1",
        "(" * 150,
        "a",
        "",
        "1" * 201,
        "9" * 199 + "j",
    ):
        with pytest.raises(kit.ToolError):
            kit.arithmetic(wrong)
    with pytest.raises(kit.ToolError, match="division by zero"):
        kit.arithmetic("1 / 0")
    with pytest.raises(kit.ToolError):
        kit.arithmetic("*".join(["1e300"] * 5) + "*0")  # not a number
