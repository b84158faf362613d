"""Object stores and web servers that a relay may fetch adapters from.

An address counts as inside a prefix only if nothing about it can lead out again: no ``..``, however it is encoded, no
chained file system, no query, and no redirect of the server that is asked.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import fsspec
from fsspec.callbacks import Callback

from trace_jax.errors import UserError
from trace_jax.relay.files import NAMES, RelayError

_DECODINGS = 8  # of an address that is percent-encoded several times over
_FORBIDDEN = ("\\", "?", "#", "::")


@dataclass(frozen=True)
class Source:
    """An adapter in an fsspec directory. ``size``: bytes of its two files, as the store states them."""

    url: str
    size: int
    system: Any
    root: str

    def copy(self, directory: Path) -> None:
        """Write the two files into ``directory``. Raises as ``Sources.find`` does, and RelayError 502 if more comes."""
        limit = _Limit(self.url, self.size)
        with _in_words(self.url):
            for name in NAMES:
                self.system.get_file(f"{self.root}/{name}", str(directory / name), callback=limit)


class Sources:
    """The fsspec prefixes below which adapters may be fetched."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = [prefix.rstrip("/") + "/" for prefix in prefixes]

    def find(self, url: str) -> Source:
        """The adapter in the fsspec directory ``url``.

        Raises RelayError 403 if it may not be fetched, 502 if the store fails, and UserError if it is not there.
        """
        self._check(url)
        options = {"client_kwargs": {"trace_configs": [_NO_REDIRECTS]}} if url.startswith(("http:", "https:")) else {}
        with _in_words(url):
            system, root = fsspec.core.url_to_fs(url, **options)
            size = sum(int(system.info(f"{root}/{file}")["size"]) for file in NAMES)
        return Source(url, size, system, root)

    def _check(self, url: str) -> None:
        if _leads_elsewhere(url):
            raise RelayError(
                f"{url[:200]!r} may not be fetched: name the directory itself, without '..', '.', '?', '#', '\\', '::' "
                "or a blank",
                403,
            )
        if not any(url.startswith(prefix) for prefix in self._prefixes):
            raise RelayError(f"{url[:200]} may not be fetched: start the relay with --sources=PREFIX of it", 403)


class _Redirected(Exception):
    """A web server sent us elsewhere."""


@contextmanager
def _in_words(url: str) -> Iterator[None]:
    """Errors of fsspec and its drivers as RelayError or UserError."""
    try:
        yield
    except RelayError:
        raise
    except Exception as error:  # drivers have their own, for no answer or no credentials
        redirect = error if isinstance(error, _Redirected) else error.__cause__
        if isinstance(redirect, _Redirected):
            raise RelayError(
                f"{url} may not be fetched: its server redirects to {redirect}; name that address, below a prefix of "
                "--sources",
                403,
            ) from None
        if isinstance(error, FileNotFoundError | ImportError | ValueError):
            raise UserError(
                f"{url}: cannot be fetched ({error!r}): correct the path, or install its fsspec driver"
            ) from None
        raise RelayError(
            f"{url}: cannot be fetched ({error!r}): see if the relay reaches the store and may read it", 502
        ) from None


class _Limit(Callback):
    """Ends a transfer that brings more bytes than were stated."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._left, self._size = url, size, size

    def relative_update(self, inc: int = 1) -> None:
        self._left -= inc
        if self._left < 0:
            raise RelayError(f"{self._url}: more than the stated {self._size} bytes came: see the store", 502)


async def _refuse_redirect(session: Any, context: Any, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    raise _Redirected(str(redirect.response.headers.get("Location", "nowhere"))[:200])


_NO_REDIRECTS = aiohttp.TraceConfig()
_NO_REDIRECTS.on_request_redirect.append(_refuse_redirect)


def _leads_elsewhere(url: str) -> bool:
    """Whether a server, or a driver, may take ``url`` for an address outside of the prefix that it begins with."""
    for _ in range(_DECODINGS):
        if any(part in url for part in _FORBIDDEN) or not url.isprintable() or " " in url:
            return True
        if {".", ".."} & set(url.split("/")):
            return True
        if (decoded := unquote(url)) == url:
            return False
        url = decoded
    return True
