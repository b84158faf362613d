"""Claims: a design that a model wrote is played in the sandbox and nowhere else, whoever plays it."""

import asyncio
import os

import pytest
from lamps_target import OWN, design, manifest

from trace_jax.contract.environment import Design
from trace_jax.contract.files import write_document
from trace_jax.contract.trajectory import Message
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.registry import environment_factory
from trace_jax.environments.source import load_source
from trace_jax.errors import UserError
from trace_jax.sandbox.designs import factory_of_design, host_of_design
from trace_jax.sandbox.host import SandboxHost
from trace_jax.sandbox.sandbox import shared_sandbox
from trace_jax.sandbox.settings import SandboxSettings

SETTINGS = SandboxSettings()
OURS = Design(entry_point="trace_jax.environments.helpdesk.practice.refuse_forbidden:RefuseForbidden", parameters={})


def hosted(found: Design, own: Design | None):
    return host_of_design(found, own, SETTINGS)


def test_this_process_refuses_it_and_names_the_remedy(tmp_path):
    with pytest.raises(UserError, match="'sandbox:LampsExercise' was written by a language model"):
        environment_factory(design(), OWN)
    write_document(tmp_path / "e.json", manifest(design()))
    with pytest.raises(UserError, match="only the sandbox may run it"):
        load_source(str(tmp_path / "e.json"), "train", 2)
    assert isinstance(load_source(str(tmp_path / "e.json"), "train", 2, host_of_design=hosted).host, SandboxHost)
    assert isinstance(hosted(OURS, None), InProcess)


def test_an_episode_is_played_there():
    host = hosted(design(), OWN)
    assert host.version.startswith("sandbox:LampsExercise@")

    async def play():
        episode = await host.open()
        observation = await episode.reset(3)
        await episode.step(Message(role="assistant", content="Done."))
        return observation, (await episode.grade()).reward

    observation, reward = asyncio.run(play())
    assert "switch off what burns" in observation.messages[-1].content and reward == 0.0
    host.close()


def test_its_module_runs_in_another_process():
    """The module tells its process by a name that no other source of this test has."""
    mark = f"here_{os.getpid()}"
    told = design().source + f"\nimport builtins\nbuiltins.{mark} = True\n"
    with factory_of_design(design().replace(source=told), OWN, lambda: shared_sandbox(SETTINGS)) as make:
        assert make().reset(0).messages
    import builtins

    assert not hasattr(builtins, mark)


def test_a_source_and_its_entry_point_belong_together():
    for entry, source in (("sandbox:A", None), ("trace_jax.x:A", "class A: pass")):
        with pytest.raises(ValueError, match="a module that a model wrote has the entry point sandbox:CLASS"):
            Design(entry_point=entry, parameters={}, source=source)


def test_a_changed_source_is_refused(tmp_path):
    write_document(path := tmp_path / "e.json", manifest(design()))
    path.write_text(path.read_text().replace("Never touch", "Always touch").partition(',\n  "sha256"')[0] + "\n}\n")
    with pytest.raises(UserError, match="it was changed after its gates and calibration"):
        load_source(str(path), "train", 2, host_of_design=hosted)
