"""The package of a benchmark: the one version that a target was tested with, and the files that hold its tasks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable

from trace_jax.errors import UserError


@dataclass(frozen=True)
class BenchmarkPackage:
    """``distribution`` in ``version``, which ``install`` installs; ``sha256`` is that of its task files."""

    target: str
    distribution: str
    version: str
    install: str
    sha256: str

    def require(self) -> None:
        """Raises UserError, with the line that installs the package, if it is absent or has another version."""
        needed = f"target {self.target!r} needs {self.distribution} {self.version}"
        try:
            found = version(self.distribution)
        except PackageNotFoundError:
            raise UserError(f"{needed}, which this Python lacks: {self.install}") from None
        if found != self.version:
            raise UserError(f"{needed}, found {found}: {self.install}")

    def checked_version(self, module: str, paths: Sequence[str]) -> str:
        """Name, version and SHA-256 of the task files: ``paths`` in ``module``, where a folder stands for its files.

        Raises UserError if the files are not those of the release: a score on other tasks is not comparable.
        """
        digest = hashlib.sha256()
        for path in paths:
            for file in _files(files(module).joinpath(path)):
                digest.update(file.read_bytes())
        if (found := digest.hexdigest()) != self.sha256:
            raise UserError(
                f"target {self.target!r}: the task files of {self.distribution} {self.version} have SHA-256 {found}, "
                f"not {self.sha256}: install it anew: {self.install}"
            )
        return f"{self.distribution} {self.version} sha256:{found}"


def _files(path: Traversable) -> list[Traversable]:
    if path.is_file():
        return [path]
    inside = sorted(path.iterdir(), key=lambda entry: entry.name)
    return [file for entry in inside if entry.name != "__pycache__" for file in _files(entry)]
