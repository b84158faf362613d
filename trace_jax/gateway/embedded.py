"""Answers of the embedded engine: what a laptop needs."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from starlette.responses import JSONResponse, Response, StreamingResponse
from tokenizers import Tokenizer

from trace_jax.chat.renderer import Renderer
from trace_jax.engines.protocol import Sampling
from trace_jax.errors import EngineError, UserError
from trace_jax.gateway.backend import Answer
from trace_jax.gateway.chat_request import ChatRequest, EngineRequest, TextRequest, read_fields
from trace_jax.gateway.chunk import Chunk, Parse, Parsed, chunks, interleaved
from trace_jax.gateway.engine import EngineThread
from trace_jax.gateway.errors import ApiError, refused
from trace_jax.gateway.prompt_limit import PromptLimit, characters_per_token
from trace_jax.gateway.prompts import chat_prompt, takes_calls
from trace_jax.gateway.request import CHAT, CompletionRequest
from trace_jax.gateway.response import ResponseWriter
from trace_jax.gateway.validation import InvalidField


@dataclass(frozen=True)
class _Prepared:
    """A request that the engine can answer."""

    fields: EngineRequest
    prompt: tuple[int, ...]
    max_tokens: int  # of each choice
    parse: Parse
    renderer: Renderer
    writer: ResponseWriter


class EmbeddedBackend:
    """Answers requests by an engine in this process.

    Args:
        name: of the base.
        renderer: writes prompts unless a request chooses a form of ``forms``.
        forms: the renderers of a hybrid model by whether it thinks; empty for a model that leaves no choice.
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
        forms: Mapping[bool, Renderer],
        capacity: int,
        max_rank: int,
    ) -> None:
        self.name, self.max_rank = name, max_rank
        self._engine, self._renderer, self._tokenizer, self._forms = engine, renderer, tokenizer, forms
        remedy = "ask for less, or serve with a larger --config.engine.capacity"
        self._limit = PromptLimit(capacity, characters_per_token(tokenizer), remedy)

    async def load(self, name: str, directory: Path) -> None:
        await self._engine.load_adapter(name, directory)

    async def unload(self, name: str) -> None:
        await self._engine.unload_adapter(name)

    def ready(self) -> bool:
        return True

    async def prepare(self, request: CompletionRequest) -> Answer:
        """Refuse what the engine cannot do or has no room for, and write the prompt. Raises ApiError."""
        work = self._prepare_chat if request.path == CHAT else self._prepare_text
        return partial(self._answer, await asyncio.to_thread(work, request))

    @asynccontextmanager
    async def _answer(self, prepared: _Prepared, adapter: str | None, affinity: str) -> AsyncIterator[Response]:
        """The completion; leaving the context frees its slots in the engine."""
        fields, writer, prompt_tokens = prepared.fields, prepared.writer, len(prepared.prompt)
        choices = [self._choice(prepared, index, adapter) for index in range(fields.n)]
        async with aclosing(interleaved(choices)) as stream:
            try:
                if fields.stream:
                    first = await anext(stream)  # what the engine refuses, it refuses before that
                    events = writer.events(first, stream, fields.n, prompt_tokens, fields.stream_options.include_usage)
                    response: Response = StreamingResponse(events, media_type="text/event-stream")
                else:
                    done: list[list[Chunk]] = [[] for _ in choices]
                    async for index, chunk in stream:
                        done[index].append(chunk)
                    response = JSONResponse(writer.whole(done, prompt_tokens))
            except EngineError as error:
                raise ApiError(500, str(error)) from None
            yield response

    def _choice(self, prepared: _Prepared, index: int, adapter: str | None) -> AsyncIterator[Chunk]:
        """One of the choices of a request; each has a seed of its own, made from the request's."""
        fields, renderer, seed = prepared.fields, prepared.renderer, prepared.fields.seed
        if index:
            seed = int.from_bytes(sha256(f"{seed}/{index}".encode()).digest()[:4], "big")
        sampling = Sampling(prepared.max_tokens, fields.temperature, seed)
        sampled = self._engine.stream(prepared.prompt, sampling, adapter)
        return chunks(sampled, prepared.parse, renderer.stop_token_ids, fields.stop, renderer.tags)

    def _prepare_chat(self, request: CompletionRequest) -> _Prepared:
        fields = read_fields(ChatRequest, request.fields)
        renderer = self._renderer_for(fields.chat_template_kwargs.enable_thinking)
        try:
            prompt = chat_prompt(request, renderer, self._limit)
        except InvalidField as error:
            raise refused(error) from None
        except (UserError, ValueError) as error:
            raise ApiError(400, f"messages cannot be written: {error}", param="messages") from None
        most = 0 if not takes_calls(request) else None if fields.parallel_tool_calls else 1
        writer = ResponseWriter(request.model, True, fields.logprobs, self._token, calls=most != 0)
        parse = partial(_parse_chat, renderer, most)
        return _Prepared(fields, prompt, self._room(prompt, fields, "messages"), parse, renderer, writer)

    def _prepare_text(self, request: CompletionRequest) -> _Prepared:
        fields = read_fields(TextRequest, request.fields)
        prompt = self._encoded(fields.prompt)
        writer = ResponseWriter(request.model, False, fields.logprobs is not None, self._token, calls=False)
        room = self._room(prompt, fields, "prompt")
        return _Prepared(fields, prompt, room, self._parse_text, self._renderer, writer)

    def _renderer_for(self, thinking: bool | None) -> Renderer:
        """The renderer of a model that thinks, or does not. Raises ApiError for a model that cannot think."""
        if thinking is None or (not self._forms and not thinking):
            return self._renderer
        if not self._forms:
            raise ApiError(
                400,
                "chat_template_kwargs.enable_thinking is True, and this model leaves no choice: leave it out",
                param="chat_template_kwargs",
                code="unsupported_value",
            )
        return self._forms[thinking]

    def _room(self, prompt: Sequence[int], fields: EngineRequest, param: str) -> int:
        """How many tokens may be sampled."""
        self._limit.check_tokens(len(prompt), fields.token_limit or 1, param=param)
        return fields.token_limit or self._limit.tokens - len(prompt)

    def _encoded(self, prompt: str | list[int]) -> tuple[int, ...]:
        if not prompt:
            raise ApiError(400, "prompt is empty: send a text, or token ids", param="prompt")
        if isinstance(prompt, str):
            self._limit.check_text(prompt, param="prompt")
            return tuple(self._tokenizer.encode_batch_fast([prompt])[0].ids)  # of all ways, it lets other threads run
        self._limit.check_tokens(len(prompt), param="prompt")
        size = self._tokenizer.get_vocab_size()
        for token in prompt:
            if not 0 <= token < size:
                raise ApiError(400, f"token id {token} is outside the vocabulary of {size}", param="prompt")
        return tuple(prompt)

    def _parse_text(self, ids: Sequence[int]) -> Parsed:
        return Parsed("", self._tokenizer.decode(list(ids), skip_special_tokens=True), ())

    def _token(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special_tokens=False)


def _parse_chat(renderer: Renderer, most: int | None, ids: Sequence[int]) -> Parsed:
    """A turn with at most ``most`` calls; None: all of them."""
    message = renderer.parse(ids)
    return Parsed(renderer.thinking(message), renderer.spoken(message).content or "", message.tool_calls[:most])
