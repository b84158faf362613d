"""A completion as it comes: the text that is settled, the tokens, and how it ended."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from trace_jax.contract.trajectory import ToolCall
from trace_jax.gateway.engine import Sampled
from trace_jax.rollout.engine import EngineError

Read = Callable[[Sequence[int]], tuple[str, tuple[ToolCall, ...]]]  # tokens → the reply's text, and the calls behind it


@dataclass(frozen=True)
class End:
    """How a completion ended: OpenAI's finish reason, the calls, and the number of sampled tokens."""

    finish_reason: str
    calls: tuple[ToolCall, ...]
    tokens: int


@dataclass(frozen=True)
class Piece:
    """More of a completion. The texts of all pieces are its text; the last piece has the end."""

    text: str
    token_ids: tuple[int, ...]  # the token that stopped it is not among them
    logprobs: tuple[float, ...]
    end: End | None = None


async def pieces(
    sampled: AsyncGenerator[Sampled, None], read: Read, stop_ids: Sequence[int], stops: Sequence[str]
) -> AsyncIterator[Piece]:
    """The pieces of a completion from the tokens of an engine, which ``read`` makes text and calls of.

    The first string of ``stops`` ends the text before it; calls are not searched. Text is held back while what follows
    may change it: white space, which may belong to a call; half a character; what may begin a stop.
    Raises EngineError where a later token changed text that has gone out: such a renderer cannot be streamed.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    told = ""
    async with aclosing(sampled) as source:
        async for more in source:
            before, last = len(ids), more.finish_reason
            ids += more.token_ids
            logprobs += more.logprobs
            text, calls = read(ids)
            if not last and not calls:
                text = text.rstrip("\ufffd").rstrip()
            found = _first(text, stops)
            if found is not None:
                sizes = range(before + 1, len(ids) + 1)
                size = next((n for n in sizes if _first(read(ids[:n])[0], stops) is not None), len(ids))
                end = End("stop", (), size)
                yield Piece(text[len(told) : found], tuple(ids[before:size]), tuple(logprobs[before:size]), end)
                return
            if not last and not calls:
                text = text[: len(text) - max(_begun(text, stop) for stop in ("", *stops))]
            if not text.startswith(told):
                raise EngineError(f"a later token changed the {len(told)} characters told: ask without stream")
            kept = [i for i in range(before, len(ids)) if ids[i] not in stop_ids]
            piece = text[len(told) :], tuple(ids[i] for i in kept), tuple(logprobs[i] for i in kept)
            told = text
            if last:
                yield Piece(*piece, End("tool_calls" if calls and last == "stop" else last, calls, len(ids)))
            else:
                yield Piece(*piece)


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


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of ``stops`` begins in ``text``."""
    return min((text.index(stop) for stop in stops if stop in text), default=None)


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
