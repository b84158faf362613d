"""The desk of one-request tickets: solvable, never by doing nothing, graded in steps, and split without overlap."""

import numpy as np
import pytest

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.helpdesk.phrases import _PHRASES, reworded
from trace_jax.environments.helpdesk.requests import Path, Request
from trace_jax.environments.helpdesk.short import PARTIAL, ShortDesk, ShortHelpdesk, draw_short
from trace_jax.environments.registry import load_target

SEEDS = range(70)  # ten of every kind


def say(text: str) -> Message:
    return Message(role="assistant", content=text)


def call(name: str, **arguments: object) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id="c", name=name, arguments=arguments),))


def played(seed: int, *messages: Message):
    desk = ShortDesk("held_out")
    desk.reset(seed)
    for message in messages:
        desk.step(message)
    return desk.grade()


def test_the_right_path_earns_everything_and_nothing_earns_nothing():
    for seed in SEEDS:
        desk = ShortDesk("train")
        desk.reset(seed)
        right = list(desk.solution())
        for message in right:
            observation = desk.step(message)
        assert observation.done
        assert desk.grade().reward == 1.0
        for lazy in ("Done.", "I cannot do that.", right[-1].content):
            desk.reset(seed)
            desk.step(say(lazy))
            assert desk.grade().reward == 0.0


def test_half_of_the_way_earns_a_part():
    for seed in SEEDS:
        (request,) = draw_short("held_out", seed).requests
        calls = [call(name, **arguments) for name, arguments in request.right.calls]
        outcome = played(seed, calls[0], say("Well."))
        assert outcome.reward == (1.0 if len(calls) == 1 and not request.must_say else PARTIAL / len(calls))
        twice = played(seed, calls[0], calls[0], say("Well."))
        assert twice.components["calls"] <= 0.5  # what was asked for once and done twice is half right


def test_a_wrong_change_earns_nothing():
    order = draw_short("held_out", 3).requests[0].right.calls[0][1]["order_id"]
    looked = call("get_order", order_id=order)
    text = f"I cannot cancel {order}."
    assert played(3, looked, say(text)).reward == PARTIAL  # the status is not said
    assert played(3, looked, call("cancel_order", order_id=order), say(text)).reward == 0.0


def test_a_change_unseen_is_half_right():
    (request,) = draw_short("held_out", 2).requests
    *_, (name, arguments) = request.right.calls
    assert name == "cancel_order"
    assert played(2, call(name, **arguments), say("Cancelled.")).reward == PARTIAL / 2


def test_malformed_and_refused_calls_are_answered_and_checked():
    bad = Message(
        role="assistant",
        tool_calls=(
            ToolCall(id="a", name="get_order", arguments=None, raw_arguments="O41"),
            ToolCall(id="b", name="get_order", arguments={"order_id": "O99"}),
            ToolCall(id="c", name="unlock_order", arguments={"order_id": "O41"}),  # not offered here
        ),
    )
    desk = ShortDesk("held_out")
    desk.reset(0)
    answers = desk.step(bad).messages
    assert [answer.tool_call_id for answer in answers] == ["a", "b", "c"]
    assert all('"error"' in (answer.content or "") for answer in answers)
    for message in desk.solution():
        desk.step(message)
    outcome = desk.grade()
    assert outcome.reward == 1.0
    (form,) = [check for check in outcome.checks if check.name == "calls.accepted"]
    assert (form.passed, form.detail, outcome.components["form"]) == (False, "1 of 4 calls", 0.25)


def test_splits_share_no_ticket_and_hold_every_kind_alike():
    def said(source, seeds):
        return {(t.customer, t.requests[0].text) for t in (draw_short(source, seed) for seed in seeds)}

    held_out = said("held_out", range(200))
    assert not held_out & said("train", range(600)) and not held_out & said("practice", range(200))
    kinds = [draw_short("train", seed).requests[0].subject for seed in SEEDS]
    assert kinds.count("order status") == 10 and kinds.count("cancel an order") == 20


def test_the_target_is_known_by_name():
    target = load_target("helpdesk_short")
    assert isinstance(target, ShortHelpdesk)
    assert len(target.tasks("held_out")) >= 100
    opening = target.environment("train").reset(5).messages
    assert [message.role for message in opening] == ["system", "user"]
    assert opening == target.environment("train").reset(5).messages


def test_every_phrase_keeps_the_particulars():
    rng = np.random.default_rng()
    texts = ["What is the status of order O12?", "Please change my city to Rome.", "Please cancel order O12.",
             "Please refund the mug of order O12.", "Please resend order O12 to Rome."]  # fmt: skip
    for text, (_, phrases) in zip(texts, _PHRASES, strict=True):
        request = Request("subject", text, Path((), ""))
        seen = {reworded(request, rng).text for _ in range(300)}
        assert len(seen) == 1 + len(phrases)
        particulars = [word for word in ("O12", "Rome", "mug") if word in text]
        assert all(word in phrase for phrase in seen for word in particulars)
    with pytest.raises(ValueError, match="not in the phrase book"):
        reworded(Request("subject", "Hello?", Path((), "")), rng)
