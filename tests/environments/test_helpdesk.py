"""Claims about the built-in target: who can earn what, determinism, disjoint splits, and that no fault is swallowed."""

import functools
import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from random_calls import RandomCalls

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.helpdesk.database import Database, Drawer
from trace_jax.environments.helpdesk.draw import draw_task, source_of
from trace_jax.environments.helpdesk.policies import (
    Demonstrator,
    always_refuse,
    do_nothing,
    follow,
    oracle,
    play,
)
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY, ROUTINE
from trace_jax.environments.helpdesk.target import HELD_OUT_TASKS, TRAIN_TASKS, Helpdesk

SPLITS = ("train", "held_out")
BEYOND = 200  # seeds, many more than there are tasks


def transcript(split, seed):
    desk = Helpdesk().environment(split)
    messages = list(desk.reset(seed).messages)
    for message in oracle(desk):
        messages += [message, *desk.step(message).messages]
    return "\n".join(message.model_dump_json() for message in messages)


@functools.cache
def digest():
    texts = [transcript(split, seed) for split in SPLITS for seed in range(40)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@pytest.mark.parametrize("split", SPLITS)
def test_the_oracle_earns_1_on_every_seed(split):
    desk = Helpdesk().environment(split)
    for seed in range(BEYOND):
        outcome = play(desk, seed, oracle)
        assert outcome.reward == 1.0, (seed, [check for check in outcome.checks if not check.passed])
        assert all(check.passed for check in outcome.checks)


@pytest.mark.parametrize("split", SPLITS)
def test_trivial_policies_earn_next_to_nothing(split):
    desk = Helpdesk().environment(split)
    for policy in (do_nothing, always_refuse):
        assert np.mean([play(desk, seed, policy).reward for seed in range(BEYOND)]) <= 0.005
    at_random = [play(desk, seed, RandomCalls(np.random.default_rng(seed))).reward for seed in range(BEYOND)]
    assert np.mean(at_random) <= 0.005


def test_every_wrong_path_fails_the_ticket_whatever_else_is_right():
    wrong_paths = 0
    for seed in range(BEYOND):
        desk = Helpdesk().environment("train")
        desk.reset(seed)
        for slip, request in enumerate(desk.ticket.requests):
            if request.wrong is None:
                continue
            desk.reset(seed)
            for number, other in enumerate(desk.ticket.requests):
                for message in follow(other.wrong if number == slip else other.right):
                    desk.step(message)
            wrong_paths += 1
            assert desk.grade().reward == 0.0, (seed, request.text)
    assert wrong_paths > BEYOND


def test_the_demonstrator_lacks_exactly_the_capabilities_with_a_wrong_path():
    lacking = {name for name, builders in BY_CAPABILITY.items() if all(_wrong(build) for build in builders)}
    assert lacking == {
        "verify_before_acting",
        "complete_all_steps",
        "compute_over_values",
        "choose_under_constraints",
    }
    assert not any(_wrong(build) for build in ROUTINE)
    desk = Helpdesk().environment("held_out")
    never_wrong = [play(desk, seed, Demonstrator(np.random.default_rng(seed), 0.0)).reward for seed in range(50)]
    assert never_wrong == [1.0] * 50


def _wrong(build):
    drawer = Drawer(np.random.default_rng(7))
    drawer.customer("C10")
    return build(drawer, "C10").wrong is not None


def test_the_shop_is_unchanged_where_a_ticket_asks_for_nothing_else():
    for seed in range(50):
        ticket = draw_task("train", seed)
        asked = {arguments.get("order_id") for request in ticket.requests for _, arguments in request.right.calls}
        for order in set(ticket.initial.orders) - asked:
            assert ticket.initial.orders[order] == ticket.expected.orders[order]


def test_the_splits_are_as_large_as_said_and_share_no_ticket():
    target = Helpdesk()
    assert target.tasks("train") == tuple(range(TRAIN_TASKS))
    assert target.tasks("held_out") == tuple(range(HELD_OUT_TASKS))
    assert 40 <= TRAIN_TASKS <= 80
    said = {}
    for source in ("train", "held_out", "practice"):
        tickets = [draw_task(source, seed) for seed in range(200)]
        assert all(source_of(ticket) == source for ticket in tickets)
        said[source] = {(t.opening(), *(request.text for request in t.requests)) for t in tickets}
        assert len(said[source]) == 200, "tasks repeat"
    assert not said["train"] & said["held_out"]
    assert not said["practice"] & (said["train"] | said["held_out"])


def test_the_source_hangs_on_what_is_said_alone():
    """So no other generator, with whatever seed, can draw a ticket with the words of another source."""
    for seed in range(30):
        ticket = draw_task("held_out", seed)
        assert source_of(replace(ticket, initial=Database())) == "held_out"


def test_tickets_turn_on_one_or_two_capabilities():
    by_builder = {build.__name__: name for name, builders in BY_CAPABILITY.items() for build in builders}
    assert len(by_builder) == 12
    sizes = [len(draw_task("train", seed).requests) for seed in range(300)]
    assert set(sizes) == {3, 4}


def test_an_episode_is_the_same_in_another_process():
    code = "import test_helpdesk; print(test_helpdesk.digest())"
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path), os.getcwd()])
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": path}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == digest()


def test_an_environment_can_be_used_again_and_in_any_order():
    desk = Helpdesk().environment("train")
    first = [play(desk, seed, Demonstrator(np.random.default_rng(seed))) for seed in range(20)]
    again = [play(desk, seed, Demonstrator(np.random.default_rng(seed))) for seed in reversed(range(20))]
    assert first == again[::-1]


def test_a_cut_episode_is_graded_as_it_stands_and_earns_nothing():
    desk = Helpdesk().environment("train")
    for seed in range(20):
        desk.reset(seed)
        messages = list(oracle(desk))
        for message in messages[:-1]:
            desk.step(message)
        outcome = desk.grade()
        assert outcome.reward == 0.0
        assert not next(check for check in outcome.checks if check.name == "ticket.answered").passed


def test_misuse_raises():
    desk = Helpdesk().environment("train")
    desk.reset(0)
    for message in oracle(desk):
        desk.step(message)
    with pytest.raises(RuntimeError, match="after the ticket was done"):
        desk.step(Message(role="assistant", content="More?"))


def test_a_fault_in_a_tool_is_not_taken_for_a_mistake_of_the_agent():
    desk = Helpdesk().environment("train")
    desk.reset(0)
    order = next(iter(desk.database.orders))
    del desk.database.orders[order]["items"]
    call = ToolCall(id="x", name="get_order", arguments={"order_id": order})
    with pytest.raises(KeyError):
        desk.step(Message(role="assistant", tool_calls=(call,)))


def test_a_change_nobody_asked_for_costs_everything():
    for seed in range(50):
        desk = Helpdesk().environment("held_out")
        desk.reset(seed)
        mentioned = " ".join(request.text for request in desk.ticket.requests)
        bystander = next(order for order in desk.database.orders if order not in mentioned)
        call = ToolCall(id="x", name="refund", arguments={"order_id": bystander, "amount": 1})
        desk.step(Message(role="assistant", tool_calls=(call,)))
        for message in oracle(desk):
            desk.step(message)
        assert desk.grade().reward == 0.0
