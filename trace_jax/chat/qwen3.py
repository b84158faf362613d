"""The Qwen3 form of conversations, token for token as the family's template writes them."""

import copy
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal

from tokenizers import Tokenizer

from trace_jax.chat.chatml import END, START
from trace_jax.chat.codec import Codec, RenderError, require_read_back
from trace_jax.chat.qwen3_calls import CALL, read_call, split_calls, tools_text, written_calls
from trace_jax.contract.trajectory import Message, Tool

Form = Literal["thinking", "no_thinking", "instruct"]

THINK, THOUGHT = "<think>", "</think>"
_THINKING = re.compile(
    r"<think>(.*?)(?:</think>\n*|\Z)", re.DOTALL
)  # thinking that was never closed ends with the turn
_RESULT, _RESULT_END = "<tool_response>\n", "\n</tool_response>"


class Qwen3Renderer:
    """Turns are ``<|im_start|>ROLE\\nTEXT<|im_end|>\\n``.

    The JSON Schemas of the tools stand in the system turn. Behind an assistant's text stand its calls, each as
    ``<tool_call>\\n{"name": "f", "arguments": {…}}\\n</tool_call>``. The results of a turn's calls are one user turn,
    each result in ``<tool_response>``.

    Thinking is part of a message's content, ``<think>\\nWHY\\n</think>\\n\\nANSWER``, exactly as it was sampled. The
    hybrid models' template shows only the thinking since the last user turn, and never an empty block. Where a new
    message makes it leave out something that stands in the context, ``continuation`` is None.

    Text cannot write ``<|im_start|>`` or ``<|im_end|>``: these are spelled out. The tags are ordinary vocabulary to the
    template's tokenizer, and so to this one, in any message.

    Args:
        tokenizer: byte-level BPE that holds ``<|im_start|>`` and ``<|im_end|>`` as special tokens.
        form: "thinking" and "no_thinking" (which begins every turn with an empty block) are those of the hybrid models.
            "instruct" is that of the Instruct-2507 models, whose template treats thinking as any other text.
        end_token_ids: more tokens with which the model ends a turn, such as ``<|endoftext|>``.
    """

    def __init__(self, tokenizer: Tokenizer, form: Form, end_token_ids: Collection[int] = ()) -> None:
        self._codec = Codec(tokenizer, (END, START), end_token_ids)
        self._start, self._end = self._codec.id[START], self._codec.id[END]
        self._newline = self._codec.encode("\n")
        self.stop_token_ids = self._codec.stop_token_ids
        self._set_form(form)

    def _set_form(self, form: Form) -> None:
        empty = f"{THINK}\n\n{THOUGHT}\n\n" if form == "no_thinking" else ""
        self._form: Form = form
        self._header = (self._start, *self._codec.encode(f"assistant\n{empty}"))
        self.tags: tuple[str, ...] = (CALL,) if form == "instruct" else (THINK, THOUGHT, CALL)
        hybrid = {"enable_thinking": form == "thinking"}
        self.chat_template_kwargs: Mapping[str, bool] = {} if form == "instruct" else hybrid

    def with_form(self, form: Form) -> "Qwen3Renderer":
        """The renderer of another ``form`` with the same tokenizer."""
        other = copy.copy(self)
        other._set_form(form)
        return other

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to and including the header of the assistant's next turn."""
        shown_from = _shown_from(messages)
        shown = [(message.role, self._shown(messages, i, shown_from)) for i, message in enumerate(messages)]
        system = [shown.pop(0)[1]] if shown and shown[0][0] == "system" else []
        if tools:
            system = ["\n\n".join([*system, tools_text(tools)])]
        return (*self._turns([*(("system", text) for text in system), *shown]), *self._header)

    def assistant(self, message: Message) -> tuple[int, ...]:
        """What a perfect sampler would emit for ``message``, stop token included.

        Raises RenderError for a message that would not be read back equal, such as one with a tag in its text.
        """
        if message.role != "assistant":
            raise RenderError(f"expected an assistant message, got role {message.role!r}")
        content = message.content or ""
        text = content + written_calls(message, follows_text=bool(self._answer(content)))
        ids = (*self._codec.encode(text), self._end)
        require_read_back(message, self.parse(ids))
        return ids

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        """What follows a sampled turn.

        None if the template leaves out thinking that stands before it, or if the turn ended with a stop token other
        than ``<|im_end|>``.
        """
        end = self._codec.closing(completion_ids, messages)
        if end is None or self._leaves_out(history, messages):
            return None
        turns = self._turns([(message.role, message.content or "") for message in messages])
        return (*end, *self._newline, *turns, *self._header)

    def parse(self, token_ids: Sequence[int]) -> Message:
        """Sampled tokens as an assistant message. It never fails. A call inside the thinking is no call."""
        text = self._codec.decode(self._codec.said(token_ids))
        begin = self._answer_begins(text)
        texts, bodies = split_calls(text, begin, ended=self._codec.ended(token_ids))
        said = text[:begin] + texts[0]
        if bodies and self._answer(said):
            said = said.removesuffix("\n")
        content = _lines([said, *(piece.strip("\n") for piece in texts[1:])])
        calls = tuple(read_call(number, body.strip()) for number, body in enumerate(bodies))
        return Message(role="assistant", content=content or None, tool_calls=calls)

    def spoken(self, message: Message) -> Message:
        """``message`` without its thinking, that is, without ``<think>…</think>``."""
        if self._form == "instruct":
            return message
        *before, last = _THINKING.split(message.content or "")[::2]
        said = _lines([*(piece.rstrip("\n") for piece in before), last])  # the form puts line ends around thinking
        return message.model_copy(update={"content": said or None})

    def thinking(self, message: Message) -> str:
        """The thinking that ``spoken`` leaves out of ``message``."""
        if self._form == "instruct":
            return ""
        return _lines(piece.strip("\n") for piece in _THINKING.findall(message.content or ""))

    def with_thinking(self, message: Message, thinking: str) -> Message:
        """``message`` as a thinking model says it; itself for Instruct-2507, whose template shows no thinking."""
        if self._form == "instruct":
            return message
        content = f"{THINK}\n{thinking}\n{THOUGHT}\n\n{message.content or ''}"
        return message.model_copy(update={"content": content})

    def without_thinking(self) -> "Qwen3Renderer":
        """The renderer of the same model with thinking off."""
        return self.with_form("no_thinking") if self._form == "thinking" else self

    def _turns(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """The tokens of turns given as (role, text). Both are encoded as one text, as the template's tokenizer does."""
        ids: list[int] = []
        for role, text in _grouped(turns):
            ids += [self._start, *self._codec.encode(f"{role}\n{text}"), self._end, *self._newline]
        return ids

    def _shown(self, messages: Sequence[Message], number: int, shown_from: int) -> str:
        """The text of the turn ``number`` as a prompt of ``messages`` shows it."""
        message = messages[number]
        content = message.content or ""
        if message.role != "assistant":
            return content
        if self._form != "instruct":
            thinking, content = _split(content)
            if _is_thinking_shown(messages, number, shown_from):
                text = f"{THINK}\n{thinking}\n{THOUGHT}\n\n" + content.lstrip("\n")
                return text + written_calls(message, follows_text=bool(content))
        return content + written_calls(message, follows_text=bool(content))

    def _leaves_out(self, history: Sequence[Message], messages: Sequence[Message]) -> bool:
        """True if a prompt with ``messages`` leaves out thinking that stands in the context or in the last turn."""
        if self._form == "instruct":
            return False
        if self._form == "no_thinking":
            return True  # the empty block of the header
        before, after, last = history[:-1], [*history, *messages], len(history) - 1
        before_from, after_from = _shown_from(before), _shown_from(after)
        return any(
            (THOUGHT in (history[i].content or "") if i == last else _is_thinking_shown(before, i, before_from))
            and not _is_thinking_shown(after, i, after_from)
            for i in range(len(history))
            if history[i].role == "assistant"
        )

    def _answer(self, content: str) -> str:
        return content if self._form == "instruct" else _split(content)[1]

    def _answer_begins(self, text: str) -> int:
        """Where calls may begin: behind the thinking, so at the end of the text if the thinking is never closed."""
        if self._form == "instruct" or THINK not in text.partition(CALL)[0]:
            return 0
        return text.index(THOUGHT) + len(THOUGHT) if THOUGHT in text else len(text)


def _lines(pieces: Iterable[str]) -> str:
    return "\n".join(filter(None, pieces))


def _split(content: str) -> tuple[str, str]:
    """Thinking and answer, as the template tells them apart."""
    if THOUGHT not in content:
        return "", content
    thinking, *_, answer = content.split(THOUGHT)
    return thinking.rstrip("\n").split(THINK)[-1].lstrip("\n"), answer.lstrip("\n")


def _shown_from(messages: Sequence[Message]) -> int:
    """The number of the message from which on a prompt of ``messages`` shows thinking: behind the last user turn."""
    return next((i + 1 for i in reversed(range(len(messages))) if _is_question(messages[i])), len(messages))


def _is_thinking_shown(messages: Sequence[Message], number: int, shown_from: int) -> bool:
    """True if a prompt of ``messages`` shows a block of thinking in the assistant's turn ``number``.

    A block is shown from ``shown_from`` on, unless the thinking is empty and more messages follow.
    """
    if number < shown_from:
        return False
    return number == len(messages) - 1 or bool(_split(messages[number].content or "")[0])


def _is_question(message: Message) -> bool:
    """True for a user turn. The template takes a user's text in ``<tool_response>`` tags for a tool result."""
    text = message.content
    results = text is not None and text.startswith("<tool_response>") and text.endswith("</tool_response>")
    return message.role == "user" and text is not None and not results


def _grouped(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Tool results in a row become one user turn."""
    grouped: list[tuple[str, str]] = []
    for is_result, run in groupby(turns, key=lambda turn: turn[0] == "tool"):
        if is_result:
            grouped.append(("user", "\n".join(f"{_RESULT}{text}{_RESULT_END}" for _, text in run)))
        else:
            grouped += run
    return grouped
