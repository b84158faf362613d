"""Environments in the sandbox are what they are in this process, for the gates and for the agent loop."""

import asyncio
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from launch import check_sandbox
from trace_jax.contract.trajectory import Message
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.protocol import Prompting
from trace_jax.errors import UserError
from trace_jax.sandbox import Sandbox, SandboxedFactory, SandboxedModule, SandboxHost, SandboxSettings

SETTINGS = SandboxSettings(processes=2, step_seconds=20.0)
LAMPS = '''
from dataclasses import dataclass
from random import Random

from trace_jax.contract.trajectory import Message
from trace_jax.environments import kit
from trace_jax.environments.protocol import Prompts

@dataclass
class Lamps:
    on: dict[str, bool]

    @kit.tool
    def switch(self, room: str, on: bool) -> bool:
        """Switch the lamp of a room on or off."""
        if room == "cellar":
            raise LookupError("no light down there")
        if room not in self.on:
            raise kit.ToolError(f"no room {room}")
        self.on[room] = on
        return on

class Lights(kit.Environment[Lamps]):
    name, policy, state_type = "lights", "You switch lamps. Tell what you did.", Lamps

    def __init__(self, rooms: int = 3) -> None:
        self.rooms = ["hall", "bath", "attic"][:rooms]

    def draw(self, rng: Random) -> kit.Scenario[Lamps]:
        scenario = kit.Scenario(Lamps({room: rng.random() < 0.5 for room in self.rooms}))
        room, on = rng.choice(self.rooms), rng.random() < 0.5
        scenario.add(kit.Request(f"Lamp in the {room} {on}.", (kit.call("switch", room=room, on=on),), ("d\\u00f6ne",)))
        return scenario

class Hinted(Lights):
    name, policy, state_type = "hinted", "You switch lamps.", Lamps

    def hint(self):
        return f"There are {len(self.world.on)} lamps."

    def prompts(self, seed, combined_with=None):
        asked = Message(role="user", content=f"lamp {seed}")
        found = combined_with and combined_with.prompts(seed)
        combined = (asked, *found.exercised, *found.routine) if found else ()
        return Prompts((asked,), (Message(role="user", content="hello"),), combined)

class Sets(Lights):
    name, policy, state_type = "sets", "You switch lamps.", Lamps

    def state(self):
        return {"order": list({str(number) for number in range(20)})}
'''


@pytest.fixture(scope="module")
def sandbox():
    with a_sandbox() as found:
        yield found


@contextmanager
def a_sandbox(**more):
    found = Sandbox(SETTINGS, **more)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def made(sandbox, entry="Lights", parameters=None):
    make = SandboxedFactory(SandboxedModule(LAMPS, entry, parameters or {}), sandbox)
    try:
        yield make
    finally:
        make.close()


def in_this_process(entry="Lights"):
    names = {"__name__": __name__}
    exec(compile(LAMPS, "lamps", "exec"), names)
    return names[entry]()


def say(text):
    return Message(role="assistant", content=text)


def switching(room):
    return Message.model_validate(
        {"role": "assistant", "tool_calls": [{"id": "c", "name": "switch", "arguments": {"room": room, "on": True}}]},
        strict=False,
    )


def test_an_episode_is_what_it_would_be_in_this_process(sandbox):
    with made(sandbox) as make:
        here, there = in_this_process(), make()
        assert (there.name, there.tools) == (here.name, here.tools)
        for seed in (1, 2, "b ü"):
            assert there.reset(seed) == here.reset(seed)
            assert there.state() == here.state()
            assert there.solution() == here.solution()
            for message in (switching("hall"), switching("nowhere"), *here.solution()):
                assert there.step(message) == here.step(message)
                assert there.state() == here.state()
            assert there.grade() == here.grade()


def test_a_state_comes_with_the_call_before_it_and_is_never_an_older_one(sandbox, monkeypatch):
    def write(descriptor, data):
        written.append(bytes(data))
        return real_write(descriptor, data)

    written, real_write = [], os.write
    with made(sandbox) as make:
        environment, here = make(), in_this_process()
        monkeypatch.setattr(os, "write", write)
        for act in (lambda it: it.reset(1), lambda it: it.step(switching("hall")), lambda it: it.grade()):
            act(here), act(environment)
            assert environment.state() == here.state()
        monkeypatch.undo()
        assert len(written) == 3 and all(line.count(b'"state"') == 1 for line in written)
        assert environment.state() == here.state()


def test_a_state_that_cannot_be_shown_breaks_the_call_that_asks_for_it(sandbox):
    source = LAMPS + (
        "class Odd(Lights):\n    name, policy, state_type = 'odd', 'You switch lamps.', Lamps\n"
        "    def state(self):\n        raise LookupError('nobody knows')\n"
    )
    make = SandboxedFactory(SandboxedModule(source, "Odd"), sandbox)
    environment = make()
    environment.reset(1)
    environment.step(switching("hall"))
    with pytest.raises(EnvironmentFault, match="LookupError: nobody knows"):
        environment.state()
    assert environment.grade().reward in (0.0, 1.0)
    make.close()


def test_the_solution_is_found_in_a_process_that_plays_no_episode(sandbox):
    source = LAMPS + (
        "class Knowing(Lights):\n"
        "    name, policy, state_type = 'knowing', 'You switch lamps.', Lamps\n"
        "    asked = []\n"
        "    def solution(self):\n        self.asked.append(1)\n        return super().solution()\n"
        "    def state(self):\n        return {'asked': len(self.asked)}\n"
    )
    make = SandboxedFactory(SandboxedModule(source, "Knowing"), sandbox)
    environment = make()
    environment.reset(1)
    assert environment.solution() and environment.solution()
    environment.step(switching("hall"))  # the state that came with the opening is an older one
    assert environment.state() == {"asked": 0}
    make.close()


def test_hints_and_prompts_are_there_if_the_module_has_them(sandbox):
    with made(sandbox, "Hinted") as make, made(sandbox) as plain:
        environment = make()
        environment.reset(1)
        assert environment.hint() == "There are 3 lamps."
        assert isinstance(environment, Prompting) and not isinstance(plain(), Prompting)
        assert environment.prompts(5).exercised == (Message(role="user", content="lamp 5"),)
        assert not hasattr(plain(), "hint")


def test_the_prompts_of_two_modules_are_combined_though_neither_sees_more_of_the_other(sandbox):
    """Each runs in a process of its own: the second one learns what the first would say, and nothing else."""
    source = LAMPS + (
        "class Far(kit.Exercise[Lamps]):\n    name, policy, state_type = 'far', 'Far.', Lamps\n"
        "    draw = Lights.draw\n    rooms = ['far away']\n"
        "class Peeping(Hinted):\n    name, policy, state_type = 'peeping', 'Peep.', Lamps\n"
        "    def prompts(self, seed, combined_with=None):\n"
        "        seen = '' if combined_with is None else f'{combined_with.name} {combined_with.world}'\n"
        "        return Prompts((Message(role='user', content=f'peep {seed}{seen}'),))\n"
    )
    near, far, peeping = (SandboxedFactory(SandboxedModule(*each), sandbox) for each in (
        (LAMPS, "Hinted"), (source, "Far"), (source, "Peeping")))  # fmt: skip
    try:
        hinted, other = near(), far()
        own = other.prompts(7)
        assert own.combined == () and own.exercised[-1].content.startswith("Lamp in the far away")
        assert hinted.prompts(7, other).combined == (Message(role="user", content="lamp 7"), *own.exercised)
        texts = ("lamp 7", own.exercised[-1].content)
        both = other.prompts(7, hinted).combined
        assert both[0].content == "Far." and both[-1].content in (" ".join(texts), " ".join(reversed(texts)))
        assert len(both) == 2 and other.prompts(7, in_this_process("Hinted")).combined == ()
        with pytest.raises(EnvironmentFault, match="AttributeError: 'ShownExercise' object has no attribute 'world'"):
            peeping().prompts(7, other)
    finally:
        for factory in (near, far, peeping):
            factory.close()


LIBRARY = """
import base64, csv, datetime, decimal, hashlib, io, random, re, statistics, textwrap, time, typing, uuid, zlib
import pydantic

class Row(pydantic.BaseModel):
    day: datetime.date
    tags: list[typing.Literal["a", "b"]] = []

def found():
    return [
        datetime.datetime.strptime("2026-11-30 21:48", "%Y-%m-%d %H:%M").isoformat(),
        datetime.datetime.now().astimezone().tzinfo is not None and time.localtime().tm_year > 2000,
        hashlib.sha256(b"x").hexdigest()[:8] + hashlib.md5(b"x").hexdigest()[:8],
        str(decimal.Decimal("0.1") + decimal.Decimal("0.2")),
        list(csv.reader(io.StringIO("a,b"))),
        random.Random(7).sample(range(100), 3) + [len(str(uuid.uuid4())), random.SystemRandom().random() < 1],
        "b\u00fccher.example".encode("idna").decode(),
        Row.model_validate_json('{"day": "2026-11-30", "tags": ["a"]}').model_dump(mode="json"),
        sorted(Row.model_json_schema()["properties"]),
        [statistics.median([1, 2, 4]), re.sub("a+", "b", "caat"), textwrap.shorten("a b c", 4, placeholder=".")],
        zlib.decompress(base64.b64decode(base64.b64encode(zlib.compress(b"x")))).decode(),
    ]
"""


def test_the_usual_library_works_behind_the_lock(sandbox):
    source = (
        LAMPS
        + LIBRARY
        + (
            "class Usual(Lights):\n    name, policy, state_type = 'usual', 'You switch lamps.', Lamps\n"
            "    def state(self):\n        return {'found': found()}\n"
        )
    )
    names = {"__name__": __name__}
    exec(LIBRARY, names)
    make = SandboxedFactory(SandboxedModule(source, "Usual"), sandbox)
    environment = make()
    environment.reset(1)
    assert environment.state()["found"] == names["found"]()
    make.close()


def test_parameters_reach_the_module_and_wrong_ones_are_reported(sandbox):
    with made(sandbox, parameters={"rooms": 1}) as make:
        environment = make()
        environment.reset(1)
        assert list(environment.state()["on"]) == ["hall"]
    with made(sandbox, parameters={"floors": 1}) as make, pytest.raises(EnvironmentFault, match="'floors'"):
        make()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class Lights:\n    def f(self:\n", r"cannot be loaded: SyntaxError: .*\(<module>, line 2\)"),
        ("x = 1\ny = 1 / 0\n", r"cannot be loaded: ZeroDivisionError: division by zero \(line 2\)"),
        ("class Lamp: pass\n", "no class or function 'Lights': it has Lamp"),
        ("Lights = 7\n", "no class or function 'Lights': it has none"),
        ("import numpy\n", "'numpy' cannot be imported here: known are abc, "),
        ("class Lights:\n    name = 'x'\n", "AttributeError: 'Lights' object has no attribute 'tools'"),
        ("raise SystemExit('no')\n", "cannot be loaded: SystemExit: no"),
        ("x = '\\ud800'.encode()\n", "cannot be loaded: UnicodeEncodeError"),
    ],
)
def test_a_module_that_cannot_be_loaded_says_why_in_one_line(sandbox, source, expected):
    make = SandboxedFactory(SandboxedModule(source, "Lights"), sandbox)
    with pytest.raises(EnvironmentFault, match=expected) as caught:
        make().reset(1)
    assert "\n" not in str(caught.value)
    make.close()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (lambda: SandboxedModule("x" * (10 << 20), "Lights"), "10485760 bytes of source, at most 262144"),
        (lambda: SandboxedModule("", "Lights()"), r"entry 'Lights\(\)'"),
        (lambda: SandboxedModule("", "os.system"), "give the name of a class"),
        (lambda: SandboxedModule("\ud800", "Lights"), "UTF-8"),
        (lambda: SandboxedModule("", "Lights", {"x": float("nan")}), "JSON"),
        (lambda: SandboxedModule("", "Lights", {"x": object()}), "JSON"),
    ],
)
def test_a_module_that_is_none_is_refused(module, expected):
    with pytest.raises(UserError, match=expected):
        module()


def test_an_error_breaks_its_episode_and_no_other_one(sandbox):
    with made(sandbox) as make:
        first, second = make(), make()
        first.reset(1)
        second.reset(2)
        with pytest.raises(EnvironmentFault, match=r"LookupError: no light down there \(line 17\)"):
            first.step(switching("cellar"))
        assert second.step(switching("hall")).messages[0].content == "true"


def test_the_agent_loop_s_host_plays_many_episodes_in_few_processes(sandbox):
    async def play():
        host = SandboxHost(SandboxedModule(LAMPS, "Lights"), sandbox)
        assert host.version.startswith("sandbox:Lights@")
        episodes = await asyncio.gather(*[host.open() for _ in range(40)])
        assert len(host._pool.workers()) == 2
        openings = await asyncio.gather(*[episode.reset(seed) for seed, episode in enumerate(episodes)])
        for seed, (opening, episode) in enumerate(zip(openings, episodes, strict=True)):
            here = in_this_process()
            assert opening == here.reset(seed)
            for message in here.solution():
                await episode.step(message)
            assert (await episode.grade()).reward == 1.0
            await episode.close()
        host.close()

    asyncio.run(play())


def test_calls_of_one_moment_have_their_time_each():
    source = LAMPS + (
        "import time\nclass Slow(Lights):\n    name, policy, state_type = 'slow', 'You switch lamps.', Lamps\n"
        "    def step(self, message):\n        time.sleep(0.1)\n        return super().step(message)\n"
    )

    async def play(sandbox):
        host = SandboxHost(SandboxedModule(source, "Slow"), sandbox)
        episodes = [await host.open() for _ in range(10)]
        for episode in episodes:
            await episode.reset(1)
        started = time.monotonic()
        await asyncio.gather(*[episode.step(say("done")) for episode in episodes])
        assert time.monotonic() - started > 0.7  # more than all of them have
        host.close()

    sandbox = Sandbox(replace(SETTINGS, processes=1, step_seconds=0.7))
    asyncio.run(play(sandbox))
    sandbox.close()


def test_a_fork_server_that_was_killed_breaks_its_episodes_and_is_replaced():
    with a_sandbox(modes=("strict",)) as sandbox, made(sandbox) as make:
        environment = make()
        environment.reset(1)
        os.kill(sandbox.pid, signal.SIGKILL)
        with pytest.raises(EnvironmentFault, match="sandbox: the process ended with its fork server"):
            for _ in range(1000):
                environment.step(switching("hall"))
        again = make()
        assert again.reset(1).messages[0].content == "You switch lamps. Tell what you did."


def test_nothing_is_left_when_a_sandbox_is_closed():
    with a_sandbox() as sandbox, made(sandbox) as make:
        make().reset(1)
        sandbox.close()
        with pytest.raises(ProcessLookupError):
            os.kill(sandbox.pid, 0)
        with pytest.raises(EnvironmentFault, match="sandbox: the process ended with its fork server"):
            make()
        with pytest.raises(EnvironmentFault, match="sandbox: no process can be started: the sandbox is closed"):
            make()


def test_hashes_are_those_of_the_seed():
    def order(hash_seed):
        with a_sandbox(hash_seed=hash_seed) as sandbox, made(sandbox, "Sets") as make:
            environment = make()
            environment.reset(1)
            return environment.state()["order"]

    assert order(1) == order(1) != order(2)


def test_without_a_lock_nothing_runs_unless_the_settings_say_so():
    with pytest.raises(UserError, match="sandbox.allow_unsandboxed=true"):
        Sandbox(SETTINGS, modes=())
    sandbox = Sandbox(replace(SETTINGS, allow_unsandboxed=True), modes=())
    assert sandbox.mode == "unsandboxed" and "NOTHING contains" in sandbox.describe()
    with made(sandbox) as make:
        assert make().reset(1).messages[1].role == "user"
    sandbox.close()


def test_what_contains_the_code_is_told(sandbox):
    first, *reasons = sandbox.describe().splitlines()
    assert first.startswith(f"sandbox: {sandbox.mode}: ") and "512 MiB a process, 20 s a call" in first
    assert reasons == sandbox.reasons and len(reasons) == (sandbox.mode == "strict")


def test_a_program_tells_it(capsys):
    check_sandbox.main()
    assert capsys.readouterr().out.startswith("sandbox: ")


def test_the_fork_server_s_environment_is_not_ours(sandbox):
    with made(sandbox) as make:
        make().reset(1)
        variables = Path(f"/proc/{sandbox.pid}/environ").read_bytes().split(b"\0")
    assert {variable.partition(b"=")[0] for variable in variables} <= {b"PYTHONHASHSEED", b"LD_LIBRARY_PATH", b""}


def test_a_machine_that_cannot_lock_is_told_apart(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with a_sandbox() as sandbox:
        assert sandbox.mode == "strict"
        assert sandbox.reasons == [
            "sandbox: bubblewrap + strict does not work here: there is no bwrap: install the package bubblewrap"
        ]
