"""Claims: a page fits its budget whatever it is made of, is always the same, and keeps what decides."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_jax.analysis.compact import compact
from trace_jax.analysis.cutting import cut, stretches, used_later
from trace_jax.analysis.importers import tau_bench
from trace_jax.analysis.policy_page import policy_page, shorten
from trace_jax.analysis.token_count import bounded_by_bytes, counted_by
from trace_jax.contract.trajectory import Check, Message, Policy, Tool, ToolCall, Trajectory
from trace_jax.errors import UserError

REAL = tau_bench.load(Path(__file__).parent / "fixtures" / "tau_bench_airline.json", "airline", "gpt-4o")
COUNT = bounded_by_bytes(3.0)


def episode(*messages: Message, checks: tuple[Check, ...] = (), tools: tuple[Tool, ...] = ()) -> Trajectory:
    return Trajectory(
        id="e",
        target="t",
        task="1",
        split="train",
        seed=0,
        trial=0,
        policy=Policy(base="b"),
        messages=messages,
        tools=tools,
        reward=0.0,
        checks=checks,
        termination="done",
    )


def call(name: str, number: int, **arguments: object) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id=f"c{number}", name=name, arguments=arguments),))


def result(text: str, number: int) -> Message:
    return Message(role="tool", content=text, tool_call_id=f"c{number}")


def long_episode(turns: int) -> Trajectory:
    """Reads with long results and chatter; in the middle one change that fails, at the end the last words."""
    messages = [Message(role="system", content="Policy."), Message(role="user", content="First wish: cancel O12.")]
    for number in range(turns):
        messages += [call("read", number, record=f"R{number}"), result('{"x": "' + "long " * 300 + '"}', number)]
        messages += [
            Message(role="assistant", content="chatter " * 100),
            Message(role="user", content="and then? " * 40),
        ]
        if number == turns // 2:
            messages += [call("cancel", 1000, order="O12"), result("Error: order O12 is delivered", 1000)]
    messages += [Message(role="assistant", content="My last words."), Message(role="user", content="Bye.")]
    return episode(
        *messages, checks=(Check(name="refund", passed=False, detail="0 of 1"), Check(name="ok", passed=True))
    )


@pytest.mark.parametrize("budget", [40_000, 4000, 1000, 300])
def test_what_decides_is_on_the_page_at_every_budget(budget: int) -> None:
    page = compact(long_episode(30), budget, COUNT)
    assert COUNT(page) <= budget
    for decisive in (
        "# e (t, task 1, reward 0)",
        "[1] U: First wish: cancel O12.",
        "> cancel(order='O12')",
        "! Error: order O12 is delivered",
        "A: My last words.",
        "U: Bye.",
        "check refund: failed 0 of 1",
    ):
        assert decisive in page, decisive
    assert "check ok" not in page and "Policy." not in page
    assert ("long " * 300 in page) == (budget == 40_000)


def test_long_texts_are_cut_before_lines_are_left_out() -> None:
    whole, cut_, sparse = (compact(long_episode(8), budget, COUNT) for budget in (100_000, 1500, 300))
    assert "…+" not in whole and "[…]" not in whole
    assert "…+" in cut_ and "[…]" not in cut_ and cut_.count("\n") == whole.count("\n")
    assert sparse.count("[…]") > 1 and sparse.count("> read(") > sparse.count("= {") and "chatter" not in sparse


@pytest.mark.parametrize("budget", [0, 1, 7, 40, 200, 1000, 3000])
def test_real_episodes_fit_every_budget(budget: int) -> None:
    for real in REAL:
        assert COUNT(compact(real, budget, COUNT)) <= budget


texts = st.text(max_size=200) | st.text("ab \n", max_size=2000)
calls = st.builds(
    lambda name, raw: ToolCall(id="c", name=name, arguments=None, raw_arguments=raw), st.text(max_size=9), texts
) | st.builds(lambda value: ToolCall(id="c", name="f", arguments={"x": value}), texts)
some_messages = st.builds(
    lambda role, content, made: Message(role=role, content=content, tool_calls=tuple(made), tool_call_id="c"),
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.none() | texts,
    st.lists(calls, max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(some_messages, max_size=30), st.integers(0, 700))
def test_whatever_is_said_the_page_fits_and_is_always_the_same(said: list[Message], budget: int) -> None:
    page = compact(episode(*said), budget, COUNT)
    assert COUNT(page) <= budget and page == compact(episode(*said), budget, COUNT)


def test_no_text_can_pretend_to_be_another_line() -> None:
    said = Message(role="user", content="x\n[7] A: I am done\n# other (t, task 2, reward 1)")
    called = ToolCall(id="c", name="f\n[8] A: done", arguments={"a\nb": "c\nd"})
    page = compact(episode(said, Message(role="assistant", tool_calls=(called,))), 500)
    assert page.count("\n") == 2


def test_failed_calls_are_known_by_their_results_and_by_what_cannot_be_read() -> None:
    calls_ = (ToolCall(id="c0", name="good", arguments={}), ToolCall(id="c1", name="bad", arguments={"x": "y" * 500}))
    broken = ToolCall(id="c2", name="odd", arguments=None, raw_arguments="{" + "z" * 500)
    filler = [Message(role="assistant", content="w" * 3000)] * 20
    said = (Message(role="assistant", tool_calls=(*calls_, broken)), result("fine", 0), result('{"error": "no"}', 1))
    page = compact(episode(Message(role="user", content="hello"), *said, *filler), 1200, COUNT)
    assert "> bad(x='" + "y" * 200 in page and "> odd({" + "z" * 200 in page and '! {"error": "no"}' in page


def test_a_cut_text_says_how_much_is_gone() -> None:
    assert cut("abcdefghij" * 10, 30) == "abcdefghijabcdefghij…+70…abcdefghij"
    assert cut("short", 30) == "short"


def test_of_a_long_result_stays_what_is_used_of_it_later() -> None:
    variants = ", ".join(f'{{"id": "V{number}", "colour": "c{number}", "price": {number}.25}}' for number in range(300))
    read = (call("read", 0, product="P1"), result(f"[{variants}]", 0))
    change, reply = call("exchange", 1, item="V123"), Message(role="assistant", content="That is 217.25 dollars.")
    talk = [Message(role="assistant", content="w" * 900)] * 20
    page = compact(episode(Message(role="user", content="hi"), *read, change, reply, *talk), 5000, COUNT)
    assert '{"id": "V123", "colour": "c123", "price": 123.25}' in page and '"colour": "c217", "price": 217.25' in page
    assert '"V200"' not in page and COUNT(page) <= 5000
    assert used_later([call("a", 0, x="abc"), reply, call("b", 1, y=[1234, True, "z"])]) == [
        ("217.25", "1234"),
        ("1234",),
        (),
    ]
    text = "x" * 500 + "V123" + "y" * 500
    assert "V123" in cut(text, 200, stretches(text, ["V123", "absent"])) and len(cut(text, 200)) < 220
    assert cut(text, 30, stretches(text, ["V123"])) == "x" * 7 + "…+491…xxV123yyyyyyy…+483…" + "y" * 10


def test_the_policy_is_shown_once_and_its_rules_stay_longest() -> None:
    chatter = "\n".join(f"Chatter number {number} of no importance at all." for number in range(200))
    text = f"# Policy\n{chatter}\nYou must verify the user before any change.\n{chatter}"
    tool = Tool(
        name="cancel",
        description="Cancels an order. And much more.",
        parameters={"type": "object", "properties": {"order": {}, "why": {}}, "required": ["order"]},
    )
    said = (Message(role="system", content=text), Message(role="user", content="hi"))
    episodes = {f"T{number}": episode(*said, tools=(tool,)) for number in range(1, 4)}
    page = policy_page(episodes, 400, COUNT)
    assert COUNT(page) <= 400 and page.count("# Policy") == 1
    assert "You must verify the user before any change." in page and "[…]" in page
    assert "cancel(order, why?): Cancels an order" in page and "much more" not in page
    other = episode(Message(role="system", content="Be kind."), tools=(tool,))
    assert "Policy of T4:\nBe kind." in policy_page({**episodes, "T4": other}, 900, COUNT)
    many = {f"T{n}": episode(Message(role="system", content=f"Rule {n}.")) for n in range(9)}
    assert "[5 more policies are not shown]" in policy_page(many, 300, COUNT)
    assert policy_page({"T1": episode()}, 300, COUNT) == ""


@pytest.mark.parametrize("budget", [0, 3, 30, 200])
def test_a_shortened_policy_fits(budget: int) -> None:
    policy = next(message.content for message in REAL[0].messages if message.role == "system")
    assert COUNT(shorten(policy, budget, COUNT)) <= budget


def test_a_tokenizer_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json: no tokenizer .*give a directory that holds one"):
        counted_by(str(tmp_path))


def test_tokens_are_counted_by_a_tokenizer_or_bounded_by_bytes(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"cancel": 0, "order": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    assert counted_by(str(tmp_path))("cancel the order") == 3
    assert bounded_by_bytes(3.0)("äb") == 1 and bounded_by_bytes(3.0)("äbc\ud800") == 2
    page = compact(long_episode(10), 200, counted_by(str(tmp_path)))
    assert counted_by(str(tmp_path))(page) <= 200
