"""From a model's directory to its renderer."""

from pathlib import Path

from trace_jax.chat.codec import RenderError
from trace_jax.chat.families import find_renderer
from trace_jax.chat.files import TOKENIZER, end_token_ids, read_tokenizer
from trace_jax.chat.renderer import Renderer
from trace_jax.chat.template import ChatTemplate
from trace_jax.errors import UserError

_SAMPLE = "Größe 漢字 🙂\n\n  {\"a\": [1, 2]}\t'x'"


def load_renderer(directory: Path, thinking: bool | None) -> Renderer:
    """The renderer of the model in ``directory``, compared with the model's own chat template.

    Its ``stop_token_ids`` are all end tokens of the model. ``thinking`` tells whether a hybrid model thinks; None
    stands for its template's default. Raises UserError for a file that is missing or damaged, and for a chat template
    that no renderer writes token for token: the first difference is shown.
    """
    tokenizer = read_tokenizer(directory)
    ends = end_token_ids(directory, tokenizer)
    template = None if tokenizer.chat_template is None else ChatTemplate(tokenizer)
    backend = tokenizer.backend_tokenizer
    try:
        renderer = find_renderer(backend, template, ends, thinking)
    except RenderError as error:
        raise UserError(f"{directory}: {error}") from None
    if backend.decode(backend.encode(_SAMPLE, add_special_tokens=False).ids) != _SAMPLE:
        raise UserError(
            f"{directory / TOKENIZER} does not decode {_SAMPLE!r} to what it encoded: use a byte-level tokenizer"
        )
    return renderer
