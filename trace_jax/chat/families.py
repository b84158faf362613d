"""Which renderer writes a model's conversations: the one whose tokens are those of the model's own chat template."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from tokenizers import Tokenizer

from trace_jax.chat.chatml import END, START, ChatMLRenderer
from trace_jax.chat.codec import RenderError
from trace_jax.chat.probes import Probe, all_probes, tool_free_probes
from trace_jax.chat.qwen3 import Form, Qwen3Renderer
from trace_jax.chat.qwen3_calls import CALL
from trace_jax.chat.renderer import Renderer
from trace_jax.chat.template import ChatTemplate
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.contract.trajectory import Message, Tool

_FORMS: tuple[Form, ...] = ("thinking", "no_thinking", "instruct")
_SYSTEM_TURN = re.compile(rf"{re.escape(START)}system\n(.*?){re.escape(END)}\n", re.DOTALL)
_QUESTION = Probe("a question", (Message(role="user", content="hi"),))
_TOOL = Tool(name="refund", description="Refund an order.", parameters={"type": "object", "properties": {}})
_REMEDY = (
    "use the files that came with the model, or a model with the template of Qwen3, Qwen3-Instruct-2507 or plain ChatML"
)


def find_renderer(
    tokenizer: Tokenizer, template: ChatTemplate | None, end_token_ids: Collection[int], thinking: bool | None
) -> Renderer:
    """The renderer that writes what the model's chat template writes, token for token, on all probes.

    A tokenizer with Qwen's tag of a call gets a ``Qwen3Renderer``, one with the tokens of ChatML a ``ChatMLRenderer``,
    any other a ``TinyRenderer``. The last two have a form of calls of their own and are compared on probes without
    tools; without a template there is nothing to compare.

    Args:
        template: the model's own; None if it has none.
        end_token_ids: all tokens with which the model ends a text.
        thinking: whether a hybrid model thinks. None stands for the default of its template.

    Raises:
        RenderError: no renderer writes what the template writes, a Qwen model has no template, or ``thinking`` is a
            choice that the model does not leave.
    """
    has_calls = tokenizer.token_to_id(CALL) is not None
    if has_calls and template is None:
        raise RenderError("the model has no chat template: put its chat_template.jinja or tokenizer_config.json there")
    if thinking is not None and not (has_calls and template is not None and _leaves_a_choice(template)):
        raise RenderError(f"thinking is {thinking}, and this model leaves no choice: leave it None")
    if has_calls and template is not None:
        return _qwen3(tokenizer, template, end_token_ids, thinking)
    renderer: Renderer
    if None in (tokenizer.token_to_id(START), tokenizer.token_to_id(END)):
        renderer = TinyRenderer(tokenizer, end_token_ids)
    else:
        renderer = ChatMLRenderer(tokenizer, end_token_ids, None if template is None else _default_system(template))
    if template is not None:
        _require_no_tools(template)
        _, difference = template.difference(renderer, tool_free_probes(), default_arguments=True)
        _refuse(difference)
    return renderer


def _qwen3(
    tokenizer: Tokenizer, template: ChatTemplate, end_token_ids: Collection[int], thinking: bool | None
) -> Renderer:
    first = Qwen3Renderer(tokenizer, "thinking", end_token_ids)
    forms: Sequence[Form] = _FORMS if thinking is None else ("thinking",) if thinking else ("no_thinking",)
    probes, nearest = all_probes(), (-1, "")
    for form in forms:
        renderer = first.with_form(form)
        same, difference = template.difference(renderer, probes, default_arguments=thinking is None)
        silent = renderer.without_thinking()
        if not difference and silent is not renderer:
            difference = template.difference(silent, probes, default_arguments=False)[1]
        if not difference:
            return renderer
        nearest = max(nearest, (same, difference), key=lambda found: found[0])
    _refuse(nearest[1])
    raise AssertionError("a form without a difference was returned")


def _refuse(difference: str) -> None:
    if difference:
        raise RenderError(f"{difference}: {_REMEDY}")


def _leaves_a_choice(template: ChatTemplate) -> bool:
    """True if the template writes another prompt for a model that is not to think."""
    on, off = (template.text(_QUESTION, {"enable_thinking": thinking}) for thinking in (True, False))
    return on != off


def _default_system(template: ChatTemplate) -> str | None:
    """The system message that the template puts in front of a conversation without one, if any."""
    found = _SYSTEM_TURN.match(template.text(_QUESTION, {}))
    return None if found is None else found[1]


def _require_no_tools(template: ChatTemplate) -> None:
    with_tool = template.text(replace(_QUESTION, tools=(_TOOL,)), {})
    if with_tool != template.text(_QUESTION, {}):
        raise RenderError(f"the chat template has a form of its own for tools, which no renderer writes: {_REMEDY}")
