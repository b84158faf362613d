"""JSON that users give: every fault is a UserError that names the file, the place in it, and the remedy.

results = read_json("results.json", "give a τ-bench result file")
value, replaced = storable(results[0])
"""

import json
import math
import os
from typing import Any

from etils import epath

from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError

MAX_BYTES = 1 << 31  # of one file or one line: more is refused before it fills the memory
MAX_DEPTH = 100  # levels of a free-form value: pydantic reads about 200 back, and the record around it takes a few
WRITTEN_BY_A_STAGE = "run the stage that writes it, or correct the path"  # the remedy for files of a work directory
_MAX_DIGITS = 4300  # of an integer: Python parses no longer ones
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class NoNumber(str):
    """What stands for a number in a file and is none that JSON knows: ``NaN``, ``-Infinity``, ``1e999``.

    Free-form fields keep it as this text. Where a text is expected, it is none (see ``importers.episodes.Shape``).
    """


class TooDeepError(ValueError):
    """A value is nested deeper than the files of this program can hold."""


def read_bytes(path: PathLike, remedy: str) -> bytes:
    """The content of the file at ``path``, at most ``MAX_BYTES`` long. Raises UserError that ends with ``remedy``."""
    name, target = os.fspath(path), epath.Path(path)
    try:
        if target.is_dir():
            raise UserError(f"{name}: is a directory, not a file: {remedy}")
        size = target.stat().length
        if size > MAX_BYTES:
            raise UserError(f"{name}: {size} bytes, more than the {MAX_BYTES} that are read at once: {remedy}")
        data: bytes = target.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{name}: no such file: {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{name}: cannot be read ({error}): {remedy}") from None
    return data


def read_json(path: PathLike, remedy: str) -> Any:
    """The JSON value in the file at ``path``. Raises UserError that ends with ``remedy``."""
    return parse_json(os.fspath(path), read_bytes(path, remedy), remedy)


def parse_json(where: str, data: bytes, remedy: str) -> Any:
    """The JSON value in ``data``, which stands at ``where``. Raises UserError that ends with ``remedy``.

    NaN, the infinities, and numbers too long for Python come back as ``NoNumber``, which is not read as a number.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start} is {data[error.start]:#04x}): {remedy}") from None
    if not text.strip():
        raise UserError(f"{where}: empty: {remedy}")
    try:
        return json.loads(text, parse_constant=NoNumber, parse_float=_finite, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not JSON: {error.msg} (line {error.lineno}, column {error.colno}): {remedy}"
        ) from None
    except RecursionError:
        raise UserError(f"{where}: not JSON that can be read: nested too deep: {remedy}") from None


def storable(value: Any) -> tuple[Any, int]:
    """``value`` (parsed JSON) as a free-form field of a record can hold it, and how many texts had to be changed.

    Half a surrogate pair, which UTF-8 cannot write, becomes U+FFFD. Raises TooDeepError beyond ``MAX_DEPTH`` levels.
    """
    replaced = 0

    def text(found: str) -> str:
        nonlocal replaced
        try:
            found.encode()
        except UnicodeEncodeError:
            replaced += 1
            return "".join(_REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in found)
        return found

    def copy(found: Any, depth: int) -> Any:
        if isinstance(found, str):
            return text(found)
        if not isinstance(found, dict | list):
            return found
        if depth == MAX_DEPTH:
            raise TooDeepError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(found, list):
            return [copy(item, depth + 1) for item in found]
        return {text(key): copy(item, depth + 1) for key, item in found.items()}

    return copy(value, 0), replaced


def _finite(text: str) -> float | NoNumber:
    number = float(text)
    return number if math.isfinite(number) else NoNumber(text)


def _integer(text: str) -> int | NoNumber:
    return int(text) if len(text) <= _MAX_DIGITS else NoNumber(text)
