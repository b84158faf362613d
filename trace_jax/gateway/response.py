"""OpenAI's response objects for the completions of the embedded engine."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from trace_jax.chat.calls import written_arguments
from trace_jax.contract.trajectory import ToolCall
from trace_jax.gateway.chunk import Piece

Token = Callable[[int], str]  # the text of one token


class Replies:
    """Writes one call's completions, whole or in chunks.

    Args:
        chat: a chat completion, or a text completion.
        logprobs: whether they are told.
        token: the text of a token.
    """

    def __init__(self, model: str, chat: bool, logprobs: bool, token: Token) -> None:
        self._chat, self._logprobs, self._token = chat, logprobs, token
        self._common = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[Sequence[Piece]], prompt_tokens: int) -> dict[str, Any]:
        """The response of a call that does not stream, from all pieces of each choice."""
        done = [self._choice(index, pieces) for index, pieces in enumerate(choices)]
        sampled = sum(piece.end.tokens for pieces in choices for piece in pieces if piece.end)
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": done, "usage": _usage(prompt_tokens, sampled)}

    async def events(
        self,
        first: tuple[int, Piece],
        rest: AsyncIterator[tuple[int, Piece]],
        choices: int,
        prompt_tokens: int,
        with_usage: bool,
    ) -> AsyncIterator[bytes]:
        """The server-sent events of a call that streams, from the pieces of all its choices."""
        for index in range(choices if self._chat else 0):
            yield _event(self._chunk(self._delta(index, {"role": "assistant", "content": ""}, None, None)))
        yield _event(self._piece(*first))
        sampled = first[1].end.tokens if first[1].end else 0
        async for index, piece in rest:
            yield _event(self._piece(index, piece))
            sampled += piece.end.tokens if piece.end else 0
        if with_usage:
            yield _event({**self._chunk(), "usage": _usage(prompt_tokens, sampled)})
        yield b"data: [DONE]\n\n"

    def _piece(self, index: int, piece: Piece) -> dict[str, Any]:
        reason = piece.end.finish_reason if piece.end else None
        told = self._told([piece])
        if not self._chat:
            return self._chunk({"index": index, "text": piece.text, "logprobs": told, "finish_reason": reason})
        delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
        if piece.thinking:
            delta["reasoning_content"] = piece.thinking
        if piece.end and piece.end.calls:
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(map(_call, piece.end.calls))]
        return self._chunk(self._delta(index, delta, told, reason))

    def _chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": list(choices)}

    def _delta(self, index: int, delta: dict[str, Any], told: Any, reason: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": told, "finish_reason": reason}

    def _choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        end, text, told = pieces[-1].end, "".join(piece.text for piece in pieces), self._told(pieces)
        assert end is not None
        common = {"index": index, "logprobs": told, "finish_reason": end.finish_reason}
        if not self._chat:
            return {**common, "text": text}
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if thinking := "".join(piece.thinking for piece in pieces):
            message["reasoning_content"] = thinking
        if end.calls:
            message["tool_calls"] = [_call(call) for call in end.calls]
        return {**common, "message": message}

    def _told(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        tokens = [(self._token(t), lp) for p in pieces for t, lp in zip(p.token_ids, p.logprobs, strict=True)]
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
    # A token that holds part of a character is decoded to the replacement character: its bytes are not known then.
    data = None if "\ufffd" in token else list(token.encode())
    return {"token": token, "logprob": logprob, "bytes": data, "top_logprobs": []}
