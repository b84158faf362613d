"""The trainer's side: bring an adapter to a server through the relay beside it, or take it away.

    sent = await deliver("http://gpu-box:31001", "refuse@12", directory)
    await withdraw("http://gpu-box:31001", "refuse@12")

Both may be repeated. The shared secret, if the relay wants one, is in the environment variable TRACE_RELAY_KEY.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from trace_jax.contract.storage import PathLike, is_local
from trace_jax.relay.files import HEADER, KEY, NAMES, RelayError, check_name, checksums

ATTEMPTS = 6
SECONDS = 300.0  # that a server may take to load, or to unload, which waits for the requests in flight
HEALTH_SECONDS = 10.0
_LONGEST_WAIT = 20.0  # seconds between two attempts
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
_CHUNK = 1 << 20

Attempt = Callable[[aiohttp.ClientSession, asyncio.Timeout], Awaitable[None]]

log = logging.getLogger(__name__)


async def deliver(relay: str, name: str, directory: PathLike, seconds: float = SECONDS) -> int:
    """Have the server beside ``relay`` hold the adapter ``directory`` (PEFT, local or fsspec) under ``name``.

    An attempt fails when the relay does not say that it is alive, or when nothing more is sent and no answer comes for
    ``seconds``, after which there is no other. An upload may take as long as it goes on.

    Returns the bytes that were sent, in all attempts: 0 where the relay has it already, or fetches it itself.
    Raises RelayError if it is refused, or cannot be delivered in six attempts, and UserError if it is no adapter.
    """
    url = _url(relay, name)
    if not is_local(directory):
        source = {"path": os.fspath(directory)}
        await _repeated(relay, url, seconds, lambda session, _: _ask(session.post(url, json=source)))
        return 0
    files = await asyncio.to_thread(checksums, Path(directory))
    announced, sent = files.model_dump_json(), 0

    async def attempt(session: aiohttp.ClientSession, limit: asyncio.Timeout) -> None:
        nonlocal sent
        try:
            return await _ask(session.post(url, data=announced))
        except RelayError as error:
            if error.status != 404:
                raise
        headers = {HEADER: announced, "Content-Length": str(files.size)}
        sent += files.size
        await _ask(session.put(url, data=_pieces(Path(directory), limit, seconds), headers=headers))

    await _repeated(relay, url, seconds, attempt)
    return sent


async def withdraw(relay: str, name: str, seconds: float = SECONDS) -> None:
    """Unload ``name`` from the server beside ``relay`` and remove its files. Limits and errors are ``deliver``'s."""
    url = _url(relay, name)
    await _repeated(relay, url, seconds, lambda session, _: _ask(session.delete(url)))


def _url(relay: str, name: str) -> str:
    return f"{relay.rstrip('/')}/adapters/{check_name(name)}"  # no character of a name is quoted in a URL


async def _repeated(relay: str, url: str, seconds: float, attempt: Attempt) -> None:
    retrying = AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT),
        retry=retry_if_exception(_may_pass),
        before_sleep=_tell,
        reraise=True,
    )
    key = os.environ.get(KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    health = f"{relay.rstrip('/')}/health"
    async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session:
        try:
            async for one in retrying:
                with one:
                    async with _answer_within(HEALTH_SECONDS, health):
                        await _ask(session.get(health))
                    async with _answer_within(seconds, url) as limit:
                        await attempt(session, limit)
        except (aiohttp.ClientError, TimeoutError) as error:
            last = f"gave up after attempt {retrying.statistics['attempt_number']} ({error})"
            raise RelayError(f"{url}: {last}: start launch.relay beside the server, or see its log", 503) from None


@asynccontextmanager
async def _answer_within(seconds: float, url: str) -> AsyncIterator[asyncio.Timeout]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield limit
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"{url}: no answer in {seconds:g} s") from None


def _tell(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    log.warning(
        "attempt %d of %d failed, again in %.1f s: %s", state.attempt_number, ATTEMPTS, state.upcoming_sleep, error
    )


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, RelayError):
        return not error.final
    return isinstance(error, aiohttp.ClientError | TimeoutError)


async def _ask(request: Any) -> None:
    """Raise RelayError with the relay's own words unless it did what was asked."""
    async with request as answer:
        if answer.status < 300:
            return
        text = await answer.text()
        try:
            said = (await answer.json())["error"]
        except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
            said = f"answers {answer.status}: {' '.join(text.split())[:200]}"
        raise RelayError(f"{answer.url}: {said}", answer.status)


async def _pieces(directory: Path, limit: asyncio.Timeout, seconds: float) -> AsyncIterator[bytes]:
    """The files, ``limit`` put off by each piece that has gone out."""
    for name in NAMES:
        with (directory / name).open("rb") as file:
            while piece := file.read(_CHUNK):
                yield piece
                limit.reschedule(asyncio.get_running_loop().time() + seconds)
