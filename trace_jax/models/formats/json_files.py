"""JSON objects from files that a user gave: every fault is one line with the file, the place and the remedy.

Needs no JAX, since the relay's machine has none.
"""

import json
import reprlib
from pathlib import Path
from typing import Any

from trace_jax.errors import UserError

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 40
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


def read_json(path: Path, largest: int | None = None) -> dict[str, Any]:
    """The JSON object in a file of at most ``largest`` bytes. Raises UserError if it cannot be read as one."""
    try:
        if largest is not None and (size := path.stat().st_size) > largest:
            raise UserError(f"{path} has {size} bytes, more than {largest}: this is no file of that name")
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: download or save it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file that can") from None
    except RecursionError:
        raise UserError(f"{path} is not JSON of a model (nested too deep): download or save it again") from None
    except ValueError as error:  # its message names line and column, or the byte that is not UTF-8
        raise UserError(f"{path} is not JSON ({error}): download or save it again") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, not an object: download or save it again")
    return data


def shown(value: object) -> str:
    """A value of a file as an error message shows it: on one line, and short however large or deep it is."""
    return _SHORT.repr(value)
