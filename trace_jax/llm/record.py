"""The calls of a run on file: what was answered once is not asked again."""

import os
from collections.abc import Iterator

from etils import epath

from trace_jax.contract.files import JsonLinesWriter, read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.contract.storage import PathLike
from trace_jax.llm.errors import NotRecorded


class CallRecord:
    """The ``ModelCall``s at ``path``, JSON Lines that survive a kill; in memory alone if it is None.

    Several requests may be written at once in one event loop; a second process is kept out by the lock of the work
    directory. The file is opened for writing with the first new call.
    """

    def __init__(self, path: PathLike | None) -> None:
        self.path = path
        self._calls: list[ModelCall] = []  # without their messages, which only the file keeps
        self._by_key: dict[str, ModelCall] = {}
        self._writer: JsonLinesWriter | None = None
        if path is not None and epath.Path(path).exists():
            for call in read_records(path, ModelCall):
                self._keep(call)

    def __iter__(self) -> Iterator[ModelCall]:
        """All calls so far, without their messages."""
        return iter(self._calls)

    def find(self, key: str) -> ModelCall | None:
        """The answer to the request ``key``, or its last failure, or None."""
        return self._by_key.get(key)

    def add(self, call: ModelCall) -> None:
        """Keep ``call``; it is durable when this returns."""
        if self.path is not None:
            self._writer = self._writer or JsonLinesWriter(self.path)
            self._writer.append(call)
        self._keep(call)

    def missing(self, call: ModelCall) -> NotRecorded:
        """The error of a replay in which ``call`` has no answer on file."""
        versions = sorted({other.prompt_version for other in self._calls if other.prompt == call.prompt})
        versions = [] if call.prompt_version in versions else versions
        known = f"; the file has {call.prompt} in version {', '.join(versions)}" if versions else ""
        where = "llm.replay is set and no file of calls is given" if self.path is None else os.fspath(self.path)
        return NotRecorded(
            f"{where}: no answer to the prompt {call.prompt} {call.prompt_version} of stage {call.stage}, seed "
            f"{call.seed}, model {call.model!r} (request {call.key[:12]}){known}: replay with the settings and the "
            "version that made the file, or unset llm.replay and name an endpoint"
        )

    def close(self) -> None:
        """Release the file. A later call opens it again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _keep(self, call: ModelCall) -> None:
        call = call.model_copy(update={"messages": ()})
        self._calls.append(call)
        self._by_key[call.key] = call  # what was answered is never sent again, so an answer is the last of its key
