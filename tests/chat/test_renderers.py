"""A model's renderer is told from its files, and a family that none of them writes is refused."""

import json
from pathlib import Path

import chatml_tokenizer
import pytest
import qwen3_tokenizer
from tokenizers import Tokenizer, models

from trace_jax.chat.chatml import ChatMLRenderer
from trace_jax.chat.codec import RenderError
from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.chat.renderer import TinyRenderer
from trace_jax.chat.renderers import chat_template, renderer_for
from trace_jax.contract.trajectory import Message

TEMPLATES = Path(__file__).parent / "templates"
HYBRID = (TEMPLATES / "qwen3.jinja").read_text()
INSTRUCT = (TEMPLATES / "qwen3_instruct_2507.jinja").read_text()


@pytest.fixture(scope="module")
def qwen3() -> Tokenizer:
    return qwen3_tokenizer.small_tokenizer()


def test_families_are_told_apart(tokenizer: Tokenizer, qwen3: Tokenizer) -> None:
    assert isinstance(renderer_for(chatml_tokenizer.small_tokenizer()), ChatMLRenderer)
    assert isinstance(renderer_for(tokenizer), TinyRenderer)
    assert isinstance(renderer_for(qwen3, HYBRID), Qwen3Renderer)


def test_models_that_do_not_think_have_no_thinking(tokenizer: Tokenizer) -> None:
    message = Message(role="assistant", content="<think>\nso\n</think>\n\nYes.")
    for renderer in (renderer_for(tokenizer), renderer_for(chatml_tokenizer.small_tokenizer())):
        assert renderer.thinking(message) == ""
        assert renderer.spoken(message) == renderer.with_thinking(message, "never shown") == message
        assert renderer.without_thinking() is renderer


def test_a_hybrid_s_template_has_to_be_told(qwen3: Tokenizer, tokenizer: Tokenizer) -> None:
    found = [renderer_for(qwen3, HYBRID, thinking).chat_template_kwargs for thinking in (None, True, False)]
    assert found == [{"enable_thinking": True}, {"enable_thinking": True}, {"enable_thinking": False}]
    for renderer in (
        renderer_for(qwen3, INSTRUCT),
        renderer_for(tokenizer),
        renderer_for(chatml_tokenizer.small_tokenizer()),
    ):
        assert renderer.chat_template_kwargs == {}


def test_thinking_is_a_hybrid_s_choice(qwen3: Tokenizer, tokenizer: Tokenizer) -> None:
    asked = [Message(role="user", content="hi")]

    def ends(template: str, thinking: bool | None) -> str:
        ids = renderer_for(qwen3, template, thinking).prompt(asked, ())
        return str(qwen3.decode(list(ids), skip_special_tokens=False)).partition("assistant\n")[2]

    assert ends(HYBRID, None) == ends(HYBRID, True) == ends(INSTRUCT, None) == ""
    assert ends(HYBRID, False) == "<think>\n\n</think>\n\n"
    for other, template in ((qwen3, INSTRUCT), (tokenizer, None)):
        with pytest.raises(RenderError, match="thinking is False, and this model leaves no choice"):
            renderer_for(other, template, False)


@pytest.mark.parametrize(
    "template",
    [
        HYBRID.replace("<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n' }}"),  # Thinking-2507
        INSTRUCT.replace("{%- for message", "{{- 'You are Qwen, created by Alibaba Cloud.' }}{%- for message"),
        INSTRUCT.replace('{"name": "', "<function="),
        "{{ messages }}",
    ],
)
def test_other_qwens_are_refused(qwen3: Tokenizer, template: str) -> None:
    assert template not in (HYBRID, INSTRUCT)
    with pytest.raises(RenderError, match="neither that of Qwen3's hybrid models nor of Instruct-2507"):
        renderer_for(qwen3, template)


def test_what_cannot_be_told_is_refused(qwen3: Tokenizer) -> None:
    with pytest.raises(RenderError, match="chat template is missing"):
        renderer_for(qwen3)
    with pytest.raises(RenderError, match="lacks the special tokens"):
        renderer_for(Tokenizer(models.BPE()))


def test_the_template_is_found_where_models_keep_it(tmp_path: Path) -> None:
    assert chat_template(tmp_path) is None
    for settings in ("{", "[]", "{}", '{"chat_template": [{"name": "default"}]}'):
        (tmp_path / "tokenizer_config.json").write_text(settings)
        assert chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "älter"}), "utf-8")
    assert chat_template(tmp_path) == "älter"
    (tmp_path / "chat_template.jinja").write_text("neuer", "utf-8")
    assert chat_template(tmp_path) == "neuer"
