"""The renderer of a model, told from its tokenizer and, where that leaves a choice, its chat template."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from trace_jax.chat.chatml import END, START, ChatMLRenderer
from trace_jax.chat.codec import RenderError
from trace_jax.chat.qwen3 import CALL, THINK, Form, Qwen3Renderer
from trace_jax.chat.renderer import Renderer, TinyRenderer

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
_CALLS_AS_JSON = """'<tool_call>\\n{"name": "'"""  # in the templates of Qwen2.5 and Qwen3; Qwen3-Coder's has XML
_OTHERS = ("You are Qwen", "<think>\\n' }}")  # Qwen2.5 with its default system turn; Thinking-2507, which always thinks


def renderer_for(tokenizer: Tokenizer, template: str | None = None, thinking: bool | None = None) -> Renderer:
    """``Qwen3Renderer`` where there are Qwen's tags, ``ChatMLRenderer`` where there are ChatML's tokens, else
    ``TinyRenderer``.

    Args:
        template: the model's chat template (see ``chat_template``), by which hybrid and Instruct-2507 models differ.
        thinking: whether a hybrid model thinks; None is its template's default, that it does.

    Raises:
        RenderError: a model of no known family, of one that has a form of calls that none of them writes, or without
            the choice that ``thinking`` makes.
    """
    form = None if tokenizer.token_to_id(CALL) is None else _qwen3_form(tokenizer, template)
    if form == "thinking":
        return Qwen3Renderer(tokenizer, "no_thinking" if thinking is False else form)
    if thinking is not None:
        raise RenderError(f"thinking is {thinking}, and this model leaves no choice: leave it None")
    if form is not None:
        return Qwen3Renderer(tokenizer, form)
    if None not in (tokenizer.token_to_id(START), tokenizer.token_to_id(END)):
        return ChatMLRenderer(tokenizer)
    return TinyRenderer(tokenizer)


def chat_template(directory: Path) -> str | None:
    """The chat template in a Hugging Face directory, from its own file or the tokenizer's configuration, if any."""
    own, settings = directory / TEMPLATE, directory / TOKENIZER_CONFIG
    if own.is_file():
        return own.read_text("utf-8")
    if not settings.is_file():
        return None
    try:
        found = json.loads(settings.read_text("utf-8"))["chat_template"]
    except (ValueError, LookupError, TypeError):  # no JSON, or none with a template
        return None
    return found if isinstance(found, str) else None


def _qwen3_form(tokenizer: Tokenizer, template: str | None) -> Form:
    if template is None:
        raise RenderError(f"the model's chat template is missing: put its {TEMPLATE} or {TOKENIZER_CONFIG} there")
    if tokenizer.token_to_id(THINK) is None or _CALLS_AS_JSON not in template or any(o in template for o in _OTHERS):
        raise RenderError(
            "its chat template is neither that of Qwen3's hybrid models nor of Instruct-2507: no renderer"
        )
    return "thinking" if "enable_thinking" in template else "instruct"
