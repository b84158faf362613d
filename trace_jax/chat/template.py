"""A model's own chat template, and the first place where a renderer writes other tokens than it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trace_jax.chat.codec import RenderError
from trace_jax.chat.probes import Probe
from trace_jax.chat.renderer import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BEFORE, _BEHIND = 8, 12  # tokens shown around a difference


class ChatTemplate:
    """The chat template of a model, rendered by ``transformers`` in its sandbox.

    Args:
        tokenizer: it has a chat template, or several with names.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast") -> None:
        self._tokenizer, self._backend = tokenizer, tokenizer.backend_tokenizer
        self._backend.no_truncation()  # a saved tokenizer may cut long texts, or fill up short ones
        self._backend.no_padding()

    def text(self, probe: Probe, arguments: Mapping[str, Any]) -> str:
        """The prompt of ``probe``, up to and including the header of the assistant's next turn.

        Raises RenderError, in one line, for whatever error the template makes.
        """
        try:
            written = self._tokenizer.apply_chat_template(
                probe.openai_messages(),
                tools=probe.openai_tools(),
                add_generation_prompt=True,
                tokenize=False,
                **arguments,
            )
        except Exception as error:  # a template is a program: any error may come out of it
            why = " ".join(str(error).split())[:200]
            raise RenderError(
                f"the chat template fails on the probe {probe.name!r} ({type(error).__name__}: {why})"
            ) from None
        return str(written)

    def tokens(self, probe: Probe, arguments: Mapping[str, Any]) -> list[int]:
        """The same in tokens, as a server that is sent messages makes them."""
        text = self.text(probe, arguments)
        try:
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        except Exception as error:  # the library raises nothing narrower
            raise RenderError(
                f"the probe {probe.name!r} as the chat template writes it has no tokens: {error}"
            ) from None

    def difference(self, renderer: Renderer, probes: Iterable[Probe], *, default_arguments: bool) -> tuple[int, str]:
        """How many of ``probes`` are the same in both, and what differs in the next one; "" if all are the same.

        Args:
            renderer: its ``chat_template_kwargs`` are given to the template.
            default_arguments: whether the template has to write the same without any arguments too.
        """
        variants: list[Mapping[str, Any]] = [renderer.chat_template_kwargs]
        if default_arguments and renderer.chat_template_kwargs:
            variants.append({})
        same = 0
        for probe in probes:
            ours = list(renderer.prompt(probe.renderer_messages(renderer), probe.tools))
            for arguments in variants:
                try:
                    theirs = self.tokens(probe, arguments)
                except RenderError as error:
                    return same, str(error)
                if theirs != ours:
                    return same, self._described(probe, arguments, theirs, ours)
            same += 1
        return same, ""

    def _described(self, probe: Probe, arguments: Mapping[str, Any], theirs: Sequence[int], ours: Sequence[int]) -> str:
        at = next(
            (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours))
        )
        before = self._shown(theirs[max(0, at - _BEFORE) : at])
        their_text, our_text = self._shown(theirs[at : at + _BEHIND]), self._shown(ours[at : at + _BEHIND])
        if their_text == our_text:  # the same text in other tokens
            their_text, our_text = str(theirs[at : at + _BEHIND]), str(ours[at : at + _BEHIND])
        return (
            f"in the probe {probe.name!r}{_with(arguments)}, behind {at} equal tokens that end with {before}, "
            f"the chat template writes {their_text} and the renderer writes {our_text}"
        )

    def _shown(self, ids: Sequence[int]) -> str:
        return repr(self._backend.decode(list(ids), skip_special_tokens=False)) if ids else "nothing more"


def _with(arguments: Mapping[str, Any]) -> str:
    """The arguments of a template in words."""
    return "".join(f" with {name} {value}" for name, value in arguments.items())
