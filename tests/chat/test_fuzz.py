"""Renderers meet random conversations and turns: nothing but the project's own errors, and the invariants."""

from collections.abc import Callable
from itertools import groupby

import chatml_tokenizer
import pytest
import qwen3_tokenizer
from fuzz import Maker
from tokenizers import AddedToken, Tokenizer

from trace_jax.chat.chatml import ChatMLRenderer, with_tools
from trace_jax.chat.codec import RenderError
from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.chat.renderer import Renderer
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.contract.trajectory import Message, Tool

NAMES = ("tiny", "chatml", "thinking", "no_thinking", "instruct")
Kind = tuple[str, Renderer, Tokenizer]


@pytest.fixture(scope="module")
def kinds(tokenizer: Tokenizer) -> list[Kind]:
    tiny = Tokenizer.from_str(tokenizer.to_str())
    tiny.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    chatml, qwen3 = chatml_tokenizer.small_tokenizer(), qwen3_tokenizer.small_tokenizer()
    ends = {
        name: [found.token_to_id("<|endoftext|>")] for name, found in zip(NAMES, (tiny, chatml, qwen3), strict=False)
    }
    thinking = Qwen3Renderer(qwen3, "thinking", ends["thinking"])
    return [
        ("tiny", TinyRenderer(tiny, ends["tiny"]), tiny),
        ("chatml", ChatMLRenderer(chatml, ends["chatml"], "Be kind."), chatml),
        ("thinking", thinking, qwen3),
        ("no_thinking", thinking.with_form("no_thinking"), qwen3),
        ("instruct", thinking.with_form("instruct"), qwen3),
    ]


def turns_of(name: str, messages: list[Message], tools: list[Tool]) -> int:
    """How many turns a prompt has, without the header that it ends with."""
    if name == "tiny":
        return len(messages)
    if name == "chatml":
        shown = with_tools(messages, tools)
        return len(shown) + (shown[0].role != "system")
    results = [sum(1 for _ in run) for is_result, run in groupby(m.role == "tool" for m in messages) if is_result]
    grouped = len(messages) - sum(results) + len(results)
    return grouped + (bool(tools) and messages[0].role != "system")


def check_conversation(kind: Kind, seed: int) -> None:
    """No text pretends to be structure, and only what has no token form is refused."""
    name, renderer, tokenizer = kind
    odd = seed % 3 == 0
    maker = Maker(seed, odd)
    messages, tools = maker.conversation(), maker.tools()
    try:
        ids = renderer.prompt(messages, tools)
    except RenderError:
        assert odd
        return
    turns = turns_of(name, messages, tools)
    assert sum(index in renderer.stop_token_ids for index in ids) == turns
    starts = [f"<|{role}|>" for role in ("system", "user", "assistant", "tool")] if name == "tiny" else ["<|im_start|>"]
    assert sum(index in [tokenizer.token_to_id(start) for start in starts] for index in ids) == turns + 1


def check_written_turn(kind: Kind, seed: int) -> None:
    """What a renderer writes, it reads back; what it reads, it can show; a context goes on as a prompt is written."""
    name, renderer, tokenizer = kind
    maker = Maker(seed, odd=False)
    start, then = [maker.message("user")], [maker.message("tool"), maker.message("user")]
    message = maker.message("assistant")
    try:
        ids = renderer.assistant(message)
    except RenderError:
        return
    assert ids[-1] == renderer.stop_token_ids[0]
    assert not set(ids[:-1]) & set(renderer.stop_token_ids)
    heard, said = renderer.parse(ids), message.content or ""
    assert (heard.content or "", [(c.name, c.arguments, c.raw_arguments) for c in heard.tool_calls]) == (
        said,
        [(c.name, c.arguments, c.raw_arguments) for c in message.tool_calls],
    )
    following = renderer.continuation([*start, message], ids, then)
    # A template's tokenizer joins white space with the header, and Qwen3's template moves line ends around thinking.
    joins = isinstance(renderer, Qwen3Renderer) and (said[:1].isspace() or "think>" in said)
    if following is not None and not joins:
        assert renderer.prompt(start, ()) + ids + following == renderer.prompt([*start, message, *then], ())


def check_sampled_turn(kind: Kind, seed: int) -> None:
    """Whatever is sampled is read, heard, kept in JSON, and shown again; a longer turn takes nothing back."""
    name, renderer, tokenizer = kind
    maker = Maker(seed, odd=False)
    ids = maker.sampled(tokenizer, renderer.stop_token_ids)
    message = renderer.parse(ids)
    assert Message.model_validate_json(message.model_dump_json()) == message
    for call in message.tool_calls:
        assert (call.arguments is None) != (call.raw_arguments is None)
    for stop in renderer.stop_token_ids:
        assert renderer.parse([*ids[:-1], stop]) == renderer.parse([*ids[:-1], renderer.stop_token_ids[0]])
    question = Message(role="user", content="hi")
    assert renderer.prompt([question, message, question], ())
    renderer.continuation([question, message], ids, [question])
    thought = said = ""
    for size in range(1, len(ids) + 1):
        read = renderer.parse(ids[:size])
        heard = renderer.spoken(read)
        if size < len(ids):
            now = settled(renderer.thinking(read), renderer), settled(heard.content or "", renderer)
        else:
            now = renderer.thinking(read), heard.content or ""
        assert now[0].startswith(thought) and now[1].startswith(said), f"{(thought, said)} became {now}"
        thought, said = now


def settled(text: str, renderer: Renderer) -> str:
    """``text`` without what more tokens may change at its end: white space, half a character, part of a tag."""
    before = None
    while before != text:
        before = text
        for tag in renderer.tags:
            text = next((text[:-n] for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), text)
        text = text.rstrip("\ufffd").rstrip()
    return text


CHECKS: list[Callable[[Kind, int], None]] = [check_conversation, check_written_turn, check_sampled_turn]


def run(kinds: list[Kind], seeds: range) -> None:
    for seed in seeds:
        kind, check = kinds[seed % len(kinds)], CHECKS[seed // len(kinds) % len(CHECKS)]
        try:
            check(kind, seed)
        except Exception as error:
            raise AssertionError(
                f"{check.__name__}({kind[0]}, seed {seed}): {type(error).__name__}: {error}"
            ) from error


def test_a_thousand_inputs(kinds: list[Kind]) -> None:
    run(kinds, range(1000))


@pytest.mark.slow
def test_twenty_thousand_inputs(kinds: list[Kind]) -> None:
    run(kinds, range(1000, 21_000))
