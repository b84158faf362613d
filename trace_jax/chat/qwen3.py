"""The Qwen3 form of conversations, token for token as the family's template writes them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from tokenizers import Tokenizer

from trace_jax.chat.chatml import END, START
from trace_jax.chat.codec import Codec, RenderError
from trace_jax.chat.renderer import read_arguments, text_of
from trace_jax.contract.trajectory import Message, Tool, ToolCall

Form = Literal["thinking", "no_thinking", "instruct"]

THINK, THOUGHT, CALL = "<think>", "</think>", "<tool_call>"
_THINKING = re.compile(r"<think>(.*?)(?:</think>\n*|\Z)", re.DOTALL)  # one that was never closed ends with the turn
_CALLS = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)  # one that was cut ends with the turn
_CALL_BODY = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(.*)\}', re.DOTALL)
_RESULT, _RESULT_END = "<tool_response>\n", "\n</tool_response>"
_TOOLS, _TOOLS_END = (
    """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
""",
    """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>""",
)


class Qwen3Renderer:
    """Turns are ``<|im_start|>ROLE\\nTEXT<|im_end|>\\n``; the tools' JSON Schemas stand in the system turn, calls are
    ``<tool_call>\\n{"name": "f", "arguments": {…}}\\n</tool_call>`` behind the assistant's text, and the results of one
    turn's calls are one user turn, each in ``<tool_response>``.

    Thinking is part of a message's content, ``<think>\\nWHY\\n</think>\\n\\nANSWER``, exactly as it was sampled. The
    hybrid models' template shows the model only the thinking since the last user turn, and never an empty block: where
    what follows makes it leave out something that stands in the context, ``continuation`` is None.

    Text cannot write ``<|im_start|>`` or ``<|im_end|>``: these are spelled out. The tags are ordinary vocabulary to the
    template's tokenizer and so to this one, whoever writes them.

    Args:
        tokenizer: byte-level BPE that holds ``<|im_start|>`` and ``<|im_end|>`` as special tokens.
        form: "thinking" and "no_thinking" (which begins every turn with an empty block) are those of the hybrid models,
            "instruct" is that of the Instruct-2507 models, to whose template thinking is text like any other.
    """

    def __init__(self, tokenizer: Tokenizer, form: Form) -> None:
        self._tokenizer, self._codec, self._form = tokenizer, Codec(tokenizer, (START, END)), form
        self._start, self._end = self._codec.id[START], self._codec.id[END]
        self._newline = self._codec.encode("\n")
        empty = f"{THINK}\n\n{THOUGHT}\n\n" if form == "no_thinking" else ""
        self._header = (self._start, *self._codec.encode(f"assistant\n{empty}"))
        self.stop_token_ids: tuple[int, ...] = (self._end,)
        self.tags: tuple[str, ...] = (CALL,) if form == "instruct" else (THINK, THOUGHT, CALL)
        hybrid = {"enable_thinking": form == "thinking"}
        self.chat_template_kwargs: Mapping[str, bool] = {} if form == "instruct" else hybrid

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to and including the header of the assistant's next turn."""
        shown = [(message.role, self._shown(messages, number)) for number, message in enumerate(messages)]
        system = [shown.pop(0)[1]] if shown and shown[0][0] == "system" else []
        if tools:
            system = ["\n\n".join([*system, _TOOLS + "\n".join(map(_schema, tools)) + _TOOLS_END])]
        return (*self._turns([*(("system", text) for text in system), *shown]), *self._header)

    def assistant(self, message: Message) -> tuple[int, ...]:
        """What a perfect sampler would emit for ``message``, stop token included.

        Raises RenderError for a message that would not be read back equal, such as one with a tag in its text.
        """
        if message.role != "assistant":
            raise RenderError(f"expected an assistant message, got role {message.role!r}")
        content = message.content or ""
        text = content + _written_calls(message, behind=self._answer(content))
        ids = (*self._codec.encode(text), self._end)
        calls = tuple(call.model_copy(update={"id": f"call_{i}"}) for i, call in enumerate(message.tool_calls))
        if self.parse(ids) != Message(role="assistant", content=content or None, tool_calls=calls):
            raise RenderError(
                f"message {text[:60]!r} would not be read back equal: write it without tags, and as Unicode's NFC"
            )
        return ids

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        """What follows sampled tokens, or None where the template leaves out thinking that stands before it."""
        for message in messages:
            if message.role == "assistant":
                raise RenderError("a continuation holds tool, user and system messages, not the assistant's own")
        if self._leaves_out(history, messages):
            return None
        cut = not completion_ids or completion_ids[-1] != self._end
        turns = self._turns([(message.role, message.content or "") for message in messages])
        return (*((self._end,) if cut else ()), *self._newline, *turns, *self._header)

    def parse(self, token_ids: Sequence[int]) -> Message:
        """Sampled tokens as an assistant message. Never fails. What is only thought is no call."""
        text = self._codec.decode(token_ids[:-1] if token_ids and token_ids[-1] == self._end else token_ids)
        begin = self._answer_begins(text)
        said, *rest = _CALLS.split(text[begin:])  # text, and then call and text by turns
        said = text[:begin] + said
        if rest and self._answer(said):
            said = said.removesuffix("\n")
        content = _lines([said, *(piece.strip("\n") for piece in rest[1::2])])
        calls = tuple(_read_call(number, body.strip()) for number, body in enumerate(rest[::2]))
        return Message(role="assistant", content=content or None, tool_calls=calls)

    def spoken(self, message: Message) -> Message:
        """``message`` without its thinking: what stands outside ``<think>…</think>``."""
        if self._form == "instruct":
            return message
        *before, last = _THINKING.split(message.content or "")[::2]
        said = _lines([*(piece.rstrip("\n") for piece in before), last])  # line ends around thinking are the form's
        return message.model_copy(update={"content": said or None})

    def thinking(self, message: Message) -> str:
        """What ``spoken`` leaves out of ``message``."""
        if self._form == "instruct":
            return ""
        return _lines(piece.strip("\n") for piece in _THINKING.findall(message.content or ""))

    def with_thinking(self, message: Message, thinking: str) -> Message:
        """``message`` as a model says it that thinks first; Instruct-2507's template shows no thinking."""
        if self._form == "instruct":
            return message
        content = f"{THINK}\n{thinking}\n{THOUGHT}\n\n{message.content or ''}"
        return message.model_copy(update={"content": content})

    def without_thinking(self) -> "Qwen3Renderer":
        """The renderer of the same model with thinking off."""
        return Qwen3Renderer(self._tokenizer, "no_thinking") if self._form == "thinking" else self

    def _turns(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """The tokens of turns given as (role, text). Role and text are one piece to the template's tokenizer."""
        ids: list[int] = []
        for role, text in _grouped(turns):
            ids += [self._start, *self._codec.encode(f"{role}\n{text}"), self._end, *self._newline]
        return ids

    def _shown(self, messages: Sequence[Message], number: int) -> str:
        """The text of a turn as a prompt of ``messages`` shows it."""
        message = messages[number]
        content = message.content or ""
        if message.role != "assistant":
            return content
        if self._form != "instruct":
            thinking, content = _split(content)
            if _is_thinking_shown(messages, number):
                text = f"{THINK}\n{thinking}\n{THOUGHT}\n\n" + content.lstrip("\n")
                return text + _written_calls(message, behind=content)
        return content + _written_calls(message, behind=content)

    def _leaves_out(self, history: Sequence[Message], messages: Sequence[Message]) -> bool:
        """True if a prompt of all leaves out thinking that the context of ``history``'s last turn, or it, holds."""
        if self._form == "instruct":
            return False
        if self._form == "no_thinking":
            return True  # the empty block of the header
        before, after, last = history[:-1], [*history, *messages], len(history) - 1
        return any(
            (THOUGHT in (history[i].content or "") if i == last else _is_thinking_shown(before, i))
            and not _is_thinking_shown(after, i)
            for i in range(len(history))
            if history[i].role == "assistant"
        )

    def _answer(self, content: str) -> str:
        return content if self._form == "instruct" else _split(content)[1]

    def _answer_begins(self, text: str) -> int:
        """Where calls count: behind the thinking, and so nowhere if it is never closed."""
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


def _is_thinking_shown(messages: Sequence[Message], number: int) -> bool:
    """True if a prompt of ``messages`` shows a block of thinking in the assistant's turn ``number``.

    It does behind the last user turn, unless the thinking is empty and more follows.
    """
    asked = (i for i in reversed(range(len(messages))) if _is_question(messages[i]))
    return number > next(asked, len(messages) - 1) and (
        number == len(messages) - 1 or bool(_split(messages[number].content or "")[0])
    )


def _is_question(message: Message) -> bool:
    """True for a user turn; the template takes a user's text in result tags for a tool's."""
    text = message.content
    results = text is not None and text.startswith("<tool_response>") and text.endswith("</tool_response>")
    return message.role == "user" and text is not None and not results


def _grouped(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Tool results in a row become one user turn."""
    grouped: list[tuple[str, str]] = []
    for number, (role, text) in enumerate(turns):
        if role != "tool":
            grouped.append((role, text))
        elif number and turns[number - 1][0] == "tool":
            grouped[-1] = "user", f"{grouped[-1][1]}\n{_RESULT}{text}{_RESULT_END}"
        else:
            grouped.append(("user", f"{_RESULT}{text}{_RESULT_END}"))
    return grouped


def _schema(tool: Tool) -> str:
    return json.dumps({"type": "function", "function": tool.model_dump()}, ensure_ascii=False)


def _written_calls(message: Message, behind: str) -> str:
    """The calls of a turn as they stand behind its text."""
    calls = "\n".join(
        f'{CALL}\n{{"name": "{call.name}", "arguments": {_arguments(call)}}}\n</tool_call>'
        for call in message.tool_calls
    )
    return f"\n{calls}" if calls and behind else calls


def _arguments(call: ToolCall) -> str:
    return call.raw_arguments or "" if call.arguments is None else json.dumps(call.arguments, ensure_ascii=False)


def _read_call(number: int, body: str) -> ToolCall:
    """The turn's call ``number``. A body or arguments that are no JSON object stay in ``raw_arguments``."""
    whole, found = read_arguments(body), _CALL_BODY.fullmatch(body)
    name, written = "", body
    if whole is not None and isinstance(whole.get("name"), str):
        name, written = whole["name"], text_of(whole["arguments"]) if "arguments" in whole else ""
    elif whole is None and found:
        name, written = found[1], found[2].strip()
    arguments = read_arguments(written)
    return ToolCall(
        id=f"call_{number}", name=name, arguments=arguments, raw_arguments=written if arguments is None else None
    )
