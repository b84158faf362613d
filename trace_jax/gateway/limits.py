"""Who may ask, how much, and how many at a time."""

import asyncio
import hashlib
import hmac
import os
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from trace_jax.errors import UserError
from trace_jax.gateway.errors import ApiError

KEYS_VARIABLE = "TRACE_API_KEYS"
_BODY_SECONDS = 60.0  # in which a body must have come


class Gone(Exception):
    """The client has hung up."""


class Keys:
    """The keys that clients may show as ``Authorization: Bearer KEY``; with none, everybody may ask."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def check(self, headers: Mapping[str, str]) -> str:
        """Which key is shown (``key0``, …), empty where none is needed. Raises ApiError (401) for none or a wrong one.

        All keys are compared, each in constant time, so that the time tells nothing about them.
        """
        if not self._digests:
            return ""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        digest = _digest(shown.strip())
        equal = [hmac.compare_digest(digest, one) for one in self._digests]
        if scheme.lower() != "bearer" or not any(equal):
            raise ApiError(
                401,
                "no valid API key: send one of this gateway's keys as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return f"key{equal.index(True)}"


def read_keys(path: str) -> Keys:
    """The keys in the file ``path``, one a line, or if it is empty those in ``$TRACE_API_KEYS``, between commas.

    Raises UserError for a file or a variable without keys: that would open the gateway to everybody.
    """
    if not path and KEYS_VARIABLE not in os.environ:
        return Keys(())
    given = Path(path).read_text().splitlines() if path else os.environ[KEYS_VARIABLE].split(",")
    keys = [key.strip() for key in given if key.strip()]
    if not keys and path:
        raise UserError(f"{path} holds no API key: write one a line, or leave the file out")
    if not keys:
        raise UserError(f"${KEYS_VARIABLE} is set and holds no API key: write some between commas, or unset it")
    return Keys(keys)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Places:
    """How many requests may be served at a time."""

    def __init__(self, most: int) -> None:
        self._most, self.taken = most, 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place. Raises ApiError (429) when all are taken."""
        if self.taken >= self._most:
            raise ApiError(
                429,
                f"{self.taken} requests are being served, which is this gateway's limit: try again",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def read_body(request: Request, most: int) -> bytes:
    """The body, at most ``most`` bytes. Raises ApiError (413, 408), or Gone."""
    too_large = ApiError(413, f"the body is larger than {most} bytes, this gateway's limit: send less")
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise ApiError(408, f"the body has not come within {_BODY_SECONDS:.0f} s: send it at once") from None
    except ClientDisconnect:
        raise Gone from None
    return bytes(body)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, which is cancelled when the client hangs up (then raises Gone). The body must have been read."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
