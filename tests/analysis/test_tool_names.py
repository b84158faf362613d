import pytest
from made_episodes import made

from trace_jax.analysis.effects import tool_kinds
from trace_jax.analysis.episode import read_episode
from trace_jax.analysis.tool_names import kind_of, name_words, plain_name
from trace_jax.contract.trajectory import Effect, Tool


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cancel_order", ("cancel", "order")),
        ("mcp__bank__transferMoney", ("transfer", "money")),
        ("mcp__my_server__HTTPGetURL", ("http", "get", "url")),
        ("calendar.events-list", ("calendar", "events", "list")),
        ("Open2FA", ("open", "2", "fa")),
        ("取消", ()),
    ],
)
def test_names_are_split_in_every_style(name: str, words: tuple[str, ...]) -> None:
    assert name_words(name) == words
    assert plain_name(name) == ("_".join(words) or "tool")


@pytest.mark.parametrize(
    ("name", "description", "kind"),
    [
        ("get_order", "", "read"),
        ("mcp__shop__searchOrders", "", "read"),
        ("calendar.create_event", "", "write"),
        ("events_list", "", "read"),
        ("transfer_to_human_agents", "", "handoff"),
        ("transferMoney", "", "write"),
        ("calculate", "", "scratch"),
        ("check_in_guest", "", "write"),
        ("appointment", "Returns one appointment.", "read"),
        ("appointment", "Books an appointment.", "write"),
        ("appointment", "", "write"),
    ],
)
def test_what_a_tool_does_is_told_by_its_name_or_description(name: str, description: str, kind: str) -> None:
    assert kind_of(name, description) == kind


def test_a_tool_after_which_a_read_gives_another_result_writes_and_one_that_changes_nothing_reads() -> None:
    def balance(amount: int) -> tuple[str, dict[str, str], dict[str, int]]:
        return ("get_balance", {"account": "A1"}, {"amount": amount})

    sync, glance = ("check_out", {"account": "A1"}, "ok"), ("balance_sheet", {"account": "A1"}, {"rows": 3})
    changing = [made("> go", balance(1), sync, balance(2), number=n) for n in range(2)]
    quiet = [made("> go", balance(1), glance, balance(1), number=n) for n in range(5)]
    assert tool_kinds(changing)["check_out"] == "write" and kind_of("check_out") == "read"
    assert tool_kinds(changing[:1])["check_out"] == "read"  # seen once: it may be chance
    assert tool_kinds(quiet)["balance_sheet"] == "read" and kind_of("balance_sheet") == "write"
    assert tool_kinds(quiet[:4])["balance_sheet"] == "write"
    # A write whose name says so stays one, however little a read shows of it.
    hidden = [made("> go", balance(1), ("send_note", {"account": "A1"}, "ok"), balance(1), number=n) for n in range(9)]
    assert tool_kinds(hidden)["send_note"] == "write"


def test_offered_tools_are_known_by_their_description() -> None:
    offered = Tool(name="ledger", description="Lists what was booked.", parameters={"type": "object"})
    assert tool_kinds([made("> hi", tools=[offered])]) == {"ledger": "read"}


def test_what_the_author_declares_comes_before_names_texts_and_observations() -> None:
    def tool(name: str, effect: Effect | None) -> Tool:
        return Tool(name=name, description="Returns it.", parameters={"type": "object"}, effect=effect)

    tools = [tool("get_keys", "write"), tool("open_file", "read"), tool("think", "write"), tool("put_up", None)]
    assert tool_kinds([made("> hi", tools=tools)]) == {
        "get_keys": "write", "open_file": "read", "think": "scratch", "put_up": "write"
    }  # fmt: skip
    quiet = [("get_it", {"x": "A1"}, 1), ("get_keys", {"x": "A1"}, "ok"), ("get_it", {"x": "A1"}, 1)]
    episodes = [made("> go", *quiet, number=n, tools=tools) for n in range(9)]
    assert tool_kinds(episodes)["get_keys"] == "write"
    assert read_episode(episodes[0]).write_tools == {"get_keys", "put_up"}


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        ({"error": "no"}, True),
        ({"success": False}, True),
        ({"ok": False}, True),
        ({"status": "error"}, True),
        ({"isError": True, "content": []}, True),
        ("Error: no such order", True),
        ("ValueError: bad", True),
        ("Failed to connect", True),
        ({"error": None, "amount": 1}, False),
        ({"status": "failed"}, False),  # of a payment: the state of a record
        ({"ok": True}, False),
        ("Errors were not found", False),
        ([], False),
    ],
)
def test_results_that_say_that_the_call_failed(result: object, failed: bool) -> None:
    (call,) = read_episode(made("> go", ("get_order", {}, result))).calls
    assert call.failed is failed
