"""Tokenizers, templates and end tokens as models keep them, and one clear line for files that are damaged."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import qwen3_tokenizer
from model_files import HYBRID, INSTRUCT, changed, write_model
from tokenizers import Tokenizer

from trace_jax.chat.codec import Codec
from trace_jax.chat.files import chat_files, end_token_ids, read_tokenizer
from trace_jax.chat.loading import load_renderer
from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError

OTHER = changed(INSTRUCT, "# Tools", "# Other tools")


@pytest.fixture(scope="module")
def qwen3() -> Tokenizer:
    return qwen3_tokenizer.small_tokenizer()


def named(**templates: str) -> list[dict[str, str]]:
    return [{"name": name, "template": template} for name, template in templates.items()]


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template__jinja": INSTRUCT},
        {"tokenizer_config__json": {"chat_template": INSTRUCT}},
        {"tokenizer_config__json": {"chat_template": named(default=INSTRUCT)}},
        {"tokenizer_config__json": {"chat_template": named(default=OTHER, tool_use=INSTRUCT)}},
        {"tokenizer_config__json": {"chat_template": named(rag="{{ 1 }}", default=INSTRUCT)}},
        {"chat_template__json": {"chat_template": INSTRUCT}},
        {"chat_template__json": {"chat_template": INSTRUCT}, "tokenizer_config__json": {"model_max_length": 5}},
        {"chat_template__jinja": INSTRUCT, "tokenizer_config__json": {"chat_template": OTHER}},
        {"chat_template__jinja": INSTRUCT, "chat_template__json": {"chat_template": OTHER}},
        {"tokenizer_config__json": {"chat_template": INSTRUCT}, "chat_template__json": {"chat_template": OTHER}},
        {"chat_template__jinja": OTHER, "additional_chat_templates/tool_use__jinja": INSTRUCT},
    ],
)
def test_the_template_is_found_where_models_keep_it(tmp_path: Path, qwen3: Tokenizer, files: dict[str, Any]) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    renderer = load_renderer(write_model(tmp_path, qwen3, **files), None)
    assert renderer.chat_template_kwargs == {}  # Qwen3-Instruct-2507's: what is no longer the hybrid's is refused


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"tokenizer_config__json": {"chat_template": named(default=INSTRUCT, tool_use=OTHER)}}, "Other tools"),
        ({"tokenizer_config__json": {"chat_template": named(tool_use=HYBRID)}}, "'a question'.* no default"),
        ({"tokenizer_config__json": {"chat_template": named(default=HYBRID, tool_use=INSTRUCT)}}, "thinking"),
        ({"chat_template__jinja": INSTRUCT, "additional_chat_templates/tool_use__jinja": OTHER}, "Other tools"),
        ({"tokenizer_config__json": {"chat_template": 5}}, "'a question'"),
        ({"tokenizer_config__json": {"chat_template": [1]}}, "tokenizer_config.json is damaged"),
        ({"chat_template__json": {"chat_template": 5}}, "chat_template.json: chat_template is 5, which is no text"),
        ({"chat_template__json": {}}, "chat_template.json is damaged"),
        ({"chat_template__json": "[]"}, "chat_template.json is damaged"),
        ({"chat_template__json": "{"}, "chat_template.json is damaged"),
        ({"chat_template__json": "[" * 9999}, "chat_template.json is damaged"),
        ({}, "no chat template"),
        ({"tokenizer_config__json": {"chat_template": None}}, "no chat template"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(
    tmp_path: Path, qwen3: Tokenizer, files: dict[str, Any], match: str
) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    with pytest.raises(UserError, match=match):
        load_renderer(write_model(tmp_path, qwen3, **files), None)


ENDS = {
    "a list": ({"generation_config__json": {"eos_token_id": [413, 411]}}, (413, 411)),
    "a number": ({"generation_config__json": {"eos_token_id": 411}}, (413, 411)),
    "its own end": ({"generation_config__json": {"eos_token_id": 413}}, (413,)),
    "null": ({"generation_config__json": {"eos_token_id": None}}, (413,)),
    "nothing": ({"generation_config__json": {}}, (413,)),
    "no file": ({}, (413,)),
    "the configuration": ({"config__json": {"model_type": "qwen3", "eos_token_id": 411}}, (413, 411)),
    "all of them": (
        {
            "config__json": {"eos_token_id": [7]},
            "generation_config__json": {"eos_token_id": [413, 8]},
            "tokenizer_config__json": {"eos_token": "<|endoftext|>"},
        },
        (413, 7, 8, 411),
    ),
}


@pytest.mark.parametrize(("files", "expected"), ENDS.values(), ids=ENDS.keys())
def test_all_end_tokens_end_a_turn(
    tmp_path: Path, qwen3: Tokenizer, files: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert [qwen3.token_to_id(token) for token in ("<|endoftext|>", "<|im_end|>")] == [411, 413]
    directory = write_model(tmp_path, qwen3, chat_template__jinja=INSTRUCT, **files)
    assert load_renderer(directory, None).stop_token_ids == expected


@pytest.mark.parametrize("given", ["a", True, -1, 1.5, [1.0], [None], {"a": 1}, [[1]], "<|im_end|>"])
@pytest.mark.parametrize("name", ["generation_config", "config"])
def test_an_end_token_that_is_none_is_refused(tmp_path: Path, qwen3: Tokenizer, name: str, given: Any) -> None:
    files = {f"{name}__json": {"eos_token_id": given}}
    directory = write_model(tmp_path, qwen3, chat_template__jinja=INSTRUCT, **files)
    with pytest.raises(UserError, match=rf"{name}\.json: eos_token_id is .*: write the id of a token, or a list"):
        load_renderer(directory, None)


DEEP = '{"a":' * 5000 + "1" + "}" * 5000
DAMAGED = ["", "{", "[1]", "null", "[" * 9999, DEEP, '{"a": 1', "\ud800".encode(errors="surrogatepass"), b"\xff\xfe"]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, qwen3: Tokenizer, name: str, content: str | bytes) -> None:
    directory = write_model(tmp_path, qwen3, chat_template__jinja=INSTRUCT)
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refused:
        load_renderer(directory, None)
    message = str(refused.value)
    assert message.startswith(f"{directory / name} is damaged (") and "\n" not in message
    assert message.endswith("put the model's own file there again")


def test_a_tokenizer_nested_a_thousand_deep_is_named(tmp_path: Path, qwen3: Tokenizer) -> None:
    directory = write_model(tmp_path, qwen3, chat_template__jinja=INSTRUCT)
    data = json.loads(qwen3.to_str())
    text = json.dumps({**data, "normalizer": "HERE"}).replace('"HERE"', '{"type":"Sequence","normalizers":[' * 1000)
    (directory / "tokenizer.json").write_text(text + "]}" * 1000 + "}")
    with pytest.raises(UserError, match="tokenizer.json is damaged"):
        load_renderer(directory, None)


def test_a_copy_of_the_files_has_the_same_renderer(tmp_path: Path, qwen3: Tokenizer) -> None:
    files = {
        "generation_config__json": {"eos_token_id": [411, 413]},
        "tokenizer_config__json": {"chat_template": HYBRID},
    }
    model, copy = write_model(tmp_path / "model", qwen3, **files), tmp_path / "copy"
    copy.mkdir()
    for file in chat_files(model):
        (copy / file.name).write_bytes(file.read_bytes())
    ours, theirs = load_renderer(copy, None), load_renderer(model, None)
    assert ours.stop_token_ids == theirs.stop_token_ids == (413, 411)
    assert ours.chat_template_kwargs == theirs.chat_template_kwargs


def test_a_tokenizer_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tokenizer.json is missing: put the tokenizer that the model was trained with"):
        load_renderer(tmp_path, None)


def test_a_tokenizer_that_does_not_give_back_its_text_is_refused(tmp_path: Path, qwen3: Tokenizer) -> None:
    data = json.loads(qwen3.to_str())
    directory = write_model(tmp_path, qwen3, chat_template__jinja=INSTRUCT)
    (directory / "tokenizer.json").write_text(json.dumps({**data, "decoder": None}))
    with pytest.raises(UserError, match="does not decode"):
        load_renderer(directory, None)


def test_a_tokenizer_that_cuts_and_pads_writes_whole_prompts(tmp_path: Path, qwen3: Tokenizer) -> None:
    cutting = Tokenizer.from_str(qwen3.to_str())
    cutting.enable_truncation(8)
    cutting.enable_padding(length=16, pad_id=411, pad_token="<|endoftext|>")
    message = [Message(role="user", content="Please refund the whole order. " * 9)]
    assert Codec(cutting, ("<|im_end|>",)).encode(message[0].content or "")[8:]
    plain = load_renderer(write_model(tmp_path / "plain", qwen3, chat_template__jinja=INSTRUCT), None)
    saved = load_renderer(write_model(tmp_path / "saved", cutting, chat_template__jinja=INSTRUCT), None)
    assert saved.prompt(message, ()) == plain.prompt(message, ())


def test_other_tokens_of_the_same_text_are_shown_as_ids(tmp_path: Path, qwen3: Tokenizer) -> None:
    settings = {"pad_token": "a"}  # transformers makes it a special token
    directory = write_model(tmp_path, qwen3, chat_template__jinja=INSTRUCT, tokenizer_config__json=settings)
    with pytest.raises(UserError, match=r"the chat template writes \[\d+, .* and the renderer writes \[\d+, "):
        load_renderer(directory, None)


def test_the_tokenizer_is_that_of_its_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A model type does not choose how text is cut into pieces: the tiny agents are of type qwen3."""
    directory = write_model(tmp_path, tokenizer, config__json={"model_type": "qwen3", "eos_token_id": None})
    read = read_tokenizer(directory)
    parts = [json.loads(found.to_str()) for found in (read.backend_tokenizer, tokenizer)]
    for part in parts:
        del part["post_processor"]  # what it adds to a text is never asked for
    assert parts[0] == parts[1]
    assert end_token_ids(directory, read) == frozenset()


MUTATIONS = (None, 0, -1, 1e9, "", [], {}, "x", True, [[1]], {"type": "Foo"}, "<|im_end|>", 2**40)


def mutated(data: Any, rng: random.Random) -> str:
    """``data`` as JSON, a value of it put in place of another or left out, and sometimes the text cut."""
    data = json.loads(json.dumps(data))
    at, value = data, data
    while isinstance(value, dict | list) and value and (at is data or rng.random() < 0.7):
        at = value
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        value = at[key]
    if rng.random() < 0.3:
        del at[key]
    else:
        at[key] = rng.choice(MUTATIONS)
    text = json.dumps(data)
    return text[: rng.randrange(len(text))] if rng.random() < 0.1 else text


FILES = {
    "tokenizer.json": None,
    "tokenizer_config.json": {
        "chat_template": named(default=INSTRUCT, tool_use=INSTRUCT),
        "added_tokens_decoder": {"411": {"content": "<|endoftext|>", "lstrip": False, "special": True}},
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>"],
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    },
    "generation_config.json": {"eos_token_id": [411, 413], "temperature": 0.7, "transformers_version": "4.51.0"},
    "config.json": {"model_type": "qwen3", "eos_token_id": 413, "architectures": ["Qwen3ForCausalLM"]},
}


def load_mutated(directory: Path, qwen3: Tokenizer, seed: int) -> bool:
    """Load a model with one mutated file; True if it was refused."""
    rng = random.Random(seed)
    files = {**FILES, "tokenizer.json": json.loads(qwen3.to_str())}
    chosen = rng.choice(list(files))
    for name, data in files.items():
        (directory / name).write_text(mutated(data, rng) if name == chosen else json.dumps(data))
    try:
        renderer = load_renderer(directory, None)
    except UserError as error:
        assert str(directory) in str(error) and "\n" not in str(error), f"seed {seed}: {error}"
        return True
    renderer.parse(renderer.prompt([Message(role="user", content="hi")], ()))
    return False


def test_mutated_files_give_a_renderer_or_a_clear_line(tmp_path: Path, qwen3: Tokenizer) -> None:
    refused = sum(load_mutated(tmp_path, qwen3, seed) for seed in range(24))
    assert 4 < refused < 20


@pytest.mark.slow
def test_many_mutated_files_give_a_renderer_or_a_clear_line(tmp_path: Path, qwen3: Tokenizer) -> None:
    refused = sum(load_mutated(tmp_path, qwen3, seed) for seed in range(24, 2000))
    assert 400 < refused < 1600
