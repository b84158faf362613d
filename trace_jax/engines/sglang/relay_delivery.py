"""Delivers adapters to a server that does not see our disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from trace_jax.engines.sglang.adapter_files import AdapterFiles
from trace_jax.engines.sglang.server import Refused, ServerFailed
from trace_jax.relay.client import SECONDS, deliver, withdraw
from trace_jax.relay.files import RelayError


class RelayDelivery:
    """Delivers through the relay at ``url`` (``launch.relay``), which runs on the server's machine.

    Raises Refused, or ServerFailed: also after ``seconds`` without a response or without progress of an upload.
    """

    def __init__(self, url: str, seconds: float = SECONDS) -> None:
        self._url, self._seconds = url, seconds

    async def load(self, files: AdapterFiles) -> None:
        """Copy the adapter to the server's own disk, and load it."""
        with _relay_errors():
            await deliver(self._url, files.name, files.path, self._seconds)

    async def unload(self, name: str) -> None:
        """Unload the adapter, and remove it from the server's disk."""
        with _relay_errors():
            await withdraw(self._url, name, self._seconds)


@contextmanager
def _relay_errors() -> Iterator[None]:
    """RelayError as an error of the server."""
    try:
        yield
    except RelayError as error:
        raise (Refused if error.final else ServerFailed)(str(error)) from None
