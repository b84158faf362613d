"""OpenAI's response objects for the completions of the embedded engine."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from trace_jax.chat.calls import written_arguments
from trace_jax.contract.trajectory import ToolCall
from trace_jax.gateway.chunk import Chunk

Token = Callable[[int], str]  # the text of one token


class ResponseWriter:
    """Writes the response to one request, whole or in chunks.

    Args:
        chat: a chat completion, or a text completion.
        logprobs: whether log-probabilities are in it.
        token: the text of a token.
        calls: whether there may be calls; the content of a message without calls and text is then null.
    """

    def __init__(self, model: str, chat: bool, logprobs: bool, token: Token, *, calls: bool) -> None:
        self._chat, self._with_logprobs, self._token, self._calls = chat, logprobs, token, calls
        self._common = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[Sequence[Chunk]], prompt_tokens: int) -> dict[str, Any]:
        """The response to a request that does not stream, from all chunks of each choice."""
        done = [self._choice(index, chunks) for index, chunks in enumerate(choices)]
        sampled = sum(chunk.end.tokens for chunks in choices for chunk in chunks if chunk.end)
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": done, "usage": _usage(prompt_tokens, sampled)}

    async def events(
        self,
        first: tuple[int, Chunk],
        rest: AsyncIterator[tuple[int, Chunk]],
        choices: int,
        prompt_tokens: int,
        with_usage: bool,
    ) -> AsyncIterator[bytes]:
        """The server-sent events for a request that streams, from the chunks of all its choices."""
        for index in range(choices if self._chat else 0):
            yield _event(self._object(self._delta(index, {"role": "assistant", "content": ""}, None, None)))
        yield _event(self._chunk(*first))
        sampled = first[1].end.tokens if first[1].end else 0
        async for index, chunk in rest:
            yield _event(self._chunk(index, chunk))
            sampled += chunk.end.tokens if chunk.end else 0
        if with_usage:
            yield _event({**self._object(), "usage": _usage(prompt_tokens, sampled)})
        yield b"data: [DONE]\n\n"

    def _chunk(self, index: int, chunk: Chunk) -> dict[str, Any]:
        reason = chunk.end.finish_reason if chunk.end else None
        logprobs = self._logprobs([chunk])
        if not self._chat:
            choice = {"index": index, "text": chunk.text, "logprobs": logprobs, "finish_reason": reason}
            return self._object(choice)
        delta: dict[str, Any] = {"content": chunk.text} if chunk.text else {}
        if chunk.thinking:
            delta["reasoning_content"] = chunk.thinking
        if chunk.end and chunk.end.calls:
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(map(_call, chunk.end.calls))]
        return self._object(self._delta(index, delta, logprobs, reason))

    def _object(self, *choices: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": list(choices)}

    def _delta(self, index: int, delta: dict[str, Any], logprobs: Any, reason: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _choice(self, index: int, chunks: Sequence[Chunk]) -> dict[str, Any]:
        end, text = chunks[-1].end, "".join(chunk.text for chunk in chunks)
        assert end is not None
        common = {"index": index, "logprobs": self._logprobs(chunks), "finish_reason": end.finish_reason}
        if not self._chat:
            return {**common, "text": text}
        content = text or (None if self._calls else "")
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if thinking := "".join(chunk.thinking for chunk in chunks):
            message["reasoning_content"] = thinking
        if end.calls:
            message["tool_calls"] = [_call(call) for call in end.calls]
        return {**common, "message": message}

    def _logprobs(self, chunks: Sequence[Chunk]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        tokens = [
            (self._token(t), lp) for chunk in chunks for t, lp in zip(chunk.token_ids, chunk.logprobs, strict=True)
        ]
        if not self._chat:
            texts, logprobs = [token for token, _ in tokens], [lp for _, lp in tokens]
            return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": None}
        return {"content": [_token_logprob(token, lp) for token, lp in tokens]}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _usage(prompt_tokens: int, sampled: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": sampled,
        "total_tokens": prompt_tokens + sampled,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": written_arguments(call)}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _token_logprob(token: str, logprob: float) -> dict[str, Any]:
    # A token that holds part of a character decodes to the replacement character: its bytes are not known then.
    data = None if "\ufffd" in token else list(token.encode())
    return {"token": token, "logprob": logprob, "bytes": data, "top_logprobs": []}
