"""The gate learns from prompts whose labels are what the customer asks for."""

from collections import Counter

import pytest
from adapter_files import FILES

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.pipeline.router_prompts import router_prompts
from trace_jax.synthesis.rules import RulesDesigner

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
    return router_prompts(manifests, adapters, CANDIDATES, designer=RulesDesigner(), target=target, own=own, prompts=40)


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
