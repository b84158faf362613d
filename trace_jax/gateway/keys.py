"""The API keys of clients."""

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from trace_jax.errors import UserError
from trace_jax.gateway.errors import ApiError

KEYS_VARIABLE = "TRACE_API_KEYS"


class Keys:
    """The keys that clients may show as ``Authorization: Bearer KEY``. Without any, every client is served."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Mapping[str, str]) -> str:
        """Which key is shown (``key0``, …), empty if none is needed. Raises ApiError (401) for none or a wrong one.

        All keys are compared, each in constant time, so that the time tells nothing about them.
        """
        if not self._digests:
            return ""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        digest = _digest(shown.strip())
        equal = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(equal):
            raise ApiError(
                401,
                "no valid API key: send one of this gateway's keys as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return f"key{equal.index(True)}"


def read_keys(path: str) -> Keys:
    """The keys in the file ``path``, one a line; if it is empty, those in ``$TRACE_API_KEYS``, separated by commas.

    Raises UserError for a file or a variable without keys, since that would open the gateway to every client.
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
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
