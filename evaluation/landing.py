"""The checkpoints that trainings have written so far, searched again and again."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from evaluation.checkpoints import Checkpoint, Kind, checkpoint_paths, distinct, read_checkpoint
from trace_jax.contract.adapter import MANIFEST
from trace_jax.errors import UserError


class Landing:
    """The checkpoints at or below ``places``.

    Only whole ones are found. Nothing but its manifest tells that a PEFT directory is whole, so one without is found
    when it was the same in two searches. ``waiting`` says whether there is one that was not.
    """

    def __init__(self, places: Sequence[epath.Path]) -> None:
        self._places = places
        self._seen: dict[epath.Path, Any] = {}
        self.waiting = False

    def search(self, patient: bool) -> list[Checkpoint]:
        """The checkpoints now. If not ``patient``, also PEFT directories that are seen for the first time.

        Raises UserError for a place that does not exist; if ``patient``, that may come.
        """
        found, seen = [], {}
        self.waiting = False
        places = [place for place in self._places if place.exists() or not patient]
        for kind, path in (pair for place in places for pair in checkpoint_paths(place)):
            if patient and kind == "peft":
                seen[path] = _state(path)
                if seen[path] != self._seen.get(path):
                    self.waiting = True
                    continue
            found.append(_read(kind, path))
        self._seen = seen
        return distinct(found)

    def complete(self) -> bool:
        """Whether every training has ended: its directory holds the manifest of its adapter, which is written last."""
        return all(place.name == MANIFEST or (place / MANIFEST).exists() for place in self._places)


def _read(kind: Kind, path: epath.Path) -> Checkpoint:
    """The checkpoint at ``path``. One with a damaged manifest is named after its directory; loading it fails."""
    try:
        return read_checkpoint(kind, path)
    except UserError:
        return Checkpoint(path.parent.name, path.parent.name, None, kind, path, path.parent)


def _state(directory: epath.Path) -> Any:
    """What changes while files are written into ``directory``, or removed from it."""
    try:
        stats = {file.name: file.stat() for file in directory.iterdir()}
    except FileNotFoundError:
        return None
    return {name: (stat.length, stat.mtime) for name, stat in stats.items()}
