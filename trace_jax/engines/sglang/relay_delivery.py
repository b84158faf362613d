"""Adapters to a server that does not see our disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from trace_jax.engines.sglang.adapter_files import AdapterFiles
from trace_jax.engines.sglang.server import Refused, ServerFailed
from trace_jax.relay.client import SECONDS, deliver, withdraw
from trace_jax.relay.files import RelayError


class RelayDelivery:
    """Through the relay at ``url`` (``launch.relay``), beside the server. Raises ServerFailed or Refused.

    ``seconds`` without an answer, or without progress of an upload, and the server has failed.
    """

    def __init__(self, url: str, seconds: float = SECONDS) -> None:
        self._url, self._seconds = url, seconds

    async def load(self, files: AdapterFiles) -> None:
        """Have the adapter on the server's own disk, and loaded."""
        with _told():
            await deliver(self._url, files.name, files.path, self._seconds)

    async def unload(self, name: str) -> None:
        """Unload it, and remove it from the server's disk."""
        with _told():
            await withdraw(self._url, name, self._seconds)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RelayError as error:
        raise (Refused if error.final else ServerFailed)(str(error)) from None
