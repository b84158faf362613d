"""The renderer of a model, told from its tokenizer."""

from tokenizers import Tokenizer

from trace_jax.rollout.chat import Renderer, TinyRenderer
from trace_jax.rollout.chatml import END, START, ChatMLRenderer
from trace_jax.rollout.codec import RenderError


def renderer_for(tokenizer: Tokenizer) -> Renderer:
    """``ChatMLRenderer`` where there are ChatML's tokens, else ``TinyRenderer``.

    Raises RenderError for a tokenizer with a token for tool calls (Qwen's ``<tool_call>``), whose model has learnt a
    form of calls that neither of them writes, and for one of no known family.
    """
    if tokenizer.token_to_id("<tool_call>") is not None:
        raise RenderError("the tokenizer's own tool calls (<tool_call>) have no renderer yet: use another model")
    if None not in (tokenizer.token_to_id(START), tokenizer.token_to_id(END)):
        return ChatMLRenderer(tokenizer)
    return TinyRenderer(tokenizer)
