"""Claims: a scenario grades itself, users follow a script or react, sources share nothing, pydantic is enough."""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from examples.calendar import KINDS, Calendar, calendar
from trace_jax.contract.trajectory import Check, Message
from trace_jax.environments import kit
from trace_jax.environments.kit.checks import says, state_checks
from trace_jax.environments.kit.environment import source_of
from trace_jax.environments.registry import load_target
from trace_jax.errors import UserError


def play(environment, task, messages=None):
    environment.reset(task)
    for message in environment.solution() if messages is None else messages:
        if environment.step(message).done:
            break
    return environment.grade()


def say(text="Done."):
    return Message(role="assistant", content=text)


@dataclass
class Lamps:
    on: dict[str, bool]
    note: str = ""

    @kit.tool
    def switch(self, room: str, on: bool) -> bool:
        """Switch the lamp of a room on or off."""
        self.on[kit.look_up(self.on, room, "room") is None or room] = on
        return on


class Lights(kit.Environment[Lamps]):
    name, policy, state_type = "lights", "You switch lamps.", Lamps

    def draw(self, rng: Random) -> kit.Scenario[Lamps]:
        scenario = kit.Scenario(Lamps({"hall": False, "bath": False, "attic": rng.random() < 0.5}))
        for room in ("hall", "bath"):
            call = kit.call("switch", room=room, on=True)
            scenario.add(kit.Request(f"The {room}, please ({rng.randrange(10**6)}).", (call,), (room,)))
        return scenario


def test_the_calendar_is_a_target_in_a_hundred_lines():
    target = load_target("examples.calendar:calendar", {"train": 12})
    assert len(target.tasks("train")) == 12 and len(target.tasks("held_out")) == 60
    assert not set(target.tasks("train")) & set(target.tasks("held_out"))
    kinds = Counter()
    for split in ("train", "held_out"):
        environment = target.environment(split)
        for task in target.tasks(split):
            assert play(environment, task).reward == 1.0
            kinds.update(request.kind for request in environment.scenario.requests)
            assert play(environment, task, [say()] * 9).reward == 0.0
            assert play(environment, task, environment.solution()[:-1]).reward == 0.0
    assert set(kinds) == set(KINDS)
    assert sum(bool(line.strip()) for line in open("examples/calendar.py")) <= 100


def test_checks_name_what_should_have_changed_or_has():
    environment = calendar().environment("train")
    task = next(
        t for t in range(60) if environment.reset(t) and [r.kind for r in environment.scenario.requests][0] == "move"
    )
    *_, move, _ = environment.scenario.requests[0].solution
    environment.step(move)
    failed = {check.name for check in environment.grade().checks if not check.passed}
    assert "answered" in failed and "move.meetings.hour" not in failed
    environment.reset(task)
    call = move.tool_calls[0]
    wrong = call.model_copy(update={"arguments": {**call.arguments, "hour": 9 if call.arguments["hour"] != 9 else 10}})
    environment.step(move.model_copy(update={"tool_calls": (wrong,)}))
    assert {check.name for check in environment.grade().checks if not check.passed} >= {
        "move.meetings.hour",
        "answered",
    }


def test_a_change_that_nobody_asked_for_fails_and_names_the_row():
    before, after = Lamps({"hall": False}), Lamps({"hall": True, "cellar": True}, "x")
    found = {check.name: check for check in state_checks(before, before, after)}
    assert set(found) == {"on", "note"} and not any(check.passed for check in found.values())
    assert found["on"].detail == "cellar: expected nothing, found True"
    assert not list(state_checks(before, before, Lamps({"hall": False})))
    environment = Lights()
    names = [check.name for check in play(environment, 0).checks if check.passed]
    assert names == ["on", "on", "reply", "reply", "answered"]
    environment.reset(0)
    extra = kit.call("switch", room="attic", on=not environment.world.on["attic"])
    messages = (Message(role="assistant", tool_calls=(extra,)), *environment.solution())
    outcome = play(environment, 0, messages)
    assert outcome.reward == 0.0
    assert [c.detail[:6] for c in outcome.checks if not c.passed] == ["attic:"]


@pytest.mark.parametrize(
    ("text", "words", "wanted"),
    [
        ("It is a Board meeting.", "board", True),
        ("onboarding", "board", False),
        ("14:00", "14", True),
        ("114", "14", False),
    ],
)
def test_words_of_a_reply(text, words, wanted):
    assert says(text, words) is wanted


def test_the_user_makes_one_request_a_turn():
    environment = Lights()
    system, first = environment.reset(3).messages
    assert system.content == "You switch lamps." and first.content.startswith("The hall")
    second = environment.step(say())
    assert not second.done and second.messages[0].content.startswith("The bath")
    assert environment.step(say()).done
    with pytest.raises(RuntimeError, match="step after the episode was done"):
        environment.step(say())


def test_a_user_may_react_to_the_reply():
    class Stubborn(Lights):
        """Insists once, and gives up if the agent is rude."""

        def user(self, reply: str) -> str | None:
            if reply == "no":
                return None
            return super().user(reply) if "sorry" in reply else "What?"

    environment = Stubborn()
    environment.reset(0)
    assert environment.step(say("hall")).messages[0].content == "What?"
    assert environment.step(say("sorry")).messages[0].content.startswith("The bath")
    assert environment.step(say("sorry, bath")).done
    said = {check.detail: check.passed for check in environment.grade().checks if check.name != "on"}
    assert said == {
        "request 1: wanted 'hall', found 'hall\\nsorry'": True,
        "request 2: wanted 'bath', found 'sorry, bath'": True,
        "2 of 2 requests": True,
    }
    environment.reset(0)
    environment.step(say("What hall?"))
    assert environment.step(say("no")).done
    assert {c.name for c in environment.grade().checks if not c.passed} == {"on", "reply", "answered"}


def test_checks_may_be_chosen_and_graded():
    class Named(Lights):
        graded = True

        def checks(self):
            return {"hall": self.world.on["hall"], "bath": self.world.on["bath"], "words": True}

    class More(Lights):
        def checks(self):
            yield from self.scenario_checks()
            yield Check(name="never", passed=False)

    environment = Named()
    outcome = play(environment, 0, environment.reset(0) and environment.solution()[:1])
    assert outcome.reward == pytest.approx(2 / 3)
    assert [(check.name, check.passed) for check in outcome.checks] == [
        ("hall", True),
        ("bath", False),
        ("words", True),
    ]
    assert play(More(), 0).reward == 0.0 and play(Lights(), 0).reward == 1.0


def test_an_environment_that_cannot_be_graded_or_drawn_says_so():
    class Ungraded(Lights):
        def checks(self):
            return {}

    class Silent(Lights):
        def draw(self, rng):
            return kit.Scenario(Lamps({}))

    class Monotonous(Lights):
        source = "train"

        def draw(self, rng):
            scenario = kit.Scenario(Lamps({}))
            scenario.add(kit.Request(text))
            return scenario

    with pytest.raises(UserError, match="environment 'lights': it has no check to grade by"):
        play(Ungraded(), 0)
    with pytest.raises(UserError, match="draw gave no request for task 'a'"):
        Silent().reset("a")
    text = "always the same"
    if source_of(Monotonous().draw(None)) == "train":
        Monotonous.source = "held_out"
    with pytest.raises(UserError, match="1000 draws for task 0 and none of source"):
        Monotonous().reset(0)

    class Undrawn(kit.Environment[Lamps]):
        name, policy, state_type = "undrawn", "", Lamps

    with pytest.raises(NotImplementedError, match="Undrawn has no draw"):
        Undrawn().reset(0)
    with pytest.raises(UserError, match="environment Plain: its state_type .* is no dataclass"):
        type("Plain", (kit.Environment,), {"state_type": type("State", (), {})})


def test_sources_share_no_conversation_and_tasks_differ():
    said: dict[str, set[str]] = {}
    for source in ("train", "held_out", "practice"):
        environment = Calendar()
        environment.source = source
        for task in (*range(100), "a name"):
            environment.reset(task)
            assert source_of(environment.scenario) == source
            said.setdefault(source, set()).add("\n".join(r.text for r in environment.scenario.requests))
    assert all(len(texts) == 101 for texts in said.values())
    assert len(set.union(*said.values())) == 303


def test_an_episode_changes_nothing_of_another():
    environment, other = Calendar(), Calendar()
    opening = environment.reset(5)
    state = environment.state()
    other.reset(5)
    for message in other.solution():
        other.step(message)
    assert environment.state() == state != other.state()
    assert environment.reset(5) == opening and environment.state() == state
    environment.state()["meetings"].clear()
    assert environment.state() == state


def test_the_first_request_may_be_answered_by_a_refused_call():
    scenario = kit.Scenario(Lamps({"hall": False}))
    scenario.add(kit.Request("Switch it on.", (kit.call("switch", room="cellar", on=True),)))
    assert scenario.expected == scenario.initial


def test_targets_need_tasks():
    for train in (0, True, "3"):
        with pytest.raises(UserError, match=f"target parameter train is {train!r}"):
            calendar(train=train)


def test_the_kit_needs_pydantic_alone():
    """A worker in another Python environment imports the kit; nothing heavy of ours may come along."""
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'jax', 'numpy', 'jsonschema', 'referencing', 'etils', 'absl'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from examples.calendar import calendar\n"
        "e = calendar().environment('train')\n"
        "e.reset(0)\n"
        "[e.step(m) for m in e.solution()]\n"
        "print(e.grade().reward, sorted(m for m in sys.modules if m.startswith('trace_jax')))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("1.0")
