"""OpenEnv: environments behind the package's own server, on loopback, played from a worker of the package's Python.

The package brings sixty others, so it lives in an environment of its own: OPENENV_PYTHON names the interpreter.
"""

import asyncio
import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.host import host_of
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError

PYTHON = os.environ.get("OPENENV_PYTHON")
needs_openenv = pytest.mark.skipif(not PYTHON, reason="OPENENV_PYTHON names no Python that has openenv 0.10.0")
SERVER = os.path.join(os.path.dirname(__file__), "openenv_server.py")
SETTINGS = TargetSettings(workers=1, python=PYTHON, parameters='{"returns": [0, 3]}')


@contextmanager
def served(kind):
    """The settings of a target whose server runs."""
    with subprocess.Popen([PYTHON, SERVER, kind], stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            yield replace(SETTINGS, environment=f"openenv:http://127.0.0.1:{port}")
        finally:
            server.kill()


def said(text, *calls):
    return Message(role="assistant", content=text, tool_calls=calls)


def call(name, arguments):
    return ToolCall(id="c", name=name, arguments=arguments)


@needs_openenv
def test_text_is_an_action_and_the_return_is_the_reward():
    with served("words") as settings:
        target = open_target(settings)
        assert len(target.tasks("train")) == 1000 and not set(target.tasks("train")) & set(target.tasks("held_out"))
        environment = target.environment("train")
        assert environment.tools == ()
        assert environment.reset(7).messages[0].content == "Say w7."
        assert environment.step(said("w7")).messages[0].content == "again"
        assert not environment.step(said("w8")).done
        assert environment.step(said("w7")).done
        outcome = environment.grade()
        assert (outcome.reward, outcome.components) == (pytest.approx(2 / 3), {"return": 2.0})

        async def together():
            host = host_of(target, "train")
            episodes = [await host.open() for _ in range(4)]
            openings = await asyncio.gather(*[episode.reset(i) for i, episode in enumerate(episodes)])
            assert [o.messages[0].content for o in openings] == [f"Say w{i}." for i in range(4)]
            with pytest.raises(EnvironmentFault, match="the server broke"):
                await episodes[0].step(said("boom"))
            assert (await episodes[1].step(said("w1"))).messages[0].content == "again"
            for episode in episodes:
                await episode.close()

        asyncio.run(together())


@needs_openenv
def test_several_fields_are_the_arguments_of_a_tool():
    with served("numbers") as settings:
        environment = open_target(settings).environment("train")
        (tool,) = environment.tools
        assert tool.name == "act" and set(tool.parameters["properties"]) == {"left", "right"}
        environment.reset(5)
        (good,) = environment.step(said(None, call("act", {"left": 2, "right": 3}))).messages
        assert (good.role, good.content, good.tool_call_id) == ("tool", "again", "c")
        (bad,) = environment.step(said(None, call("act", {"left": "two"}))).messages
        assert "VALIDATION_ERROR" in bad.content
        (unknown,) = environment.step(said(None, call("add", {}))).messages
        assert "no tool 'add': use one of act" in unknown.content
        assert environment.step(said("I am done.")).done
        assert environment.grade().reward == pytest.approx(1 / 3)


@needs_openenv
def test_tools_of_a_server_are_the_agent_s_tools():
    with served("tools") as settings:
        environment = open_target(settings).environment("train")
        (tool,) = environment.tools
        assert (tool.name, tool.description) == ("double", "Twice x.")
        environment.reset(1)
        (answer,) = environment.step(said(None, call("double", {"x": 4}))).messages
        assert "8" in answer.content
        assert environment.grade().components == {"return": 0.5}


@needs_openenv
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"environment": "openenv:http://127.0.0.1:9"}, "http://127.0.0.1:9/schema cannot be read"),
        ({"parameters": "{}"}, "declare the least and greatest return of an episode"),
        ({"parameters": '{"returns": [1, 1]}'}, "give two finite numbers, the smaller first"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(changes, expected):
    with pytest.raises(UserError) as caught:
        open_target(replace(SETTINGS, **{"environment": "openenv:http://127.0.0.1:9", **changes}))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_package_the_remedy_is_told():
    with pytest.raises(UserError, match="No module named 'openenv': install it where the environment runs"):
        open_target(replace(SETTINGS, python=None, environment="openenv:http://127.0.0.1:9"))
