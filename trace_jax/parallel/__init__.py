"""Everything that spans devices and processes: the mesh, collectives, placement of arrays, checkpoints, SIGTERM."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["Checkpoints"],
        "mesh": ["AXES", "BATCH_AXES", "MeshSettings", "batch_shards", "make_mesh"],
        "placement": ["to_host", "to_mesh"],
        "processes": ["anywhere", "from_first", "is_first", "require_same", "require_shared", "start", "together"],
        "termination": ["Terminated", "Termination"],
    },
)
