"""A completion as it is sampled, in chunks of text that no later token changes."""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from trace_jax.contract.trajectory import ToolCall
from trace_jax.errors import EngineError
from trace_jax.gateway.engine import Sampled
from trace_jax.gateway.stop_strings import StopMatcher, first_stop

_READS_PER_DOUBLING = 64  # see ``chunks``


class Parsed(NamedTuple):
    """What the tokens of a completion say."""

    thinking: str
    text: str
    calls: tuple[ToolCall, ...]


Parse = Callable[[Sequence[int]], Parsed]


@dataclass(frozen=True)
class End:
    """How a completion ended: OpenAI's finish reason, the calls, and the number of sampled tokens."""

    finish_reason: str
    calls: tuple[ToolCall, ...]
    tokens: int


@dataclass(frozen=True)
class Chunk:
    """The next part of a completion, thinking or text. All chunks together are the completion; the last has the end."""

    thinking: str
    text: str
    token_ids: tuple[int, ...]  # without the token that ended the turn
    logprobs: tuple[float, ...]
    end: End | None = None


async def chunks(
    sampled: AsyncGenerator[Sampled, None],
    parse: Parse,
    stop_ids: Sequence[int],
    stops: Sequence[str],
    tags: Sequence[str],
) -> AsyncIterator[Chunk]:
    """The chunks of a completion from the tokens that an engine samples.

    The text ends before the first string of ``stops``; thinking and calls are not searched for them. Text that a later
    token may change is held back: white space and the beginning of one of ``tags``, which may belong to a call, half a
    character, and the beginning of a stop string.

    ``parse`` reads all tokens from the first, so it is not called for each of them: beyond 64 tokens, only when there
    are 1/64 more than the last time. The time for T tokens is then of order T log T in place of T².

    Raises EngineError if a later token changed text that was sent: completions of such a renderer cannot be streamed.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    sent_thinking, sent_text, searched, before = "", "", "", 0
    matcher = StopMatcher(stops)
    async with aclosing(sampled) as source:
        async for more in source:
            last = more.finish_reason
            ids += more.token_ids
            logprobs += more.logprobs
            if not last and len(ids) - before < len(ids) // _READS_PER_DOUBLING:
                continue
            thinking, text, calls = parse(ids)
            size, end = len(ids), None
            if last:
                end = End("tool_calls" if calls and last == "stop" else last, calls, size)
            else:
                thinking, text = _unchanging(thinking, tags), _unchanging(text, tags)
            if not (thinking.startswith(sent_thinking) and text.startswith(searched)):
                raise EngineError(f"a later token changed the {len(sent_text)} characters sent: ask without stream")
            matcher.feed(text[len(searched) :])
            searched = text
            if matcher.found is not None:
                size = _size_with_stop(ids, before, parse, stops)
                thinking, text, end = parse(ids[:size]).thinking, text[: matcher.found], End("stop", (), size)
            elif not last:
                text = text[: len(text) - matcher.held]
            kept = [i for i in range(before, size) if ids[i] not in stop_ids]
            tokens = tuple(ids[i] for i in kept), tuple(logprobs[i] for i in kept)
            more_thinking, more_text = thinking[len(sent_thinking) :], text[len(sent_text) :]
            sent_thinking, sent_text, before = thinking, text, len(ids)
            if more_thinking and (more_text or end):  # clients look for the one or the other
                yield Chunk(more_thinking, "", *tokens)
                more_thinking, tokens = "", ((), ())
            yield Chunk(more_thinking, more_text, *tokens, end)
            if end:
                return


async def interleaved(choices: Sequence[AsyncIterator[Chunk]]) -> AsyncGenerator[tuple[int, Chunk], None]:
    """The chunks of all ``choices`` as they come, each with the index of its choice; closing it ends them all."""
    arrived: asyncio.Queue[tuple[int, Chunk] | Exception] = asyncio.Queue()

    async def forward(index: int, choice: AsyncIterator[Chunk]) -> None:
        try:
            async for chunk in choice:
                arrived.put_nowait((index, chunk))
        except Exception as error:  # raised again where the chunks are read
            arrived.put_nowait(error)

    tasks = [asyncio.create_task(forward(index, choice)) for index, choice in enumerate(choices)]
    try:
        left = len(tasks)
        while left:
            got = await arrived.get()
            if isinstance(got, Exception):
                raise got
            yield got
            left -= got[1].end is not None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _size_with_stop(ids: Sequence[int], before: int, parse: Parse, stops: Sequence[str]) -> int:
    """How many of ``ids``, more than ``before``, are needed for a stop string to be in their text."""
    sizes = range(before + 1, len(ids))
    found = bisect_left(sizes, True, key=lambda size: first_stop(parse(ids[:size]).text, stops) is not None)
    return before + 1 + found if before < len(ids) else len(ids)


def _unchanging(text: str, tags: Sequence[str]) -> str:
    """``text`` without the end that a later token may change. The rest stays even if all of that goes."""
    size = -1
    while size != len(text):
        size = len(text)
        begun = max(_begun(text, tag) for tag in ("", *tags))
        text = text[: size - begun].rstrip("\ufffd").rstrip()
    return text


def _begun(text: str, tag: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``tag``."""
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
