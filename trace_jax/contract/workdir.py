"""A work directory belongs to one configuration; going on with another would mix two runs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from trace_jax.contract.digest import digest_of
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.record import Record
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError

FILE = "workdir.json"


class WorkDirectory(Record):
    """What a work directory was made with. Its schema version is the version of the directory's layout."""

    fingerprint: str  # of the config; see ``fingerprint``
    config: dict[str, Any]


def open_workdir(path: PathLike, config: Mapping[str, Any]) -> epath.Path:
    """Make the work directory at ``path`` for ``config``, or go on in it if it was made for the same one.

    Raises UserError, in one line with the remedy, when it is of another version or config, or when it holds files
    but no ``workdir.json`` (somebody else's directory).
    """
    directory = epath.Path(path)
    wanted = _as_json(config)
    if not (directory / FILE).exists():
        names = [entry.name for entry in directory.iterdir()] if directory.exists() else []
        strangers = sorted(name for name in names if not name.startswith("."))  # a killed first start leaves a .tmp
        if strangers:
            raise UserError(f"{directory}: holds {strangers[0]} but no {FILE}: choose an empty work directory")
        write_document(directory / FILE, WorkDirectory(fingerprint=fingerprint(config), config=wanted))
        return directory
    found = read_document(directory / FILE, WorkDirectory)
    if found.fingerprint != fingerprint(config):
        changed = list(_differences(found.config, wanted))
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{directory}: made with config {found.fingerprint}, this run has {fingerprint(config)} "
            f"({'; '.join(changed[:3])}{more}): use the old config, or choose a new work directory"
        )
    return directory


def fingerprint(config: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of ``config`` as JSON with sorted keys (a tuple equals a list)."""
    return digest_of(_as_json(config))[:16]


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` as a file gives it back."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"config holds what JSON cannot: {error}: use numbers, strings, lists and dicts") from None
    return found


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """``key was A, is B`` for each leaf that differs, in order of keys."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{prefix} was {_short(old)}, is {_short(new)}"
        return
    for key in sorted(old.keys() | new.keys()):
        yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{prefix}.{key}" if prefix else key)


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
