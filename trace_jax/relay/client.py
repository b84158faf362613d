"""The trainer's side: bring an adapter to a server through the server's relay, or take it away.

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
from trace_jax.relay.files import HEADER, NAMES, RelayError, check_name, checksums, relay_key

ATTEMPTS = 6
SECONDS = 300.0  # that a server may take to load, or to unload, which waits for the requests in flight
HEALTH_SECONDS = 10.0
_LONGEST_WAIT = 20.0  # seconds between two attempts
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
_CHUNK = 1 << 20

Attempt = Callable[[aiohttp.ClientSession, asyncio.Timeout], Awaitable[None]]

log = logging.getLogger(__name__)


async def deliver(relay: str, name: str, directory: PathLike, seconds: float = SECONDS) -> int:
    """Have the server of ``relay`` load the adapter in ``directory`` (PEFT, local or fsspec) under ``name``.

    An attempt fails if the relay's /health does not answer, or if for ``seconds`` nothing more is sent and no response
    comes. There is no further attempt ``seconds`` after the start. An upload may take as long as it makes progress.

    Returns the bytes that were sent, in all attempts: 0 where the relay has it already, or fetches it itself.
    Raises RelayError if it is refused, or cannot be delivered in six attempts, and UserError if it is no adapter.
    """
    url = _url(relay, name)
    if not is_local(directory):
        source = {"path": os.fspath(directory)}
        await _with_retries(relay, url, seconds, lambda session, _: _send(session.post(url, json=source)))
        return 0
    files = await asyncio.to_thread(checksums, Path(directory))
    announced, sent = files.model_dump_json(), 0

    async def attempt(session: aiohttp.ClientSession, limit: asyncio.Timeout) -> None:
        nonlocal sent
        try:
            return await _send(session.post(url, data=announced))
        except RelayError as error:
            if error.status != 404:
                raise
        headers = {HEADER: announced, "Content-Length": str(files.size)}
        sent += files.size
        await _send(session.put(url, data=_chunks(Path(directory), limit, seconds), headers=headers))

    await _with_retries(relay, url, seconds, attempt)
    return sent


async def withdraw(relay: str, name: str, seconds: float = SECONDS) -> None:
    """Unload ``name`` from the server of ``relay`` and remove its files. Time limits and errors: as ``deliver``."""
    url = _url(relay, name)
    await _with_retries(relay, url, seconds, lambda session, _: _send(session.delete(url)))


def _url(relay: str, name: str) -> str:
    return f"{relay.rstrip('/')}/adapters/{check_name(name)}"  # no character of a name is quoted in a URL


async def _with_retries(relay: str, url: str, seconds: float, attempt: Attempt) -> None:
    retrying = AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT),
        retry=retry_if_exception(_may_pass),
        before_sleep=_log_retry,
        reraise=True,
    )
    key = relay_key()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    health = f"{relay.rstrip('/')}/health"
    async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session:
        try:
            async for trial in retrying:
                with trial:
                    async with _answer_within(HEALTH_SECONDS, health):
                        await _send(session.get(health))
                    async with _answer_within(seconds, url) as limit:
                        await attempt(session, limit)
        except (aiohttp.ClientError, TimeoutError) as error:
            last = f"gave up after attempt {retrying.statistics['attempt_number']} ({error})"
            raise RelayError(
                f"{url}: {last}: start launch.relay on the server's machine, or see its log", 503
            ) from None


@asynccontextmanager
async def _answer_within(seconds: float, url: str) -> AsyncIterator[asyncio.Timeout]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield limit
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"{url}: no answer in {seconds:g} s") from None


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    log.warning(
        "attempt %d of %d failed, again in %.1f s: %s", state.attempt_number, ATTEMPTS, state.upcoming_sleep, error
    )


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, RelayError):
        return not error.final
    return isinstance(error, aiohttp.ClientError | TimeoutError)


async def _send(request: Any) -> None:
    """Raise RelayError with the relay's own words unless the request succeeded."""
    async with request as response:
        if response.status < 300:
            return
        text = await response.text()
        try:
            reason = (await response.json())["error"]
        except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
            reason = f"answers {response.status}: {' '.join(text.split())[:200]}"
        raise RelayError(f"{response.url}: {reason}", response.status)


async def _chunks(directory: Path, limit: asyncio.Timeout, seconds: float) -> AsyncIterator[bytes]:
    """The content of the files. Each chunk that has gone out puts ``limit`` off by ``seconds``."""
    for name in NAMES:
        with (directory / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
                limit.reschedule(asyncio.get_running_loop().time() + seconds)
