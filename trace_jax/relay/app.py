"""The relay's HTTP interface.

    GET    /adapters          {"adapters": {NAME: files}}
    POST   /adapters/NAME     load it: with Checksums, if it is here with that content (else 404: upload it; 409);
                              with {"path": URL}, after fetching it from there
    PUT    /adapters/NAME     take and load it: the files one after another, announced in the header Adapter-Checksums
    DELETE /adapters/NAME     unload and remove it
    GET    /health            200 while the relay runs

An error is {"error": one line}. Every request may be repeated. With a key, all but /health need
``Authorization: Bearer KEY``.
"""

import asyncio
import hmac
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trace_jax.errors import UserError
from trace_jax.relay.files import HEADER, RelayError, check_name, parse_checksums
from trace_jax.relay.server import Server
from trace_jax.relay.sources import Sources
from trace_jax.relay.store import Store

_LARGEST_BODY = 1 << 16  # bytes of a POST

log = logging.getLogger(__name__)


class Relay:
    """The handlers. ``sources``: fsspec prefixes from which adapters may be fetched."""

    def __init__(self, store: Store, server: Server, sources: Sequence[str], key: str | None) -> None:
        self._store, self._server, self._key = store, server, key
        self._sources = Sources(sources)
        self._loading = asyncio.Lock()  # loads, unloads and removals, one at a time
        self._in_request: Counter[str] = Counter()  # names of adapters that some request is about: not to be removed

    async def list(self, request: Request) -> Response:
        """GET /adapters"""
        self._authorise(request)
        adapters = await asyncio.to_thread(self._store.adapters)
        return JSONResponse({"adapters": {name: files.model_dump() for name, files in adapters.items()}})

    async def load(self, request: Request) -> Response:
        """POST /adapters/NAME"""
        name = self._authorise(request)
        text = await _body(request)
        with self._kept(name):
            if (url := _path(text)) is not None:
                source = await asyncio.to_thread(self._sources.find, url)
                self._store.check_size(name, source.size)
                async with self._room(source.size):
                    await asyncio.to_thread(self._store.fetch, name, source)
            elif not await asyncio.to_thread(self._store.holds, name, parse_checksums(text)):
                raise RelayError(f"adapter {name!r} is not here: upload it", 404)
            return await self._loaded(name)

    async def upload(self, request: Request) -> Response:
        """PUT /adapters/NAME"""
        name = self._authorise(request)
        files = parse_checksums(request.headers.get(HEADER, ""))
        with self._kept(name):
            if not await asyncio.to_thread(self._store.holds, name, files):
                async with self._room(files.size):
                    await self._store.receive(name, files, aiter(request.stream()))
                log.info("adapter %s placed, %d bytes", name, files.size)
            return await self._loaded(name)

    async def remove(self, request: Request) -> Response:
        """DELETE /adapters/NAME"""
        name = check_name(self._authorise(request))
        async with self._loading:
            await self._server.unload(name)
            await asyncio.to_thread(self._store.remove, name)
        log.info("adapter %s removed", name)
        return Response(status_code=204)

    @contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        """An adapter that a request is about is not removed to make room for another one."""
        self._in_request[name] += 1
        try:
            yield
        finally:
            self._in_request[name] -= 1

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        """Disk for ``size`` bytes. Adapters that the server has not loaded go if need be, used longest ago first."""
        room = self._store.room
        async with self._loading:
            if room.missing(size) > 0:
                kept = await self._server.loaded() | set(+self._in_request)
                for name in room.unused(size, kept):
                    await asyncio.to_thread(self._store.remove, name)
                    log.warning("adapter %s removed: it is not loaded, and there was no room for another one", name)
            room.reserve(size)
        try:
            yield
        finally:
            room.release(size)

    async def _loaded(self, name: str) -> Response:
        """Load an adapter that is in its place. If the server refuses it, it is removed."""
        async with self._loading:
            try:
                await self._server.load(name, self._store.path(name))
            except RelayError as error:
                if error.status == 422:
                    await asyncio.to_thread(self._store.remove, name)
                raise
            self._store.mark_used(name)
        log.info("adapter %s loaded", name)
        return JSONResponse({"loaded": name})

    def _authorise(self, request: Request) -> str:
        """The adapter's name in the URL, if there is one. Raises RelayError 401 without the key."""
        if self._key is not None:
            header = request.headers.get("authorization", "")
            scheme, _, given = header.partition(" ")
            if header and scheme.lower() != "bearer":
                raise RelayError("the key came without its scheme: send Authorization: Bearer KEY", 401)
            if not hmac.compare_digest(given.strip().encode("latin-1"), self._key.encode()):  # the header's own bytes
                raise RelayError("wrong or no key: send Authorization: Bearer KEY", 401)
        return str(request.path_params.get("name", ""))


def make_app(store: Store, server: Server, sources: Sequence[str] = (), key: str | None = None) -> Starlette:
    """The application for ``uvicorn``. It closes ``store`` and the connection to ``server`` when it ends."""
    relay = Relay(store, server, sources, key)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with server:
            yield
        store.close()

    routes = [
        Route("/health", lambda _: JSONResponse({}), methods=["GET"]),
        Route("/adapters", relay.list, methods=["GET"]),
        Route("/adapters/{name}", relay.load, methods=["POST"]),
        Route("/adapters/{name}", relay.upload, methods=["PUT"]),
        Route("/adapters/{name}", relay.remove, methods=["DELETE"]),
    ]
    handlers = {UserError: _refused, OSError: _failed, ClientDisconnect: _gone}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


async def _body(request: Request) -> str:
    text = b""
    async for chunk in request.stream():
        text += chunk
        if len(text) > _LARGEST_BODY:
            raise RelayError(f"a POST of more than {_LARGEST_BODY} bytes: adapters are sent with PUT", 413)
    return text.decode(errors="replace")


def _path(text: str) -> str | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    path = found.get("path") if isinstance(found, dict) else None
    return path if isinstance(path, str) else None


def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RelayError) else 422
    level = logging.DEBUG if status == 404 else logging.WARNING  # every delivery begins with one
    log.log(level, "%s %s: %d: %s", request.method, request.url.path, status, error)
    return JSONResponse({"error": str(error)}, status)


def _failed(request: Request, error: Exception) -> Response:
    """The disk, or an object store."""
    log.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": f"{error}: see the relay's machine"}, 502)


def _gone(request: Request, error: Exception) -> Response:
    log.warning("%s %s: the sender is gone", request.method, request.url.path)
    return Response(status_code=400)
