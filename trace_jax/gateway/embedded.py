"""The gateway's own answers, by the embedded engine: what a laptop needs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from pathlib import Path

from starlette.responses import JSONResponse, Response, StreamingResponse
from tokenizers import Tokenizer

from trace_jax.chat.renderer import Renderer
from trace_jax.engines.protocol import Sampling
from trace_jax.errors import EngineError, UserError
from trace_jax.gateway.chat_request import Asked, AskedChat, AskedText, read_asked
from trace_jax.gateway.chunk import Piece, Read, Reading, pieces, together
from trace_jax.gateway.engine import EngineThread
from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.prompts import chat_prompt
from trace_jax.gateway.request import CHAT, Call
from trace_jax.gateway.response import Replies


class EmbeddedBackend:
    """Answers calls by an engine in this process.

    Args:
        name: of the base.
        capacity: tokens of prompt and completion together that the engine has room for.
        max_rank: of the adapters that it has room for.
    """

    def __init__(
        self,
        name: str,
        engine: EngineThread,
        renderer: Renderer,
        tokenizer: Tokenizer,
        *,
        capacity: int,
        max_rank: int,
    ) -> None:
        self.name, self.max_rank = name, max_rank
        self._engine, self._renderer, self._tokenizer, self._capacity = engine, renderer, tokenizer, capacity

    async def load(self, name: str, directory: Path) -> None:
        await self._engine.load_adapter(name, directory)

    async def unload(self, name: str) -> None:
        await self._engine.unload_adapter(name)

    def ready(self) -> bool:
        return True

    @asynccontextmanager
    async def answer(self, call: Call, adapter: str | None, affinity: str) -> AsyncIterator[Response]:
        """The completion; leaving the context frees its places in the engine. Raises ApiError."""
        asked: Asked
        if call.path == CHAT:
            chat = read_asked(AskedChat, call.fields)
            asked, prompt, logprobs = chat, self._rendered(call), chat.logprobs
            read = self._read_said if call.fields.get("tool_choice") == "none" else self._read_chat
        else:
            text = read_asked(AskedText, call.fields)
            asked, prompt, logprobs = text, self._encoded(text.prompt), text.logprobs is not None
            read = self._read_text
        replies = Replies(call.model, call.path == CHAT, logprobs, self._token)
        most = self._room(len(prompt), asked)
        choices = [self._choice(read, prompt, asked, most, index, adapter) for index in range(asked.n)]
        async with aclosing(together(choices)) as stream:
            try:
                if asked.stream:
                    first = await anext(stream)  # what the engine refuses, it refuses before that
                    usage = asked.stream_options.include_usage
                    events = replies.events(first, stream, asked.n, len(prompt), usage)
                    response: Response = StreamingResponse(events, media_type="text/event-stream")
                else:
                    done: list[list[Piece]] = [[] for _ in choices]
                    async for index, piece in stream:
                        done[index].append(piece)
                    response = JSONResponse(replies.whole(done, len(prompt)))
            except EngineError as error:
                raise ApiError(500, str(error)) from None
            yield response

    def _choice(
        self, read: Read, prompt: tuple[int, ...], asked: Asked, most: int, index: int, adapter: str | None
    ) -> AsyncIterator[Piece]:
        """One of the choices of a call; each has a seed of its own, made from the call's."""
        seed = int.from_bytes(sha256(f"{asked.seed}/{index}".encode()).digest()[:4], "big") if index else asked.seed
        sampled = self._engine.stream(prompt, Sampling(most, asked.temperature, seed), adapter)
        return pieces(sampled, read, self._renderer.stop_token_ids, asked.stops, self._renderer.tags)

    def _room(self, prompt: int, asked: Asked) -> int:
        """How many tokens may be sampled."""
        wanted = getattr(asked, "max_completion_tokens", None) or asked.max_tokens
        room = self._capacity - prompt
        if room < (wanted or 1):
            raise ApiError(
                400,
                f"prompt of {prompt} tokens and {wanted or 1} to sample exceed the {self._capacity} that this server "
                "has room for: ask for less, or serve with a larger --config.engine.capacity",
                code="context_length_exceeded",
            )
        return wanted or room

    def _rendered(self, call: Call) -> tuple[int, ...]:
        try:
            return chat_prompt(call, self._renderer)
        except (UserError, ValueError) as error:
            raise ApiError(400, f"messages cannot be read: {error}", param="messages") from None

    def _encoded(self, prompt: str | list[int]) -> tuple[int, ...]:
        if not prompt:
            raise ApiError(400, "prompt is empty: send a text, or token ids", param="prompt")
        if isinstance(prompt, str):
            return tuple(self._tokenizer.encode(prompt).ids)
        size = self._tokenizer.get_vocab_size()
        for token in prompt:
            if not 0 <= token < size:
                raise ApiError(400, f"token id {token} is outside the vocabulary of {size}", param="prompt")
        return tuple(prompt)

    def _read_chat(self, ids: Sequence[int]) -> Reading:
        message = self._renderer.parse(ids)
        said = self._renderer.spoken(message).content or ""
        return Reading(self._renderer.thinking(message), said, message.tool_calls)

    def _read_said(self, ids: Sequence[int]) -> Reading:
        """For clients that have said that they take no calls."""
        return self._read_chat(ids)._replace(calls=())

    def _read_text(self, ids: Sequence[int]) -> Reading:
        return Reading("", self._tokenizer.decode(list(ids), skip_special_tokens=True), ())

    def _token(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special_tokens=False)
