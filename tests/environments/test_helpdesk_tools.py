"""Claims about the nine tools: valid schemas, answers of the declared shape, and an error for every bad call."""

import json

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from random_calls import RandomCalls

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.helpdesk.database import Drawer
from trace_jax.environments.helpdesk.desk import says
from trace_jax.environments.helpdesk.policies import oracle
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.helpdesk.tools import RESULTS, TOOLS, ToolError, error_message, execute, tool_message

NAMES = {tool.name for tool in TOOLS}


def shop():
    drawer = Drawer(np.random.default_rng(11))
    drawer.customer("C10")
    return drawer


def call_tool(database, call, offered=frozenset(NAMES)):
    try:
        return tool_message(call, execute(database, call, offered))
    except ToolError as error:
        return error_message(call, error)


def call(database, tool, **arguments):
    message = call_tool(database, ToolCall(id="k", name=tool, arguments=arguments))
    assert (message.role, message.tool_call_id, message.name) == ("tool", "k", tool)
    return json.loads(message.content)


def test_there_are_at_least_eight_tools_with_valid_closed_schemas():
    assert len(NAMES) == len(TOOLS) >= 8
    for tool in TOOLS:
        Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["additionalProperties"] is False
        assert set(tool.parameters["required"]) == set(tool.parameters["properties"])
        assert tool.description


def test_every_answer_has_the_declared_shape():
    assert set(RESULTS) == NAMES
    for schema in RESULTS.values():
        Draft202012Validator.check_schema(schema)
    seen = set()
    for split in ("train", "held_out"):
        for seed in range(100):
            for policy in (oracle, RandomCalls(np.random.default_rng(seed))):
                desk = Helpdesk().environment(split)
                desk.reset(seed)
                for message in policy(desk):
                    for answer in desk.step(message).messages:
                        if answer.role == "tool":
                            seen.add(answer.name)
                            Draft202012Validator(RESULTS[answer.name]).validate(json.loads(answer.content))
    assert seen == NAMES


def test_reads_tell_the_record_and_change_nothing():
    drawer = shop()
    order = drawer.order("C10", "shipped")
    product = drawer.product("rug", 7, 0)
    drawer.database.faults[order] = 1
    before = json.dumps(drawer.database.state())
    assert call(drawer.database, "get_order", order_id=order) == {"error": "timeout, try again"}
    assert call(drawer.database, "get_order", order_id=order)["status"] == "shipped"
    assert call(drawer.database, "get_customer", customer_id="C10") == {"city": drawer.city_on_file["C10"]}
    assert call(drawer.database, "search_products", kind="rug") == [{"id": product, "price": 7, "stock": 0}]
    assert call(drawer.database, "search_products", kind="lamp") == []
    assert json.dumps(drawer.database.state()) == before


def test_writes_do_what_they_say_and_refuse_what_they_must():
    drawer = shop()
    database = drawer.database
    order, locked = drawer.order("C10", "delivered"), drawer.order("C10", "processing", locked=True)
    product = drawer.product("rug", 7, 1)
    assert call(database, "refund", order_id=order, amount=3) == {"ok": True}
    assert call(database, "refund", order_id=order, amount=2) == {"ok": True}
    assert database.orders[order]["refunded"] == 5
    assert call(database, "resend_order", order_id=order, city="Lima") == {"ok": True}
    assert database.orders[order]["sent_to"] == "Lima"
    assert call(database, "place_order", customer_id="C10", product_id=product) == {"ok": True}
    assert (database.products[product]["stock"], database.customers["C10"]["bought"]) == (0, [product])
    assert "out of stock" in call(database, "place_order", customer_id="C10", product_id=product)["error"]
    assert call(database, "set_city", customer_id="C10", city="Quito") == {"ok": True}
    assert database.customers["C10"]["city"] == "Quito"
    for tool, more in (("cancel_order", {}), ("refund", {"amount": 1}), ("resend_order", {"city": "Rome"})):
        assert "locked" in call(database, tool, order_id=locked, **more)["error"]
    assert call(database, "unlock_order", order_id=locked) == {"ok": True}
    assert call(database, "cancel_order", order_id=locked) == {"ok": True}
    assert database.orders[locked]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("no_such_tool", {}, "no tool no_such_tool"),
        ("get_order", None, "not a JSON object"),
        ("get_order", {}, "order_id"),
        ("get_order", {"order_id": 12}, "12"),
        ("get_order", {"order_id": "O999"}, "no order O999"),
        ("get_order", {"order_id": "O10", "extra": 1}, "extra"),
        ("get_customer", {"customer_id": "C1"}, "no customer C1"),
        ("search_products", {"kind": "boat"}, "boat"),
        ("refund", {"order_id": "O10", "amount": 0}, "0"),
        ("refund", {"order_id": "O10", "amount": True}, "True"),
        ("refund", {"order_id": "O10", "amount": "3"}, "'3'"),
        ("place_order", {"customer_id": "C10", "product_id": "P1"}, "no product P1"),
    ],
)
def test_bad_calls_get_an_error_and_change_nothing(name, arguments, words):
    drawer = shop()
    before = json.dumps(drawer.database.state())
    answer = call_tool(drawer.database, ToolCall(id="k", name=name, arguments=arguments, raw_arguments="{"))
    assert words in json.loads(answer.content)["error"]
    assert json.dumps(drawer.database.state()) == before


def test_a_tool_that_is_not_offered_does_not_exist():
    drawer = shop()
    answer = call_tool(
        drawer.database, ToolCall(id="k", name="get_customer", arguments={"customer_id": "C10"}), frozenset()
    )
    assert json.loads(answer.content) == {"error": "no tool get_customer"}


def test_parallel_calls_all_run_in_order_even_beside_a_bad_one():
    desk = Helpdesk().environment("train")
    desk.reset(0)
    order = next(iter(desk.database.orders))
    calls = (
        ToolCall(id="a", name="refund", arguments={"order_id": order, "amount": 2}),
        ToolCall(id="b", name="refund", arguments=None, raw_arguments="{"),
        ToolCall(id="c", name="refund", arguments={"order_id": order, "amount": 3}),
    )
    answers = desk.step(Message(role="assistant", tool_calls=calls)).messages
    assert [answer.tool_call_id for answer in answers] == ["a", "b", "c"]
    assert ["error" in answer.content for answer in answers] == [False, True, False]
    assert desk.database.orders[order]["refunded"] == 5


def test_words_are_matched_whole():
    assert says("They cost 12.", "cost 12")
    assert not says("They cost 123.", "cost 12")
    assert not says("It is preshipped", "shipped")
