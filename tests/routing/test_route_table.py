import pytest

from trace_jax.errors import UserError
from trace_jax.routing.baselines import OracleRouter, RandomRouter
from trace_jax.routing.router import RouteRequest
from trace_jax.routing.table import build_table, check_base

DESCRIPTIONS = {"look": "Looks first.", "finish": "Finishes all steps."}


@pytest.fixture
def table(manifest, base):
    return build_table(base, "gate", [manifest("look-1", "look"), manifest("both-1", "look", "finish")], DESCRIPTIONS)


def requests(count):
    return [RouteRequest(str(i), ()) for i in range(count)]


def test_table_lists_one_route_an_adapter_in_order(table, base):
    assert [(r.adapter, r.capability, r.description) for r in table.routes] == [
        ("look-1", "look", "Looks first."),
        ("both-1", "look+finish", "Looks first. Finishes all steps."),
    ]
    check_base(table, base)
    with pytest.raises(UserError, match="route table is for base 0123456789abcdef, the model is other"):
        check_base(table, "other")


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ([("a", ("look",), "other")], "adapter 'a' is for base other, not 0123"),
        ([("a", (), None)], "adapter 'a' names no capability"),
        ([("a", ("fly",), None)], "capability 'fly' of adapter 'a' has no description"),
        ([("a", ("look",), None), ("a", ("finish",), None)], "adapter 'a' is listed twice"),
    ],
)
def test_adapters_that_cannot_be_routed_are_refused(manifest, base, adapters, message):
    manifests = [manifest(name, *capabilities, base=other or base) for name, capabilities, other in adapters]
    with pytest.raises(UserError, match=message):
        build_table(base, "gate", manifests, DESCRIPTIONS)


def test_random_router_is_uniform_and_depends_on_the_conversation_alone(table):
    router = RandomRouter(table, seed=7)
    decisions = router.decide_batch(requests(2000))
    chosen = [next(iter(d.adapters)) for d in decisions]
    assert abs(chosen.count("look-1") - 1000) < 4 * (2000 * 0.25) ** 0.5  # four standard deviations of a fair coin
    assert [d.adapters for d in reversed(router.decide_batch(requests(2000)[::-1]))] == [d.adapters for d in decisions]
    assert [d.adapters for d in RandomRouter(table, seed=8).decide_batch(requests(2000))] != [
        d.adapters for d in decisions
    ]
    assert {tuple(d.adapters) for d in decisions} == {("look-1",), ("both-1",)}
    empty = RandomRouter(table.replace(routes=()), seed=7).decide("c", ())
    assert empty.adapters == {} and not empty.undecided


def test_oracle_follows_its_mapping_and_leaves_strangers_to_the_base(table):
    oracle = OracleRouter(table, {"0": "both-1", "1": ""})
    first, second, third = oracle.decide_batch(requests(3))
    assert first.adapters == {"both-1": 1.0} and first.weights == {"": 0.0, "look-1": 0.0, "both-1": 1.0}
    assert second.adapters == {} and not second.undecided
    assert third.undecided and third.reason == "not in the oracle's mapping: 2"
    with pytest.raises(UserError, match="no adapter 'x'"):
        OracleRouter(table, {"0": "x"})
