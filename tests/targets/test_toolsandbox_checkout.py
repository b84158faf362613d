"""ToolSandbox as a target, from a checkout: the scores that the benchmark gives, and scripts that solve scenarios.

TOOLSANDBOX=/path/to/ToolSandbox TOOLSANDBOX_PYTHON=/its/venv/bin/python python -m pytest tests/targets -m slow
"""

import os
import statistics
import sys

import pytest

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.targets.toolsandbox import ToolSandbox

NEEDED = ("TOOLSANDBOX", "TOOLSANDBOX_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(name not in os.environ for name in NEEDED),
        reason="TOOLSANDBOX and TOOLSANDBOX_PYTHON name no checkout of ToolSandbox and no Python that has its packages",
    ),
]

# The call that solves a scenario which needs no network, and what the agent then says.
SCRIPTS: dict[str, tuple[str, dict[str, object], str]] = {
    "cellular_off": ("set_cellular_service_status", {"on": False}, "Cellular service is turned off"),
    "get_cellular": ("get_cellular_service_status", {}, "Cellular service is on"),
    "wifi_off": ("set_wifi_status", {"on": False}, "Wifi is turned off"),
    "get_wifi": ("get_wifi_status", {}, "Wifi is on"),
    "search_phone_number_with_name": (
        "search_contacts",
        {"name": "Homer S"},
        "I found Homer S's phone number: +10000000000",
    ),
    "search_name_with_relationship": ("search_contacts", {"relationship": "boss"}, "Your boss is Homer S"),
    "search_relationship_with_phone_number": (
        "search_contacts",
        {"phone_number": "+10000000000"},
        "+10000000000 is your boss",
    ),
    "add_contact_with_name_and_phone_number": (
        "add_contact",
        {"name": "Stephen Sondheim", "phone_number": "+19876543210"},
        "Stephen Sondheim has been added to your contact",
    ),
}


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> ToolSandbox:
    monkeypatch.setattr(sys, "executable", os.environ["TOOLSANDBOX_PYTHON"])  # of the processes of the episodes
    return ToolSandbox(os.environ["TOOLSANDBOX"], user=[])


def test_the_papers_scenarios_are_found(target: ToolSandbox) -> None:
    train, held_out = target.tasks("train"), target.tasks("held_out")
    assert len(train) + len(held_out) == len({*train, *held_out}) == 129
    offline = ToolSandbox(os.environ["TOOLSANDBOX"], user=[], offline=True)
    assert len(offline.tasks("train")) + len(offline.tasks("held_out")) == 91


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_solves_its_scenario(target: ToolSandbox, name: str) -> None:
    tool, arguments, text = SCRIPTS[name]
    environment = target.environment("train")
    environment.reset(name)
    environment.step(Message(role="assistant", tool_calls=(ToolCall(id="1", name=tool, arguments=arguments),)))
    assert environment.step(Message(role="assistant", content=text)).done
    outcome = environment.grade()
    assert outcome.reward == pytest.approx(1.0), outcome


def test_an_agent_that_does_nothing_gets_what_the_benchmark_gives_it(target: ToolSandbox) -> None:
    environment, scores = target.environment("train"), []
    for name in target.tasks("train") + target.tasks("held_out"):
        environment.reset(name)
        environment.step(Message(role="assistant", content="I am sorry, but I cannot assist with that."))
        scores.append(environment.grade().reward)
    assert sum(score > 1 - 1e-6 for score in scores) == 26
    assert statistics.mean(scores) == pytest.approx(0.21, abs=0.005)


def test_the_same_scenario_gives_the_same_episode(target: ToolSandbox) -> None:
    def played() -> object:
        environment = target.environment("train")
        begun = environment.reset("add_contact_with_name_and_phone_number")
        tool, arguments, _ = SCRIPTS["add_contact_with_name_and_phone_number"]
        call = ToolCall(id="1", name=tool, arguments=arguments)
        return begun, environment.step(Message(role="assistant", tool_calls=(call,))), environment.grade()

    assert played() == played()
