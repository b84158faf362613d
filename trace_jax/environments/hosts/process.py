"""One worker process: its pipes, the requests in flight, and its end.

The pipes belong to no event loop. Whichever loop makes a request watches them from then on, so that a worker outlives
the loops of the stages that use it. All of these loops must run in one thread.
"""

import asyncio
import itertools
import json
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.lines import LineFault, read_answers, shown
from trace_jax.environments.hosts.plan import LONG, Plan

_IN_FLIGHT = 1024  # requests of a worker that are not answered yet; further ones wait in this process
_CHUNK = 1 << 18


@dataclass
class _Request:
    future: "asyncio.Future[Any] | None"  # None: nobody waits for the answer
    operation: str
    text: str
    deadline: float = 0.0


@dataclass(eq=False)
class Worker:
    """A running worker. ``on_end`` is called once, when it has ended or must not be used any more.

    Attributes:
        episodes: the episodes that are open in it.
        fault: why it has ended or is to be replaced, in one line; None while it is sound.
        description: what the worker tells of its target, once ``started``.
    """

    plan: Plan
    on_end: Callable[["Worker"], None]
    episodes: set[int] = field(default_factory=set)
    fault: str | None = None
    description: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._child, self._ended = self.plan.start(), False
        self._numbers = itertools.count(1)
        self._queue: deque[tuple[int, _Request]] = deque()
        self._in_flight: dict[int, _Request] = {}
        self._late: set[int] = set()  # requests that took too long, and may be answered yet
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._watching: tuple[asyncio.AbstractEventLoop, float] | None = None  # the loop of the timer, and its time
        self._flushing: asyncio.AbstractEventLoop | None = None
        self._unsent, self._unread = bytearray(), bytearray()
        self._unsent += json.dumps(self.plan.first_line()).encode() + b"\n"
        self._answered = 0.0  # when the last request was answered
        self._starting: asyncio.Future[Any] | None = None

    async def start(self) -> None:
        """Wait until the worker has loaded its target. Raises EnvironmentFault."""
        while self.description is None and self.fault is None:
            if self._starting is None or self._starting.get_loop().is_closed():
                self._starting = asyncio.get_running_loop().create_future()
                deadline = time.monotonic() + self.plan.start_seconds
                self._in_flight[0] = _Request(self._starting, "start", "", deadline)
            self._attach()
            self._write()
            await asyncio.wait([self._starting])
        if self.fault is not None:
            raise EnvironmentFault(self.fault)

    async def request(self, episode: int, operation: str, argument: str) -> Any:
        """The answer to one request; ``argument`` is JSON. All requests of one turn of the event loop share a line.

        Raises EnvironmentFault.
        """
        if self._ended:
            raise EnvironmentFault(self.fault or "its worker has ended")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._enqueue(future, episode, operation, argument)
        if self._flushing is not loop:
            self._flushing = loop
            loop.call_soon(self._flush)
        return await future

    def tell_closed(self, episode: int) -> None:
        """Let the worker forget an episode, with the next line that is sent."""
        if not self._ended:
            self._enqueue(None, episode, "close", "null")

    def _enqueue(self, future: "asyncio.Future[Any] | None", episode: int, operation: str, argument: str) -> None:
        number = next(self._numbers)
        text = f'[{number},{episode},"{operation}",{argument}]'
        self._queue.append((number, _Request(future, operation, text)))

    def end(self, fault: str | None = None) -> None:
        """Kill the process and its children. Every request fails with ``fault``."""
        if self._ended:
            return
        self.fault = self.fault or fault or "its worker was stopped"
        self._ended = True
        for loop in self._loops:
            if not loop.is_closed():
                loop.remove_reader(self._child.answers)
                if self._child.output is not None:
                    loop.remove_reader(self._child.output)
                loop.remove_writer(self._child.requests)
        self._child.kill()
        failed = [*self._in_flight.values(), *(request for _, request in self._queue)]
        self._in_flight.clear()
        self._queue.clear()
        for request in failed:
            self._fail(request, self.fault)
        self.on_end(self)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._child.pid

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            loop.add_reader(self._child.answers, self._read_answers)
            if self._child.output is not None:
                loop.add_reader(self._child.output, self._read_output, self._child.output)
            self._loops.add(loop)
        if self._in_flight:
            due = min(request.deadline for request in self._in_flight.values())
            if self._watching is None or self._watching[0] is not loop or due < self._watching[1]:
                self._watching = (loop, due)
                loop.call_at(due, self._watch, self._watching)

    def _flush(self) -> None:
        self._flushing = None
        if self._ended:
            return
        taken: list[str] = []
        now = time.monotonic()
        while self._queue and len(self._in_flight) < _IN_FLIGHT:
            number, request = self._queue.popleft()
            if request.future is None or not request.future.cancelled():
                request.deadline = now + self._seconds(request.operation)
                self._in_flight[number] = request
                taken.append(request.text)
        if taken:
            self._unsent += f"[{','.join(taken)}]\n".encode()
            self._attach()
            self._write()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                del self._unsent[: os.write(self._child.requests, self._unsent)]
        except BlockingIOError:
            loop.add_writer(self._child.requests, self._write)
            return
        except BrokenPipeError:
            self._unsent.clear()  # the worker has ended, which the end of its answers tells
        loop.remove_writer(self._child.requests)

    def _read_answers(self) -> None:
        try:
            data = os.read(self._child.answers, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.end(self._child.obituary())
            return
        self._unread += data
        lines: list[bytes] = []
        if b"\n" in data:
            *lines, rest = bytes(self._unread).split(b"\n")
            self._unread = bytearray(rest)
        try:
            for line in lines:
                self._resolve(line)
            if len(self._unread) > self.plan.longest_line:
                raise LineFault(f"it wrote a line of more than {self.plan.longest_line} bytes among its answers")
        except LineFault as fault:
            self.end(f"the worker was stopped: {fault}")
            return
        if self._queue and self._flushing is None:
            self._flush()

    def _resolve(self, line: bytes) -> None:
        for number, value, error, extra in read_answers(line):
            if self.plan.in_turn and number != next(iter(self._in_flight), None):
                raise LineFault(f"it answered request {number} out of turn")
            if number == 0 and error is None and not isinstance(value, dict):
                raise LineFault(f"it told of its environments {shown(value)}")
            self._answered = time.monotonic()
            request = self._in_flight.pop(number, None)
            if request is None:
                if number not in self._late:
                    raise LineFault(f"it answered request {number}, for which nobody waits")
                self._late.discard(number)
            elif error is not None:
                if number == 0:
                    self.fault = error = self.plan.unstartable(error)
                self._fail(request, error, extra)
            else:
                if number == 0:
                    self.description = value
                if request.future is not None and not request.future.done():
                    request.future.set_result(value)

    def _watch(self, watching: tuple[asyncio.AbstractEventLoop, float]) -> None:
        """Fail the requests that have taken too long, and have the worker replaced."""
        if self._watching is not watching:
            return  # an earlier timer, or that of another loop, has taken over
        self._watching, now = None, time.monotonic()
        if self.plan.in_turn:
            self._end_if_late(now)
            return
        overdue = [number for number, request in self._in_flight.items() if request.deadline <= now]
        for number in overdue:
            request = self._in_flight.pop(number)
            self._late.add(number)
            fault = self.plan.late(request.operation)
            self.fault = self.fault or f"its worker is being replaced: {fault}"
            self._fail(request, fault)
        if overdue:
            self.on_end(self)
        if not self._ended:
            self._attach()

    def _seconds(self, operation: str) -> float:
        return self.plan.start_seconds if operation in LONG else self.plan.step_seconds

    def _end_if_late(self, now: float) -> None:
        """End the process if the first request in flight has taken too long since the one before it was answered."""
        first = next(iter(self._in_flight.values()), None)
        if first is None:
            return
        first.deadline = max(first.deadline, self._answered + self.plan.step_seconds)
        if first.deadline <= now:
            self.end(self.plan.late(first.operation))
        else:
            self._attach()

    @staticmethod
    def _fail(request: _Request, fault: str, extra: Any = None) -> None:
        future = request.future
        if future is not None and not future.done() and not future.get_loop().is_closed():
            future.set_exception(EnvironmentFault(fault, extra))
            future.exception()  # an episode that has been closed does not look at it

    def _read_output(self, descriptor: int) -> None:
        if not self._child.read_output():
            asyncio.get_running_loop().remove_reader(descriptor)
