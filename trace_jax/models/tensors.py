"""Named tensors in safetensors files, checked as they are read."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from trace_jax.contract.record import ContractError

_DTYPES = ("F32", "F16", "BF16")


class TensorFiles:
    """Tensors of one or several safetensors files, read one at a time."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the headers. Raises ContractError for a missing, truncated or damaged file, or a name held twice."""
        self._handles: dict[str, tuple[Path, safe_open]] = {}
        for path in paths:
            try:
                handle = safe_open(path, framework="np")
                names = handle.keys()
            except FileNotFoundError:
                raise ContractError(f"{path} is missing: download or save it again") from None
            except (SafetensorError, OSError) as error:
                raise ContractError(f"{path} is truncated or damaged ({error}): download or save it again") from None
            for name in names:
                if name in self._handles:
                    other = self._handles[name][0].name
                    raise ContractError(f"{path} holds {name!r}, which {other} holds too: keep one of them")
                self._handles[name] = (path, handle)

    def names(self) -> set[str]:
        """Every tensor's name."""
        return set(self._handles)

    def require(self, expected: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raise ContractError unless exactly the ``expected`` names (and perhaps some ``optional`` ones) are there."""
        expected = set(expected)
        files = ", ".join(sorted({str(path) for path, _ in self._handles.values()})) or "the checkpoint"
        if missing := sorted(expected - self.names()):
            raise ContractError(f"{files} lacks tensor {missing[0]!r} ({len(missing)} missing): use complete weights")
        if extra := sorted(self.names() - expected - set(optional)):
            raise ContractError(
                f"{files} holds tensor {extra[0]!r} ({len(extra)} unknown), which this architecture has no place for: "
                "use weights that belong to the configuration"
            )

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor as stored. Raises ContractError unless it has ``shape``, a float dtype and finite values."""
        path, handle = self._handles[name]
        found = handle.get_slice(name)
        if (dtype := found.get_dtype()) not in _DTYPES:
            raise ContractError(f"{path}: tensor {name!r} has dtype {dtype}; supported are {', '.join(_DTYPES)}")
        if tuple(found.get_shape()) != shape:
            raise ContractError(
                f"{path}: tensor {name!r} has shape {tuple(found.get_shape())}, the configuration says {shape}: "
                "use weights that belong to the configuration"
            )
        value = handle.get_tensor(name)
        if not np.isfinite(value).all():
            raise ContractError(f"{path}: tensor {name!r} holds NaN or infinity: use undamaged weights")
        return value
