"""How much disk the adapters of a relay may take."""

import shutil
from collections.abc import Collection
from pathlib import Path

from trace_jax.relay.files import RelayError


class Room:
    """At most ``limit`` bytes below ``directory``: those of the adapters that are there, and of those on their way."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory, self.limit = directory, limit
        self._arriving = 0

    def missing(self, size: int) -> int:
        """Bytes that have to go before ``size`` more have room; 0 or less if they have."""
        taken = sum(map(bytes_of, self.adapters())) + self._arriving
        return max(taken + size - self.limit, self._arriving + size - shutil.disk_usage(self._directory).free)

    def unused(self, size: int, kept: Collection[str]) -> list[str]:
        """The adapters, used longest ago first, that have to go to make room for ``size`` bytes, none of them ``kept``.

        Raises RelayError 507 if there is no room without the kept ones.
        """
        missing, found = self.missing(size), []
        for path in sorted(self.adapters(), key=lambda path: path.stat().st_mtime):
            if missing > 0 and path.name not in kept:
                missing -= bytes_of(path)
                found.append(path.name)
        if missing > 0:
            raise RelayError(
                f"no room for {size} bytes in {self._directory}: {missing} bytes are missing, and all that is there is "
                f"in use; withdraw adapters, or see --max_disk_gib ({self.limit} bytes) and the free space of the disk",
                507,
            )
        return found

    def reserve(self, size: int) -> None:
        """Count ``size`` bytes as taken while they arrive, until they are released."""
        self._arriving += size

    def release(self, size: int) -> None:
        """They have arrived, and count as an adapter, or they are gone."""
        self._arriving -= size

    def adapters(self) -> list[Path]:
        """Directories of adapters, whole or damaged; not what is on its way, which is hidden."""
        return [path for path in self._directory.iterdir() if path.is_dir() and not path.name.startswith(".")]


def bytes_of(directory: Path) -> int:
    """Bytes of the files in one directory."""
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
