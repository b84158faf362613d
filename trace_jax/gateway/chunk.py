"""A completion as it comes: the text that is settled, the tokens, and how it ended."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from trace_jax.contract.trajectory import ToolCall
from trace_jax.errors import EngineError
from trace_jax.gateway.engine import Sampled


class Reading(NamedTuple):
    """What the tokens of a reply say."""

    thinking: str
    text: str
    calls: tuple[ToolCall, ...]


Read = Callable[[Sequence[int]], Reading]


@dataclass(frozen=True)
class End:
    """How a completion ended: OpenAI's finish reason, the calls, and the number of sampled tokens."""

    finish_reason: str
    calls: tuple[ToolCall, ...]
    tokens: int


@dataclass(frozen=True)
class Piece:
    """More of a completion, thinking or text. Those of all pieces are the whole; the last piece has the end."""

    thinking: str
    text: str
    token_ids: tuple[int, ...]  # the token that stopped it is not among them
    logprobs: tuple[float, ...]
    end: End | None = None


async def pieces(
    sampled: AsyncGenerator[Sampled, None],
    read: Read,
    stop_ids: Sequence[int],
    stops: Sequence[str],
    tags: Sequence[str],
) -> AsyncIterator[Piece]:
    """The pieces of a completion from the tokens of an engine, which ``read`` tells the meaning of.

    The first string of ``stops`` ends the text before it; thinking and calls are not searched. What a later token may
    change is held back: white space and what may begin one of ``tags``, which may belong to a call; half a character;
    what may begin a stop.
    Raises EngineError where a later token changed what has gone out: such a renderer cannot be streamed.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    thought, told = "", ""
    async with aclosing(sampled) as source:
        async for more in source:
            before, last = len(ids), more.finish_reason
            ids += more.token_ids
            logprobs += more.logprobs
            thinking, text, calls = read(ids)
            size, end = len(ids), None
            if last:
                end = End("tool_calls" if calls and last == "stop" else last, calls, size)
            else:
                thinking, text = _settled(thinking, tags), _settled(text, tags)
            found = _first(text, stops)
            if found is not None:
                sizes = range(before + 1, size)
                size = next((n for n in sizes if _first(read(ids[:n]).text, stops) is not None), size)
                thinking, text, end = read(ids[:size]).thinking, text[:found], End("stop", (), size)
            elif not last:
                text = text[: len(text) - max(_begun(text, stop) for stop in ("", *stops))]
            if not (thinking.startswith(thought) and text.startswith(told)):
                raise EngineError(f"a later token changed the {len(told)} characters told: ask without stream")
            kept = [i for i in range(before, size) if ids[i] not in stop_ids]
            tokens = tuple(ids[i] for i in kept), tuple(logprobs[i] for i in kept)
            more_thinking, more_text = thinking[len(thought) :], text[len(told) :]
            thought, told = thinking, text
            if more_thinking and (more_text or end):  # clients look for the one or the other
                yield Piece(more_thinking, "", *tokens)
                more_thinking, tokens = "", ((), ())
            yield Piece(more_thinking, more_text, *tokens, end)
            if end:
                return


async def together(choices: Sequence[AsyncIterator[Piece]]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all ``choices``, each with the index of its choice, as they come; closing it ends them all."""
    arrived: asyncio.Queue[tuple[int, Piece] | Exception] = asyncio.Queue()

    async def forward(index: int, choice: AsyncIterator[Piece]) -> None:
        try:
            async for piece in choice:
                arrived.put_nowait((index, piece))
        except Exception as error:  # it is raised where the pieces are read
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


def _settled(text: str, tags: Sequence[str]) -> str:
    """``text`` without what a later token may change at its end. What is left stays if all of that goes."""
    size = -1
    while size != len(text):
        size = len(text)
        begun = max(_begun(text, tag) for tag in ("", *tags))
        text = text[: size - begun].rstrip("\ufffd").rstrip()
    return text


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of ``stops`` begins in ``text``."""
    return min((text.index(stop) for stop in stops if stop in text), default=None)


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
