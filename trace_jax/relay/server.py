"""The relay's inference server, which loads adapters from the relay's disk."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from trace_jax.relay.files import API_KEY, RelayError

_SECONDS = 600.0  # an unload waits for the requests that use the adapter


class Server:
    """SGLang at ``url``, started with ``--api-key`` or without.

    Raises RelayError: 502 if it does not answer or fails, 422 if it refuses an adapter.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def load(self, name: str, path: Path) -> None:
        """Load the adapter in ``path``, unless it is loaded already."""
        refusal = await self._call("load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if refusal is not None and refusal[1].get(name) != str(path):
            raise RelayError(f"adapter {name!r}: {self.url} refuses it: {refusal[0]}", 422)

    async def unload(self, name: str) -> None:
        """Unload an adapter, if it is loaded."""
        refusal = await self._call("unload_lora_adapter", {"lora_name": name})
        if refusal is not None and name in refusal[1]:
            raise RelayError(f"adapter {name!r}: {self.url} does not unload it: {refusal[0]}", 502)

    async def loaded(self) -> set[str]:
        """Names of the adapters that are loaded now."""
        try:
            async with self._open.get(f"{self.url}/v1/models") as response:
                if response.status != 200:
                    raise RelayError(f"{self.url}/v1/models answers {response.status}: see the server's log", 502)
                cards = (await response.json())["data"]
                return {str(card["id"]) for card in cards if card.get("parent")}
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RelayError(f"{self.url}/v1/models: no list of models ({error!r}): is it SGLang?", 502) from None

    async def _call(self, call: str, body: dict[str, str]) -> tuple[str, dict[str, str]] | None:
        """None if SGLang did it; its reason and the loaded adapters, name → path, if it refuses (status 400)."""
        try:
            async with self._open.post(f"{self.url}/{call}", json=body) as response:
                if response.status == 401:
                    raise RelayError(f"{self.url} asks for its --api-key: set {API_KEY} for the relay", 502)
                if response.status not in (200, 400):
                    raise RelayError(f"{self.url}/{call} answers {response.status}: see the server's log", 502)
                found: Any = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise RelayError(f"{self.url} does not answer ({error!r}): is the server running?", 502) from None
        if found.get("success"):
            return None
        return " ".join(str(found.get("error_message")).split()), found.get("loaded_adapters") or {}

    @property
    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "enter the server first"
        return self._session

    async def __aenter__(self) -> Self:
        limit = aiohttp.ClientTimeout(total=_SECONDS, sock_connect=10.0)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=limit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.close()
