"""Keeps what was served, messages and answers, in a file that only its owner can read. Off unless it is asked for."""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import Message as Event
from starlette.types import Send

from trace_jax.contract.files import JsonLinesWriter
from trace_jax.contract.served import ServedRequest
from trace_jax.contract.trajectory import Policy
from trace_jax.errors import TraceError
from trace_jax.gateway.errors import frames
from trace_jax.gateway.messages import conversation
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.request import CompletionRequest
from trace_jax.gateway.response_reading import UnreadableResponse, read_response
from trace_jax.gateway.transcripts import Transcripts, tools_digest
from trace_jax.gateway.validation import InvalidField

logger = logging.getLogger(__name__)

_HELD = 1 << 28  # bytes of requests and responses that are held until they are written
_CANCELLED = "the client left, or the gateway's time for the request was over"


@dataclass
class _Copy:
    """A response as it is sent, and whose it is."""

    request: CompletionRequest
    conversation: str
    policy: Policy
    started: float  # of time.perf_counter
    time: float = field(default_factory=time.time)
    seconds: float = 0.0
    status: int = 0
    media_type: str = ""
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False  # its last byte was sent
    cut: str | None = None
    omitted: str | None = None

    @property
    def size(self) -> int:
        return len(self.request.text) + len(self.body)

    def take(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.media_type = dict(event["headers"]).get(b"content-type", b"").decode("latin-1")
        elif event["type"] == "http.response.body":
            self.body += event.get("body", b"")
            self.whole = not event.get("more_body", False)


class Recorder:
    """Writes a ``ServedRequest`` for every request that was answered, in a thread, after its response.

    Nothing of a request's headers is written but the conversation's name. A response with an error is not recorded.

    Args:
        path: of the JSON Lines. Its mode becomes 0600.
        base: revision of the base.
        conversation_bytes: recorded of one conversation at most. The request that would exceed it is recorded without
            messages, and later ones of the conversation are not recorded.
        conversations: that are remembered; a forgotten one's next request is recorded whole.
    """

    def __init__(self, path: Path, base: str, *, conversation_bytes: int, conversations: int, metrics: Metrics) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        self._writer, self._base, self._metrics = JsonLinesWriter(path), base, metrics
        self._most, self._transcripts = conversation_bytes, Transcripts(conversations)
        self._waiting: list[_Copy] = []
        self._worker: asyncio.Task[None] | None = None
        self._held = 0

    @contextmanager
    def recorded(
        self, request: CompletionRequest, send: Send, *, conversation: str, adapter: str | None, started: float
    ) -> Iterator[Send]:
        """What sends the response to ``request`` in place of ``send``, and records it when the block ends.

        ``started`` is when the request came, by ``time.perf_counter``.
        """
        copy = _Copy(request, conversation, Policy(base=self._base, adapter=adapter), started)

        async def copied(event: Event) -> None:
            await send(event)
            before = len(copy.body)
            if copy.omitted is None:
                copy.take(event)
            self._held += len(copy.body) - before
            if self._held > _HELD and copy.omitted is None:
                self._held -= len(copy.body)
                copy.body.clear()
                copy.omitted = "more was being served than the gateway holds for its record"

        try:
            yield copied
        except asyncio.CancelledError:
            copy.cut = _CANCELLED
            raise
        except Exception as error:
            copy.cut = f"the response broke off: {type(error).__name__}"
            raise
        finally:
            self._add(copy)

    async def close(self) -> None:
        """Write all that waits, and release the file."""
        if self._worker is not None:
            await self._worker
        self._writer.close()

    def _add(self, copy: _Copy) -> None:
        if not 0 < copy.status < 400:
            self._held -= len(copy.body)
            return
        copy.seconds = time.perf_counter() - copy.started
        if not copy.whole and copy.omitted is None:
            copy.cut = copy.cut or _CANCELLED
        self._held += len(copy.request.text)
        self._waiting.append(copy)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write, batch)
            self._held -= sum(copy.size for copy in batch)

    def _write(self, batch: list[_Copy]) -> None:
        try:
            records = [record for copy in batch if (record := self._record(copy)) is not None]
            self._writer.extend(records)
            self._metrics.recorded.inc(len(records))
        except (OSError, TraceError) as error:
            self._lost(batch, " ".join(str(error).split()))
        except Exception as error:  # the gateway goes on; what the error says may quote a message
            self._lost(batch, f"{type(error).__name__}\n{frames(error)}")

    def _lost(self, batch: list[_Copy], why: str) -> None:
        for copy in batch:
            self._transcripts.forget(copy.conversation)
        logger.error("%d requests are not recorded: %s", len(batch), why)

    def _record(self, copy: _Copy) -> ServedRequest | None:
        """The record of one request; None for a conversation of which no more is recorded."""
        transcript = self._transcripts.get(copy.conversation)
        if transcript.full:
            return None
        common = ServedRequest(
            conversation=copy.conversation,
            time=copy.time,
            model=copy.request.model,
            policy=copy.policy,
            seconds=copy.seconds,
            cut=copy.cut,
            omitted=copy.omitted,
        )
        if copy.omitted is not None:
            self._transcripts.forget(copy.conversation)
            return common
        try:
            messages, tools = conversation(copy.request)
            answers, usage = read_response(bytes(copy.body), copy.media_type)
        except (InvalidField, UnreadableResponse) as error:
            self._transcripts.forget(copy.conversation)
            what = f"{error.param} cannot be recorded" if isinstance(error, InvalidField) else str(error)
            return common.replace(omitted=what)
        repeats = transcript.repeats(messages)
        record = common.replace(
            repeats=repeats,
            messages=messages[repeats:],
            tools=None if repeats and transcript.tools == tools_digest(tools) else tools,
            answers=answers,
            usage=usage,
        )
        transcript.size += len(record.model_dump_json())
        if transcript.size > self._most:
            transcript.full = True
            return common.replace(omitted=f"the conversation is larger than the {self._most} bytes that are recorded")
        transcript.note(messages, [answer.message for answer in answers], tools)
        return record
