import numpy as np
import pytest
from scipy.special import softmax as scipy_softmax

from trace_jax.contract.routing import Route, RouteTable
from trace_jax.errors import UserError
from trace_jax.routing.router import BASE
from trace_jax.routing.select import Best, Nucleus, Together, choices, decide, make_policy
from trace_jax.routing.settings import RoutingSettings


def table(names=("a", "b", "c"), **fields) -> RouteTable:
    routes = tuple(Route(adapter=name, capability=name, description=name) for name in names)
    return RouteTable(base="x", router="gate", routes=routes, **fields)


def scores_of(*weights: float) -> np.ndarray:
    return np.log(np.array(weights))


def test_weights_are_the_tempered_softmax():
    scores = np.random.default_rng(0).normal(size=4) * 5
    decision = decide("t", "gate", table(temperature=2.5), scores, Best())
    np.testing.assert_allclose(list(decision.weights.values()), scipy_softmax(scores / 2.5), rtol=1e-12)
    assert tuple(decision.weights) == choices(table()) == (BASE, "a", "b", "c")


def test_best_one_takes_the_best_adapter_or_the_base():
    assert decide("t", "gate", table(), scores_of(0.1, 0.2, 0.6, 0.1), Best()).adapters == {"b": 1.0}
    base = decide("t", "gate", table(), scores_of(0.4, 0.3, 0.2, 0.1), Best())
    assert base.adapters == {} and not base.undecided


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.3, {"a": 1.0}),
        (0.6, {"a": 0.4 / 0.7, "b": 0.3 / 0.7}),
        (0.75, {"a": 0.4 / 0.9, "b": 0.3 / 0.9}),  # the base is in the nucleus and takes its share of the delta
        (1.0, {"a": 0.4, "b": 0.3, "c": 0.1}),
    ],
)
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p, expected):
    found = decide("t", "gate", table(), scores_of(0.2, 0.4, 0.3, 0.1), Nucleus(top_p)).adapters
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((0.1, 0.6, 0.25, 0.05), {"a": 1.0}),
        ((0.1, 0.3, 0.5, 0.1), {"b": 1.0, "a": 1.0}),
        ((0.0, 0.5, 0.5, 0.0), {"a": 1.0, "b": 1.0}),  # a tie of which none is left out is none
        ((0.5, 0.4, 0.1, 0.0), {}),
    ],
)
def test_together_takes_all_that_are_needed_at_full_strength(weights, expected):
    with np.errstate(divide="ignore"):
        scores = np.log(np.maximum(weights, 1e-30))
    decision = decide("t", "gate", table(), scores, Together())
    assert decision.adapters == expected and list(decision.adapters) == list(expected) and not decision.undecided


def test_policies_by_name():
    assert make_policy(RoutingSettings(policy="best")) == Best()
    assert make_policy(RoutingSettings(policy="together")) == Together()
    assert make_policy(RoutingSettings(policy="nucleus", top_p=0.7)) == Nucleus(0.7)
    with pytest.raises(UserError, match="routing.policy is 'all': it should be 'best', 'together' or 'nucleus'"):
        RoutingSettings(policy="all")


def test_nucleus_of_the_base_alone_is_the_base():
    decision = decide("t", "gate", table(), scores_of(0.97, 0.01, 0.01, 0.01), Nucleus(0.9))
    assert decision.adapters == {} and not decision.undecided


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_go_to_the_base(bad):
    decision = decide("t", "gate", table(), [0.0, 5.0, bad, 0.0], Nucleus(1.0))
    assert decision.undecided and decision.adapters == {} and decision.reason == "scores not finite: b"


def test_a_weak_best_and_a_tie_go_to_the_base():
    weak = decide("t", "gate", table(minimum_weight=0.5), scores_of(0.2, 0.4, 0.3, 0.1), Best())
    assert weak.undecided and weak.reason == "best weight below the minimum: 0.400 < 0.500"
    assert weak.weights == pytest.approx({BASE: 0.2, "a": 0.4, "b": 0.3, "c": 0.1})
    assert decide("t", "gate", table(), [0.0, 1.0, 1.0, 0.0], Best()).reason == "tie: a, b"
    assert not decide("t", "gate", table(), [1.0, 1.0, 0.0, 0.0], Best()).undecided


def test_top_p_outside_its_range_is_refused():
    with pytest.raises(UserError, match="routing.top_p is 0.0: it should be greater than 0"):
        RoutingSettings(top_p=0.0)
