"""An object store in memory that epath takes for S3: it has no append and no rename of open files."""

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry


class MemoryS3(MemoryFileSystem):
    """fsspec's memory file system under S3's scheme, refusing what S3 cannot do."""

    protocol = "s3"
    store: dict = {}
    pseudo_dirs: list = [""]

    def _open(self, path, mode="rb", **kwargs):
        if "a" in mode or "+" in mode:
            raise NotImplementedError(f"objects cannot be opened with mode {mode}")
        return super()._open(path, mode=mode, **kwargs)


@pytest.fixture
def store(monkeypatch):
    """``s3://bucket`` as an epath, empty."""
    monkeypatch.setitem(_registry, "s3", MemoryS3)
    MemoryS3.store.clear()
    MemoryS3.pseudo_dirs[:] = [""]
    assert isinstance(fsspec.filesystem("s3"), MemoryS3)
    return epath.Path("s3://bucket")
