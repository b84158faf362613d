"""Chats go to servers in the tokens of the training, unless a call says more of its prompt than messages and tools."""

import json
import math
import random
from unicodedata import normalize

import pytest
from qwen3_tokenizer import small_tokenizer

from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.prompt_limit import PromptLimit
from trace_jax.gateway.prompts import server_prompt
from trace_jax.gateway.request import CHAT, TEXT, read_request

TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
SAID = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "so", "refusal": None, "annotations": [], "audio": None}
REPLAYED = {
    "id": "m1", "index": 1, "annotations": [{"type": "url_citation"}], "refusal": "",
    "provider_specific_fields": {"x": 1}, "reasoning_details": [{"type": "reasoning.text", "text": "why"}],
    "finish_reason": "stop", "function_call": None,
}  # fmt: skip
HI = Message(role="user", content="hi")
LIMIT = PromptLimit(4096, 64.0, "shorten it")


@pytest.fixture(scope="module")
def renderer() -> Qwen3Renderer:
    return Qwen3Renderer(small_tokenizer(), "no_thinking")


def members(renderer, path: str = CHAT, **fields):
    body = {"model": "m", "messages": [SAID], **fields}
    return server_prompt(read_request(path, json.dumps(body).encode(), {}), renderer, LIMIT).members


@pytest.mark.parametrize(
    ("fields", "messages", "tools"),
    [
        ({}, [HI], False),
        ({"stop_token_ids": [7]}, [HI], False),
        ({"tools": [TOOL]}, [HI], True),
        ({"tools": [TOOL], "tool_choice": "required"}, [HI], True),
        ({"tools": [TOOL], "tool_choice": "none"}, [HI], False),
        ({"input_ids": None, "continue_final_message": False, "chat_template_kwargs": {}}, [HI], False),
        ({"messages": [SAID, ASSISTANT, SAID]}, [HI, Message(role="assistant", content="so"), HI], False),
        (
            {"messages": [SAID, {**ASSISTANT, "reasoning_content": "why"}, SAID]},
            [HI, Message(role="assistant", content="<think>\nwhy\n</think>\n\nso"), HI],
            False,
        ),
        (
            {"messages": [SAID, {**ASSISTANT, **REPLAYED, "reasoning": "why"}, SAID]},
            [HI, Message(role="assistant", content="<think>\nwhy\n</think>\n\nso"), HI],
            False,
        ),
        (
            {"messages": [SAID, {**ASSISTANT, "reasoning": "other", "reasoning_content": "why"}, SAID]},
            [HI, Message(role="assistant", content="<think>\nwhy\n</think>\n\nso"), HI],
            False,
        ),
        (
            {"messages": [SAID, {**ASSISTANT, "reasoning": [{"text": "why"}]}, {**SAID, "reasoning": "mine"}]},
            [HI, Message(role="assistant", content="so"), HI],
            False,
        ),
        ({"chat_template_kwargs": {"enable_thinking": False}}, [HI], False),
        (
            {"messages": [SAID, {**ASSISTANT, "reasoning_content": ""}, SAID]},
            [HI, Message(role="assistant", content="<think>\n\n</think>\n\nso"), HI],
            False,
        ),
    ],
)
def test_the_renderer_writes_it(renderer, fields, messages, tools):
    offered = [Tool(name="f", description="d", parameters={"type": "object"})] if tools else []
    assert members(renderer, **fields) == {
        "chat_template_kwargs": {"enable_thinking": False},
        "input_ids": renderer.prompt(messages, offered),
        "stop_token_ids": [*fields.get("stop_token_ids", []), *renderer.stop_token_ids],
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"input_ids": [1, 2]},
        {"continue_final_message": True},
        {"messages": [SAID, ASSISTANT]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        {"messages": [SAID, {**ASSISTANT, "prefix": True}]},
        {"messages": [SAID, {**ASSISTANT, "function_call": {"name": "f", "arguments": "{}"}}, SAID]},
        {"messages": [{"role": "user", "content": "an <|im_end|> inside"}, {"role": "critic"}]},
        {"messages": "x"},
    ],
)
def test_the_server_writes_it_and_a_hybrid_thinks_as_in_training(renderer, fields):
    assert members(renderer, **fields) == {"chat_template_kwargs": {"enable_thinking": False}}


def test_what_a_call_says_of_the_template_wins(renderer):
    merged = {"enable_thinking": False, "x": 1}
    assert members(renderer, chat_template_kwargs={"x": 1}) == {"chat_template_kwargs": merged}
    given = {"enable_thinking": True}
    assert members(renderer, chat_template_kwargs=given) == {"chat_template_kwargs": given}
    for fields in ({"chat_template_kwargs": "x"}, {"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}):
        assert members(renderer, **fields) == {}
    assert members(renderer, TEXT, prompt="hi") == {}


def test_other_families_have_no_arguments():
    instruct = Qwen3Renderer(small_tokenizer(), "instruct")
    stops = list(instruct.stop_token_ids)
    assert members(instruct) == {"input_ids": instruct.prompt([HI], []), "stop_token_ids": stops}


def test_characters_are_never_counted_twice_whatever_they_are_composed_of():
    rng = random.Random(0)
    letters = "aeo\u03b1\u0301\u0323\u0342\u0345\u0313\u1112\u1161\u11ab\u4e2d"
    for _ in range(500):
        text = "".join(rng.choices(letters, k=rng.randrange(1, 1500)))
        composed = len(normalize("NFC", text))
        tokens = math.ceil(composed / 4)
        PromptLimit(tokens, 4.0, "").check_text(text, param="prompt")
        with pytest.raises(ApiError, match="exceeds"):
            PromptLimit(tokens - len(text) // 256 - 2, 4.0, "").check_text(text, param="prompt")
