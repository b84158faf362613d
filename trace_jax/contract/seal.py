"""The seal of a record: the last field of its JSON object, ``"sha256"``, over all bytes before that field's comma.

A record that was edited after it was written no longer fits its seal and is refused. A record without a seal comes from
another program, or from an editor that took the seal away on purpose, and is read as it is.
"""

import hashlib
import re

from trace_jax.errors import UserError

FIELD = "sha256"
_SEAL = re.compile(rb'\s*,\s*"sha256"\s*:\s*"([0-9a-f]{64})"\s*\}\s*\Z')
_LONGEST = 160  # bytes of a seal, with room for white space


def sealed(data: bytes) -> bytes:
    """The JSON object ``data`` with its seal. An object on several lines gets it on a line of its own."""
    body = data[: data.rindex(b"}")].rstrip()
    comma, end = (b",\n  ", b"\n}") if b"\n" in body else (b",", b"}")
    colon = b": " if b"\n" in body else b":"
    return body + comma + b'"sha256"' + colon + b'"' + _digest(body) + b'"' + end


def unsealed(data: bytes) -> tuple[bytes, bytes | None, bytes | None]:
    """The JSON object without its seal, the digest that the seal states, and the digest found; None without a seal."""
    start = max(0, len(data) - _LONGEST)
    match = _SEAL.search(data, start)
    if match is None:
        return data, None, None
    body = data[: match.start()]
    return body + b"}", match.group(1), _digest(body)


def check_seal(where: str, stated: bytes | None, found: bytes | None) -> None:
    """Raise UserError, naming ``where``, if the two digests of ``unsealed`` differ."""
    if stated != found:
        assert stated is not None and found is not None, "both or none"
        raise UserError(
            f"{where}: sha256 is {found.decode()}, expected {stated.decode()} (by its own seal): it was edited or "
            "damaged after it was written: restore it, or take its field sha256 away if the change is meant"
        )


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
