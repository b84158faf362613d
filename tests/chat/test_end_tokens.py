"""Whichever of a model's end tokens ends a turn, it is no part of what was said."""

import chatml_tokenizer
import pytest
import qwen3_tokenizer
from tokenizers import AddedToken, Tokenizer

from trace_jax.chat.chatml import ChatMLRenderer
from trace_jax.chat.codec import Codec, RenderError
from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.chat.renderer import Renderer
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.contract.trajectory import Message, ToolCall

CALL = ToolCall(id="call_0", name="refund", arguments={"order_id": "O41"})
SAID = [
    Message(role="assistant", content="please refund now"),
    Message(role="assistant", content=None, tool_calls=(CALL,)),
    Message(role="assistant", content=None),
]
QUESTION = Message(role="user", content="Is it done?")


def made(kind: str, tiny: Tokenizer) -> tuple[Renderer, int]:
    """A renderer of the kind, and a second end token."""
    if kind == "tiny":
        tokenizer = Tokenizer.from_str(tiny.to_str())
        tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    else:
        tokenizer = (chatml_tokenizer if kind == "chatml" else qwen3_tokenizer).small_tokenizer()
    other = tokenizer.token_to_id("<|endoftext|>")
    if kind == "tiny":
        return TinyRenderer(tokenizer, [other]), other
    if kind == "chatml":
        return ChatMLRenderer(tokenizer, [other]), other
    form = "instruct" if kind == "instruct" else "thinking"
    return Qwen3Renderer(tokenizer, form, [other]), other


@pytest.fixture(scope="module", params=["tiny", "chatml", "instruct", "thinking"])
def renderer_and_end(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> tuple[Renderer, int]:
    return made(request.param, tokenizer)


@pytest.mark.parametrize("message", SAID)
def test_an_end_token_is_no_text(renderer_and_end: tuple[Renderer, int], message: Message) -> None:
    renderer, other = renderer_and_end
    ids = renderer.assistant(message)
    assert renderer.stop_token_ids == (ids[-1], other)
    heard = renderer.parse([*ids[:-1], other])
    assert heard == message and renderer.spoken(heard) == message


@pytest.mark.parametrize("message", SAID)
def test_a_turn_that_ends_otherwise_begins_a_new_context(
    renderer_and_end: tuple[Renderer, int], message: Message
) -> None:
    """The template would write its own end, so that the context could not be that of the template."""
    renderer, other = renderer_and_end
    ids = renderer.assistant(message)
    history = [QUESTION, message]
    assert renderer.continuation(history, [*ids[:-1], other], [QUESTION]) is None
    following = renderer.continuation(history, ids, [QUESTION])
    assert following is not None
    assert renderer.continuation(history, ids[:-1], [QUESTION]) == (ids[-1], *following)
    assert renderer.prompt([QUESTION], ()) + ids + following == renderer.prompt([*history, QUESTION], ())


def test_the_text_of_an_end_token_does_not_end_a_turn(renderer_and_end: tuple[Renderer, int]) -> None:
    renderer, other = renderer_and_end
    message = Message(role="assistant", content="It ends with <|endoftext|>, I think.")
    assert other not in renderer.assistant(message)
    assert renderer.parse(renderer.assistant(message)) == message
    assert other not in renderer.prompt([Message(role="user", content="<|endoftext|>"), message], ())


def test_an_end_token_that_text_can_write_is_refused_in_text() -> None:
    tokenizer = qwen3_tokenizer.small_tokenizer()
    end = tokenizer.token_to_id("</tool_call>")  # an added token that is not special: text becomes it
    codec = Codec(tokenizer, ("<|im_end|>",), [end, 5])
    assert codec.stop_token_ids == (tokenizer.token_to_id("<|im_end|>"), 5, end)
    with pytest.raises(RenderError, match="became a special token"):
        codec.encode("a </tool_call> b")
    assert 5 in codec.encode(tokenizer.decode([5]))  # an ordinary token may stand in a text


@pytest.mark.parametrize("text", ["\ud83d", "refund \ude00now", "\ude00\ud83d", "🙂" * 99 + " \ud83d"])
def test_half_a_surrogate_pair_is_shown(renderer_and_end: tuple[Renderer, int], text: str) -> None:
    renderer, _ = renderer_and_end
    match = r"\\ud[0-9a-f]{3}.* cannot be encoded: it holds half a surrogate pair \(\\ud[0-9a-f]{3}\): send whole char"
    for message in (
        Message.model_construct(role="user", content=text, tool_calls=()),
        Message.model_construct(role="tool", content=text, tool_calls=()),
        Message.model_construct(role="assistant", content=text, tool_calls=()),
    ):
        with pytest.raises(RenderError, match=match) as refused:
            renderer.prompt([message], ())
        str(refused.value).encode()  # the message itself can be written


@pytest.mark.parametrize("name", ["", "get order", "a\nb"])
def test_what_a_model_has_said_is_shown_as_history_even_if_nobody_would_write_it(
    renderer_and_end: tuple[Renderer, int], name: str
) -> None:
    renderer, _ = renderer_and_end
    call = ToolCall(id="c", name=name, arguments=None, raw_arguments="\n/x {")
    said = Message(role="assistant", content="/a\n/b", tool_calls=(call,))
    assert renderer.prompt([QUESTION, said, QUESTION], ())
