"""The gate learns from prompts whose labels are what the customer asks for."""

from collections import Counter
from contextlib import nullcontext

import pytest
from adapter_files import FILES
from lamps_target import LOOK_FIRST, OWN, design, lamps, manifest

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.trajectory import Check, Policy, Trajectory
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.practice import RequestPractice
from trace_jax.environments.registry import load_target
from trace_jax.pipeline import router_prompts as drawing
from trace_jax.pipeline.router_prompts import router_prompts
from trace_jax.routing.gate_training import TooFewPrompts
from trace_jax.sandbox.settings import SandboxSettings

SIGNS = {"verify_before_acting": ("to my city", "price not sure"), "compute_over_values": ("of two items",)}


def manifests_and_adapters():
    manifests = [
        EnvironmentManifest(
            name=name, capability=name, target="helpdesk", designer="rules",
            design=FamilyPractice(FAMILIES[name]).first,
            gates=(), calibration=None, rollouts=0)
        for name in SIGNS
    ]  # fmt: skip
    adapters = [
        AdapterManifest(
            name=f"{name}-1", capabilities=(name,), environments=(name,), base="b", rank=1, alpha=1.0,
            target_modules=("q_proj",), peft="peft", files=FILES, checkpoint="c", steps=1, rollouts=1, seed=0)
        for name in SIGNS
    ]  # fmt: skip
    return manifests, adapters


CANDIDATES = [Candidate(name=name, description="d") for name in (*FAMILIES, "polite_tone")]


def drawn(manifests, adapters, target):
    own = Design(entry_point="helpdesk", parameters={})
    return router_prompts(
        manifests, adapters, CANDIDATES, target=target, own=own, prompts=40, sandbox=SandboxSettings()
    )


@pytest.fixture(scope="module")
def prompts():
    return drawn(*manifests_and_adapters(), Helpdesk())


def test_a_prompt_is_labelled_with_the_adapters_of_what_it_asks_for(prompts):
    for prompt in prompts:
        opening = prompt.messages[-1].content
        asked = {f"{name}-1" for name, signs in SIGNS.items() if any(sign in opening for sign in signs)}
        assert set(prompt.adapters) == asked, opening


def test_there_are_prompts_for_each_adapter_for_both_and_for_the_base(prompts):
    sets = [frozenset(prompt.adapters) for prompt in prompts]
    both = frozenset(f"{name}-1" for name in SIGNS)
    assert {len(needed) for needed in sets} == {0, 1, 2}
    assert sets.count(both) == 2 * 10  # each with the other
    # Alone, and with each of the four capabilities that have no adapter.
    assert all(sets.count(frozenset([name])) == 40 + 4 * 10 for name in both)
    assert sets.count(frozenset()) >= 40


class Calendar:
    """A target without practice; its environments could have been designed by anything."""

    name = "calendar"
    results = Helpdesk.results

    def tasks(self, split):
        return (0, 1)

    def environment(self, split):
        return Helpdesk().environment(split)


def test_prompts_come_from_the_environments_themselves_also_for_a_target_without_practice():
    manifests, adapters = manifests_and_adapters()
    sets = Counter(frozenset(prompt.adapters) for prompt in drawn(manifests, adapters, Calendar()))
    names = [adapter.name for adapter in adapters]
    assert sets == {frozenset(): 40, frozenset(names): 2 * 10, frozenset(names[:1]): 40, frozenset(names[1:]): 40}


CALENDAR = Design(entry_point="examples.calendar:calendar", parameters={})
SIGNS_OF_DAY = {"first_free": "book early", "invite": "invite"}


def of_the_calendar(*kinds):
    """Manifests, adapters and candidates of capabilities that are kinds of the calendar's requests."""
    manifests = [
        EnvironmentManifest(
            name=kind, capability=kind, target=CALENDAR.entry_point, designer="rules", gates=(), calibration=None,
            design=RequestPractice(CALENDAR, (kind,), ("book", "cancel", "move")).first, rollouts=0)
        for kind in kinds
    ]  # fmt: skip
    _, (adapter, _) = manifests_and_adapters()
    adapters = [adapter.replace(name=f"{kind}-1", capabilities=(kind,), environments=(kind,)) for kind in kinds]
    return manifests, adapters


def prompts_of_the_calendar(manifests, adapters, candidates, episodes=()):
    return router_prompts(
        manifests, adapters, [Candidate(name=name, description="d") for name in candidates], episodes=episodes,
        target=load_target(CALENDAR.entry_point), own=CALENDAR, prompts=24, sandbox=SandboxSettings(),
    )  # fmt: skip


def episode(**right: bool) -> Trajectory:
    """An episode of the base, which did requests of these kinds right or wrong."""
    return Trajectory(
        id="e", target="calendar", task="0", split="train", seed=0, trial=0, policy=Policy(base="b"), messages=(),
        reward=float(all(right.values())), checks=tuple(Check(name=f"{k}.reply", passed=p) for k, p in right.items()),
        termination="done",
    )  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
def test_prompts_of_a_target_that_nobody_prepared_need_what_they_say(known):
    """Without evidence that the base fails at them, the trained kinds are routine in the practice on counting."""
    episodes = [episode(first_free=False, invite=False, book=True, move=True, cancel=True)] if known else []
    manifests, adapters = of_the_calendar("first_free", "invite")
    found = prompts_of_the_calendar(manifests, adapters, ("first_free", "invite", "count", "polite_tone"), episodes)
    for prompt in found:
        to_do = prompt.messages[-1].content.partition(".")[0]
        assert set(prompt.adapters) == {f"{name}-1" for name, sign in SIGNS_OF_DAY.items() if sign in to_do}, to_do
    sets = Counter(frozenset(prompt.adapters) for prompt in found)
    names = [adapter.name for adapter in adapters]
    with_count = 6 if known else 0
    assert sets == {frozenset(): 24, frozenset(names): 12} | {frozenset([name]): 24 + with_count for name in names}
    assert any("count" in prompt.messages[-1].content for prompt in found) == known


def test_an_environment_without_prompts_is_named(monkeypatch):
    monkeypatch.setattr(drawing, "factory_of_design", lambda design, own, sandbox: nullcontext(object))
    with pytest.raises(TooFewPrompts, match=r"environment invite has no prompts\(seed, combined_with\)"):
        prompts_of_the_calendar(*of_the_calendar("invite"), ())


def test_prompts_of_an_environment_that_a_model_wrote_come_out_of_the_sandbox():
    _, (adapter, _) = manifests_and_adapters()
    adapter = adapter.replace(name="look", capabilities=("look_first",), environments=("look_first",))
    found = router_prompts(
        [manifest(design())], [adapter], [LOOK_FIRST], target=lamps(), own=OWN, prompts=6, sandbox=SandboxSettings()
    )
    sets = Counter(prompt.adapters for prompt in found)
    assert sets == {(): 6, ("look",): 6}
    assert all("switch off what burns" in p.messages[-1].content for p in found if p.adapters)
    assert all(p.messages[-1].content.startswith("Switch off lamp L") for p in found if not p.adapters)


def test_two_environments_that_a_model_wrote_are_combined_for_the_router():
    _, (adapter, _) = manifests_and_adapters()
    made = [design(), design().replace(source=design().source.replace("what burns", "what is lit"))]
    names = ("burning", "lit")
    manifests = [manifest(each, name=name, capability=name) for name, each in zip(names, made, strict=True)]
    adapters = [adapter.replace(name=name, capabilities=(name,), environments=(name,)) for name in names]
    found = router_prompts(manifests, adapters, (), target=lamps(), own=OWN, prompts=8, sandbox=SandboxSettings())
    assert Counter(p.adapters for p in found) == {(): 8, names[:1]: 8, names[1:]: 8, names: 2, names[::-1]: 2}
    for prompt in found:
        asked = {name for name, words in zip(names, ("what burns", "what is lit"), strict=True)
                 if words in prompt.messages[-1].content}  # fmt: skip
        assert asked == set(prompt.adapters) and [message.role for message in prompt.messages] == ["system", "user"]
