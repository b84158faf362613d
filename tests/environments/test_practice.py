"""Claims about the generated desks: what earns how much, that the base's wrong path is punished, and that no ticket of
the target can be drawn from them."""

import inspect
from collections import defaultdict
from functools import cache

import numpy as np
import pytest

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.helpdesk.desk import POLICY, Desk
from trace_jax.environments.helpdesk.draw import draw_task, source_of
from trace_jax.environments.helpdesk.policies import Demonstrator, follow, oracle, play
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.helpdesk.practice.desk import PROGRESS, ROUTINE_COST
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.helpdesk.tools import TOOLS
from trace_jax.environments.registry import environment_factory
from trace_jax.errors import UserError

EVERY_RUNG = [
    pytest.param(design, id=f"{name}-{rung}")
    for name, family in FAMILIES.items()
    for rung, design in enumerate(FamilyPractice(family).designs)
]
WITH_WRONG_PATH = ("verify_before_acting", "complete_all_steps", "compute_over_values", "choose_under_constraints")


def alone(name, **knobs):
    """Tickets of one exercised request."""
    return FAMILIES[name](**{"exercised": 1, "routine": 0, "contrast_every": 0, **knobs})


def act(desk, *calls, reply="Done."):
    """One turn: the calls, each in a message of its own, then the reply."""
    for name, arguments in calls:
        desk.step(Message(role="assistant", tool_calls=(ToolCall(id="t", name=name, arguments=arguments),)))
    return desk.step(Message(role="assistant", content=reply))


def test_there_is_a_family_for_every_capability_of_the_target():
    assert set(FAMILIES) == set(BY_CAPABILITY)
    for name, family in FAMILIES.items():
        assert family.exercises == BY_CAPABILITY[name]
        assert not set(family.routines) & {build for builders in BY_CAPABILITY.values() for build in builders}


@pytest.mark.parametrize("design", EVERY_RUNG)
def test_the_solution_earns_1_and_anything_wrong_less(design):
    desk = environment_factory(design)()
    for seed in range(12):
        assert play(desk, seed, oracle).reward == 1.0
        for slip, request in enumerate(desk.ticket.requests):
            if request.wrong is None:
                continue
            desk.reset(seed)
            for number, other in enumerate(desk.ticket.requests):
                for message in follow(other.wrong if number == slip else other.right):
                    desk.step(message)
            exercised = sum(desk._turns_on)
            assert desk.grade().reward <= 1.0 - (1.0 - PROGRESS) / exercised + 1e-9


@pytest.mark.parametrize("design", EVERY_RUNG)
def test_shapes_are_the_targets(design):
    desk = environment_factory(design)()
    assert 3 <= len(desk.tools) <= 5
    assert set(t.model_dump_json() for t in desk.tools) <= set(t.model_dump_json() for t in TOOLS)
    system, opening = desk.reset(17).messages
    assert (system.role, system.content, opening.role) == ("system", POLICY, "user")
    assert opening.content.startswith(f"Customer {desk.ticket.customer}. Subject: ")
    first = design in (FamilyPractice(family).first for family in FAMILIES.values())
    called = {name for seed in range(40 if first else 10) for name in _called(desk, seed)}
    assert called <= {tool.name for tool in desk.tools}
    if first:
        assert called == {tool.name for tool in desk.tools}, "every tool offered is needed for some ticket"


def _called(desk, seed):
    desk.reset(seed)
    return [call.name for message in desk.solution() for call in message.tool_calls]


def said(ticket):
    return (ticket.opening(), *(request.text for request in ticket.requests[1:]))


@cache
def tasks_of_the_target():
    """What is said in them, and the fewest requests of any."""
    tasks = [draw_task(split, seed) for split in ("train", "held_out") for seed in Helpdesk().tasks(split)]
    return {said(task) for task in tasks}, min(len(task.requests) for task in tasks)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_ticket_of_the_target_can_be_drawn(name):
    """By construction (another source, fewer requests) and by comparing what is drawn with every task there is."""
    texts, fewest = tasks_of_the_target()
    for design in FamilyPractice(FAMILIES[name]).designs:
        desk = environment_factory(design)()
        for seed in range(100):
            desk.reset(seed)
            assert source_of(desk.ticket) == "practice"
            assert len(desk.ticket.requests) < fewest
            assert said(desk.ticket) not in texts


@pytest.mark.parametrize("name", WITH_WRONG_PATH)
def test_the_base_agents_habit_earns_what_the_calibration_wants(name):
    """Right a quarter of the time on what it lacks, always on the routine: inside the window at the first rung."""
    desk = environment_factory(FamilyPractice(FAMILIES[name]).first)()
    rewards = [play(desk, seed, Demonstrator(np.random.default_rng(seed))).reward for seed in range(150)]
    assert 0.25 < np.mean(rewards) < 0.5
    assert 0.25 < np.mean(np.array(rewards) == 1.0) < 0.5


@pytest.mark.parametrize("name", WITH_WRONG_PATH)
def test_difficulty_orders_the_ladder(name):
    """Success of an agent that is right three times in five, whatever the request."""
    success = []
    for design in FamilyPractice(FAMILIES[name]).designs:
        desk = environment_factory(design)()
        passed = [play(desk, seed, Demonstrator(np.random.default_rng(seed), 0.4)).reward == 1.0 for seed in range(100)]
        success.append(np.mean(passed))
    assert all(later < earlier + 0.08 for earlier, later in zip(success, success[1:], strict=False)), success
    assert success[-1] < success[0] - 0.2


def test_progress_earns_a_part_and_a_wrong_extra_change_costs_it():
    earned = defaultdict(set)
    for seed in range(60):
        desk = alone("verify_before_acting")
        desk.reset(seed)
        request = desk.ticket.requests[0]
        look_up, right = request.right.calls
        wrong = request.wrong.calls[0]
        act(desk, wrong)
        earned["acted unread"].add(desk.grade().reward)
        desk.reset(seed)
        act(desk, look_up, wrong)
        earned["read, then acted on memory"].add(desk.grade().reward)
        desk.reset(seed)
        act(desk, look_up)
        earned["read only"].add(desk.grade().reward)
        desk.reset(seed)
        bystander = next(order for order in desk.database.orders if order not in request.text)
        act(desk, look_up, wrong, ("refund", {"order_id": bystander, "amount": 1}))
        earned["and changed another order"].add(desk.grade().reward)
        desk.reset(seed)
        act(desk, look_up, right, ("refund", {"order_id": bystander, "amount": 1}))
        earned["right, and changed another order"].add(desk.grade().reward)
    assert earned == {
        "acted unread": {0.0},
        "read, then acted on memory": {PROGRESS},
        "read only": {0.0},
        "and changed another order": {0.0},
        "right, and changed another order": {0.0},
    }


def test_progress_in_the_other_families():
    for seed in range(60):
        desk = alone("compute_over_values")
        desk.reset(seed)
        look_up = desk.ticket.requests[0].right.calls[0]
        order = look_up[1]["order_id"]
        total = sum(desk.database.orders[order]["items"].values())
        if "refund" in desk.ticket.requests[0].text:
            for amount, reward in ((total, 1.0), (total + 1, PROGRESS), (1, 0.0)):
                desk.reset(seed)
                act(desk, look_up, ("refund", {"order_id": order, "amount": amount}))
                assert desk.grade().reward == reward
        else:
            for amount, reward in ((total, 1.0), (total + 1, PROGRESS), (1, 0.0), (10 * total, PROGRESS)):
                desk.reset(seed)
                act(desk, look_up, reply=f"They cost {amount}.")
                assert desk.grade().reward == reward

        desk = alone("complete_all_steps")
        desk.reset(seed)
        request = desk.ticket.requests[0]
        act(desk, *request.right.calls[:-1])
        assert desk.grade().reward == (PROGRESS if len(request.right.calls) == 3 else 0.0)
        desk.reset(seed)
        act(desk, *request.right.calls[1:])
        assert desk.grade().reward == 0.0

        desk = alone("refuse_forbidden")
        desk.reset(seed)
        act(desk, *desk.ticket.requests[0].right.calls, reply="No.")
        assert desk.grade().reward == PROGRESS
        desk.reset(seed)
        act(desk, reply="I cannot do that.")
        assert desk.grade().reward == 0.0

        desk = alone("recover_from_error")
        desk.reset(seed)
        calls = desk.ticket.requests[0].right.calls
        act(desk, *calls[:-1], reply="Sorry.")
        assert desk.grade().reward == (PROGRESS if len(calls) == 4 else 0.0)


def test_choosing_better_but_not_best_is_progress():
    tried = set()
    for seed in range(80):
        desk = alone("choose_under_constraints", listed=4)
        desk.reset(seed)
        search, (_, right) = desk.ticket.requests[0].right.calls
        first = desk.ticket.requests[0].wrong.calls[-1][1]["product_id"]
        rows = {k: r for k, r in desk.database.products.items() if r["kind"] == search[1]["kind"]}
        assert len(rows) == (3 if "dearer" in desk.ticket.requests[0].text else 4)
        for product, row in rows.items():
            desk.reset(seed)
            act(desk, search, ("place_order", {**right, "product_id": product}))
            better = row["price"] > rows[first]["price"]
            wanted = 1.0 if product == right["product_id"] else PROGRESS * better
            tried.add(wanted)
            assert desk.grade().reward == wanted
    assert tried == {0.0, PROGRESS, 1.0}


def test_routine_gone_wrong_costs_half_and_alone_earns_nothing():
    for name, family in FAMILIES.items():
        desk = family(exercised=1, routine=1, contrast_every=0)
        for seed in range(15):
            desk.reset(seed)
            exercised = next(i for i, on in enumerate(desk._turns_on) if on)
            for keep, reward in ((exercised, 1.0 - ROUTINE_COST), (1 - exercised, 0.0)):
                desk.reset(seed)
                for number, request in enumerate(desk.ticket.requests):
                    if number == keep:
                        act(desk, *request.right.calls, reply=request.right.reply)
                    else:
                        act(desk, reply="Hm.")
                assert desk.grade().reward == reward, name


def test_every_nth_ticket_is_wholly_routine():
    desk = FAMILIES["compute_over_values"](contrast_every=4)
    kinds = []
    for seed in range(64):
        desk.reset(seed)
        kinds.append(any(request.wrong is not None for request in desk.ticket.requests))
        assert len(desk.ticket.requests) == 2
    assert kinds == [seed % 4 != 0 for seed in range(64)]


def test_both_orders_of_exercise_and_routine_are_drawn():
    desk = FAMILIES["verify_before_acting"](contrast_every=0)
    places = []
    for seed in range(200):
        desk.reset(seed)
        places.append(desk._turns_on[0])
    assert 60 < sum(places) < 140


def test_a_cut_episode_is_graded_as_it_stands():
    desk = FAMILIES["verify_before_acting"](contrast_every=0)
    for seed in range(20):
        desk.reset(seed)
        assert desk.grade().reward == 0.0
        for message in desk.solution()[:-1]:
            desk.step(message)
        assert 0.0 <= desk.grade().reward < 1.0


def test_knobs():
    cheap = alone("compute_over_values", max_price=2)
    for seed in range(30):
        cheap.reset(seed)
        order = cheap.ticket.requests[0].right.calls[0][1]["order_id"]
        assert max(cheap.database.orders[order]["items"].values()) <= 2
    for listed in (2, 3, 4):
        desk = alone("choose_under_constraints", listed=listed)
        for seed in range(30):
            desk.reset(seed)
            in_stock = [row for row in desk.database.products.values() if row["stock"]]
            assert len(in_stock) == (2 if "dearer" in desk.ticket.requests[0].text else min(listed, 3))
            assert len(desk.database.products) - len(in_stock) == (listed == 4)
    for name, knobs in (
        ("compute_over_values", {"max_price": 1}),
        ("choose_under_constraints", {"listed": 5}),
        ("verify_before_acting", {"exercised": 0}),
        ("verify_before_acting", {"exercised": 2, "routine": 1}),
        ("verify_before_acting", {"contrast_every": -1}),
    ):
        with pytest.raises(UserError, match=next(iter(knobs))):
            alone(name, **knobs)


def test_state_is_a_copy():
    desk = alone("verify_before_acting")
    desk.reset(0)
    desk.state()["customers"].clear()
    assert desk.database.customers


def test_a_family_has_nothing_but_knobs_that_json_holds():
    for family in FAMILIES.values():
        assert issubclass(family, Desk)
        assert all(isinstance(p.default, int | str) for p in inspect.signature(family).parameters.values())


def test_prompts_need_what_they_say_and_leave_the_episode_alone():
    compute = FAMILIES["compute_over_values"]()
    for family in FAMILIES.values():
        if family is type(compute):
            continue
        desk = family()
        started = desk.reset(3)
        for seed in range(20):
            prompts = desk.prompts(seed, compute)
            sums = [
                "two items" in prompt[-1].content for prompt in (prompts.exercised, prompts.routine, prompts.combined)
            ]
            assert sums == [False, False, True]
            assert desk.prompts(seed).combined == ()
            assert prompts.exercised == family(contrast_every=0).reset(seed).messages
            assert prompts.routine == family(contrast_every=1).reset(seed).messages
        assert desk.prompts(0, Desk("other", draw_task)).combined == ()
        assert desk.reset(3) == started


def test_the_target_offers_its_requests_with_solution_and_mistake():
    for number, kind in enumerate(Helpdesk.request_kinds):
        task = Helpdesk().practice(number, [kind, "status"])
        assert [request.kind for request in task.requests] == [kind, "status"]
        desk = task.environment()
        for wrong, reward in ((False, 1.0), (True, 0.0)):
            request = task.requests[0]
            if wrong and request.wrong is None:
                continue
            desk.reset(number)
            for message in (*(request.wrong if wrong else request.right), *task.requests[1].right):
                desk.step(message)
            assert desk.grade().reward == reward, kind
    assert 3 <= len(Helpdesk().practice(5).requests) <= 4
