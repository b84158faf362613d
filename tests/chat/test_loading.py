"""A model's renderer is the one that writes what its own chat template writes; any other template is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import chatml_tokenizer
import pytest
import qwen3_tokenizer
from model_files import HYBRID, INSTRUCT, SMOLLM2, changed, write_model
from tokenizers import Tokenizer, models

from trace_jax.chat.chatml import ChatMLRenderer
from trace_jax.chat.loading import load_renderer
from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.chat.renderer import Renderer
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError

ROOT = Path(__file__).parents[2]
TINY_AGENT = ROOT / "assets" / "tiny_agent"
HI = [Message(role="user", content="hi")]
HEADER = "{{- '<|im_start|>assistant\\n' }}"
EMPTY_BLOCK = "{{- '<think>\\n\\n</think>\\n\\n' }}"
SWITCH = "enable_thinking is defined and enable_thinking is false"


@pytest.fixture(scope="module")
def qwen3() -> Tokenizer:
    return qwen3_tokenizer.small_tokenizer()


@pytest.fixture(scope="module")
def chatml() -> Tokenizer:
    return chatml_tokenizer.small_tokenizer()


def prompt_of(tokenizer: Tokenizer, directory: Path, thinking: bool | None = None) -> str:
    """What the renderer writes for a greeting."""
    return greeting_of(tokenizer, load_renderer(directory, thinking))


def greeting_of(tokenizer: Tokenizer, renderer: Renderer) -> str:
    return str(tokenizer.decode(list(renderer.prompt(HI, ())), skip_special_tokens=False))


def test_families_are_told_apart(tmp_path: Path, tokenizer: Tokenizer, qwen3: Tokenizer, chatml: Tokenizer) -> None:
    def loaded(name: str, tokenizer: Tokenizer, **files: Any) -> object:
        return load_renderer(write_model(tmp_path / name, tokenizer, **files), None)

    assert isinstance(loaded("tiny", tokenizer), TinyRenderer)
    assert isinstance(loaded("chatml", chatml), ChatMLRenderer)
    assert isinstance(loaded("smollm2", chatml, chat_template__jinja=SMOLLM2), ChatMLRenderer)
    assert isinstance(loaded("hybrid", qwen3, chat_template__jinja=HYBRID), Qwen3Renderer)
    assert isinstance(loaded("instruct", qwen3, chat_template__jinja=INSTRUCT), Qwen3Renderer)


def test_the_demo_agent_has_no_template_and_loads() -> None:
    renderer = load_renderer(TINY_AGENT, None)
    assert isinstance(renderer, TinyRenderer)
    (end,) = renderer.stop_token_ids
    assert renderer.parse([*renderer.assistant(Message(role="assistant", content="Done."))]).content == "Done."
    assert end == renderer.assistant(Message(role="assistant"))[0]


def test_models_that_do_not_think_have_no_thinking(tmp_path: Path, tokenizer: Tokenizer, chatml: Tokenizer) -> None:
    message = Message(role="assistant", content="<think>\nso\n</think>\n\nYes.")
    for name, found in (("tiny", tokenizer), ("chatml", chatml)):
        renderer = load_renderer(write_model(tmp_path / name, found), None)
        assert renderer.thinking(message) == ""
        assert renderer.spoken(message) == renderer.with_thinking(message, "never shown") == message
        assert renderer.without_thinking() is renderer
        assert renderer.chat_template_kwargs == {}


def test_thinking_is_a_hybrid_s_choice(tmp_path: Path, qwen3: Tokenizer, tokenizer: Tokenizer) -> None:
    hybrid = write_model(tmp_path / "hybrid", qwen3, chat_template__jinja=HYBRID)
    found = {thinking: load_renderer(hybrid, thinking) for thinking in (None, True, False)}
    assert {thinking: renderer.chat_template_kwargs for thinking, renderer in found.items()} == {
        None: {"enable_thinking": True},
        True: {"enable_thinking": True},
        False: {"enable_thinking": False},
    }
    written = {thinking: greeting_of(qwen3, renderer) for thinking, renderer in found.items()}
    assert written[None] == written[True]
    assert written[False] == written[None] + "<think>\n\n</think>\n\n"
    instruct = write_model(tmp_path / "instruct", qwen3, chat_template__jinja=INSTRUCT)
    assert load_renderer(instruct, None).chat_template_kwargs == {}
    for directory in (instruct, write_model(tmp_path / "tiny", tokenizer)):
        with pytest.raises(UserError, match="thinking is False, and this model leaves no choice"):
            load_renderer(directory, False)


def test_thinking_that_is_off_by_default_is_off_unless_it_is_chosen(tmp_path: Path, qwen3: Tokenizer) -> None:
    template = changed(HYBRID, SWITCH, "not enable_thinking | default(false)")
    directory = write_model(tmp_path, qwen3, chat_template__jinja=template)
    renderer = load_renderer(directory, None)
    assert greeting_of(qwen3, renderer) == prompt_of(qwen3, directory, False)
    assert greeting_of(qwen3, renderer).endswith("<think>\n\n</think>\n\n")
    assert prompt_of(qwen3, directory, True).endswith("assistant\n")
    assert renderer.chat_template_kwargs == {"enable_thinking": False}


def test_a_template_that_never_thinks_has_its_empty_block_in_every_prompt(tmp_path: Path, qwen3: Tokenizer) -> None:
    directory = write_model(tmp_path, qwen3, chat_template__jinja=changed(HYBRID, SWITCH, "true"))
    assert prompt_of(qwen3, directory).endswith("assistant\n<think>\n\n</think>\n\n")
    with pytest.raises(UserError, match="thinking is True, and this model leaves no choice"):
        load_renderer(directory, True)


def test_a_default_system_message_of_chatml_is_rendered(tmp_path: Path, chatml: Tokenizer) -> None:
    directory = write_model(tmp_path, chatml, tokenizer_config__json={"chat_template": SMOLLM2})
    greeting = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n"
    assert prompt_of(chatml, directory) == system + greeting
    own = [Message(role="system", content="Be kind."), *HI]
    shown = chatml.decode(list(load_renderer(directory, None).prompt(own, ())), skip_special_tokens=False)
    assert shown == "<|im_start|>system\nBe kind.<|im_end|>\n" + greeting


KEPT = "loop.index0 > ns.last_query_index"
ALL_MESSAGES = "{%- for message in messages %}"
YOU_ARE_QWEN = "{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}"
SYSTEM_TURN = "{%- if messages[0].role == 'system' %}\n        {{- '<|im_start|>system\\n'"
OTHER_QWENS = {
    "always thinks": (changed(HYBRID, HEADER, HEADER.replace("\\n' }}", "\\n<think>\\n' }}")), "<think>"),
    "never thinks": (changed(INSTRUCT, HEADER, HEADER + EMPTY_BLOCK), r"writes '<think>\\n\\n</think>"),
    "keeps thinking": (changed(HYBRID, KEPT, "true"), "writes '<think>"),
    "never shows thinking": (changed(HYBRID, KEPT, "false"), "'thinking in the content'"),
    "default system": (changed(INSTRUCT, ALL_MESSAGES, YOU_ARE_QWEN + ALL_MESSAGES), "You are Qwen"),
    "default system where there is none": (
        changed(
            HYBRID,
            SYSTEM_TURN,
            SYSTEM_TURN.replace("{%-", "{%- if messages[0].role != 'system' %}" + YOU_ARE_QWEN + "{%- endif %}{%-", 1),
        ),
        "You are Qwen",
    ),
    "other calls": (changed(INSTRUCT, '{"name": "', "<function="), "<function="),
    "other results": (changed(HYBRID, "\\n</tool_response>", "</tool_response>"), "'a call and its result'"),
    "other words about tools": (changed(HYBRID, "You may call", "Call"), "'a tool'.* writes 'Call"),
    "sorted schemas": (changed(INSTRUCT, "tool | tojson", "tool | tojson(sort_keys=true)"), "'a tool'"),
    "compact arguments": (
        changed(HYBRID, "arguments | tojson", "arguments | tojson(separators=(',', ':'))"),
        "'a call and its result'",
    ),
    "trims": (changed(INSTRUCT, "content = message.content", "content = message.content | trim"), "'odd texts'"),
    "trims the system message beside tools": (
        changed(HYBRID, "messages[0].content + '\\n\\n'", "messages[0].content | trim + '\\n\\n'"),
        "'a long system message",
    ),
    "leaves tools out": (changed(INSTRUCT, "in tools", "in tools[:3]"), "'a long system message, four tools"),
    "a space in the words about tools": (changed(HYBRID, "within <tools>", "within  <tools>"), "'a tool'"),
    "trims thinking": (
        changed(HYBRID, "reasoning_content.strip('\\n')", "reasoning_content.strip()"),
        "'odd white space in thinking",
    ),
    "trims what follows thinking": (
        changed(HYBRID, "content.split('</think>')[-1].lstrip('\\n')", "content.split('</think>')[-1].strip('\\n')"),
        "'odd white space in thinking",
    ),
    "takes half a result for one": (
        changed(HYBRID, ".startswith('<tool_response>') and", ".startswith('<tool_response>') or"),
        "half a result",
    ),
    "needs a user first": (
        changed(HYBRID, "last_query_index=messages|length - 1", "last_query_index=-1"),
        "'the assistant begins'",
    ),
    "leaves calls out": (changed(HYBRID, "in message.tool_calls", "in message.tool_calls[:1]"), "'several calls in a"),
    "today's date": (changed(INSTRUCT, ALL_MESSAGES, "{{- strftime_now('%Y') }}" + ALL_MESSAGES), "writes '20"),
    "off is something else": (
        changed(HYBRID, EMPTY_BLOCK, "{{- '/no_think' }}"),
        "with enable_thinking False.*/no_think",
    ),
    "no header": (changed(HYBRID, HEADER, ""), "writes nothing more"),
    "messages as they are": ("{{ messages }}", "'a question'"),
    "raises": (
        "{{ raise_exception('only for\n adults') }}",
        r"fails on the probe 'a question' \(TemplateError: only for adults\)",
    ),
    "no template": ("{% for", "TemplateSyntaxError"),
    "adds a number": ("{{ messages[0].content + 1 }}", "TypeError"),
    "recurses": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "fails on the probe"),
    "writes nothing": ("", "nothing more"),
}


@pytest.mark.parametrize(("template", "match"), OTHER_QWENS.values(), ids=OTHER_QWENS.keys())
def test_another_template_is_refused_with_the_first_difference(
    tmp_path: Path, qwen3: Tokenizer, template: str, match: str
) -> None:
    directory = write_model(tmp_path, qwen3, chat_template__jinja=template)
    with pytest.raises(UserError, match=match) as refused:
        load_renderer(directory, None)
    message = str(refused.value)
    assert message.startswith(f"{directory}: ") and "probe" in message and "\n" not in message
    assert message.endswith("or a model with the template of Qwen3, Qwen3-Instruct-2507 or plain ChatML")


@pytest.mark.parametrize("thinking", [True, False])
def test_a_choice_of_thinking_takes_no_other_template_either(tmp_path: Path, qwen3: Tokenizer, thinking: bool) -> None:
    directory = write_model(tmp_path, qwen3, chat_template__jinja=changed(HYBRID, KEPT, "true"))
    with pytest.raises(UserError, match="thinking"):
        load_renderer(directory, thinking)


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (changed(SMOLLM2, "message['content']", "message['content'] | trim"), "odd texts"),
        (changed(SMOLLM2, "messages[0]['role'] != 'system'", "true"), "several turns"),
        (changed(SMOLLM2, "{% for", "{% if tools %}{{ tools }}{% endif %}{% for"), "a form of its own for tools"),
        (changed(SMOLLM2, "{% for", "{{ bos_token }}{% for"), "a question"),
        (changed(SMOLLM2, "+ message['content']", "+ (message.reasoning_content or '') + message['content']"), "apart"),
    ],
)  # fmt: skip
def test_another_chatml_is_refused(tmp_path: Path, chatml: Tokenizer, template: str, match: str) -> None:
    settings = {"bos_token": "<|endoftext|>"}
    directory = write_model(tmp_path, chatml, chat_template__jinja=template, tokenizer_config__json=settings)
    with pytest.raises(UserError, match=match):
        load_renderer(directory, None)


def test_the_difference_shows_both_sides(tmp_path: Path, qwen3: Tokenizer) -> None:
    directory = write_model(tmp_path, qwen3, chat_template__jinja=changed(INSTRUCT, HEADER, HEADER + EMPTY_BLOCK))
    with pytest.raises(UserError) as refused:
        load_renderer(directory, None)
    message = str(refused.value)
    header, block = r"<|im_start|>assistant\n', ", r"'<think>\n\n</think>\n\nIt is on its w': use the files"
    assert "in the probe 'several turns' with enable_thinking False, behind 33 equal tokens that end with" in message
    assert (
        f"{header}the chat template writes 'It is on its way.<|im_end|>\\n' and the renderer writes {block}" in message
    )


def test_a_model_of_no_known_family_is_refused(tmp_path: Path, qwen3: Tokenizer) -> None:
    with pytest.raises(UserError, match="the model has no chat template: put its chat_template.jinja"):
        load_renderer(write_model(tmp_path / "qwen3", qwen3), None)
    with pytest.raises(UserError, match="lacks the special tokens"):
        load_renderer(write_model(tmp_path / "empty", Tokenizer(models.BPE())), None)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from pathlib import Path
import trace_jax.chat
assert "transformers" not in sys.modules  # it is imported where it is needed
from trace_jax.chat import load_renderer
load_renderer(Path(sys.argv[1]), None)
load_renderer(Path(sys.argv[2]), False)
import transformers
assert not transformers.utils.is_torch_available()
"""


def test_neither_torch_nor_a_word_of_advice_is_needed(tmp_path: Path, qwen3: Tokenizer) -> None:
    model = write_model(
        tmp_path, qwen3, chat_template__jinja=HYBRID, generation_config__json={"eos_token_id": [1], "temperature": -1}
    )
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(TINY_AGENT), str(model)], cwd=ROOT, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
